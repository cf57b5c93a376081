"""Where jobs run: Ray on this machine, an existing Ray cluster, Slurm; and the command line on top."""

import os

# A driver under `uv run` would have Ray copy its working directory to every node and start each worker by
# `uv run` in there, in an environment that is made anew, or, with --no-sync, in none. Workers run in the
# environment that their node has; `ctd submit` ships what a job needs. Ray reads this when it is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
