"""Slurm: batch scripts, submission, and the states of allocations."""
