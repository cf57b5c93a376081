"""Computation through dynamics in pure JAX: cells, tasks, data files, and one module or folder for each kernel."""
