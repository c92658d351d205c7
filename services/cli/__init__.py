"""The command `morphbatch`."""
