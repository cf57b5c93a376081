"""Run jobs: on a Ray on this machine, on an existing Ray cluster, on Slurm; and the command line."""

import os

# Under `uv run`, Ray would copy the driver's working directory to every node and start each worker there by
# `uv run`, in a newly made environment or, with --no-sync, in none. Our workers run in their node's own
# environment; `ctd submit` ships what a job needs. Set here because Ray reads it when it is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
