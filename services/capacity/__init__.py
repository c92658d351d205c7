"""How many workers, GPUs and how much storage a night takes: nights played through by their measured rates."""
