"""Whether JAX computes on the GPUs that a process was given."""

import os

from ctd.late import jax

VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""How Slurm and Ray tell a process which GPUs are its own."""

NONE = ("", "-1", "none", "NoDevFiles")
"""What stands there in place of a GPU."""


def idle_gpus() -> int:
    """Return how many GPUs this process was given, if JAX sees only the CPU; 0 if it sees GPUs, or was told to use the CPU.

    JAX without its plugin for GPUs falls back to the CPU, and says nothing.
    """
    if jax.default_backend() != "cpu" or jax.config.jax_platforms == "cpu":
        return 0
    given = (os.environ.get(name, "").split(",") for name in VARIABLES)
    return max(len([gpu for gpu in one if gpu not in NONE]) for one in given)
