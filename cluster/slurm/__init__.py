"""Slurm: batch scripts, submission, and what it says of its allocations."""
