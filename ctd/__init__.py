"""The science of computation through dynamics as pure JAX: cells, tasks, data files, and one module for each kernel."""
