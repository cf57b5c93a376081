"""Searches for fixed and slow points, and the table of a network's points; the kernel `fixed_points` is in `kernel`."""
