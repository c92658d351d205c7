"""What the service finds against what people marked: figures that anyone can run again."""
