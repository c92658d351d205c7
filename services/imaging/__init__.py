"""From bytes to crops and measurements: NumPy in, NumPy out, no I/O."""
