"""Run jobs: on a Ray on this machine, on an existing Ray cluster, on Slurm; and the command line."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.api.job import Job as Job
    from cluster.tracking import Submitted as Submitted

# Under `uv run`, Ray would copy the driver's working directory to every node and start each worker there by
# `uv run`, in a newly made environment or, with --no-sync, in none. Our workers run in their node's own
# environment; `ctd submit` ships what a job needs. Set here because Ray reads it when it is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

for _name, _file in {"jobs": "keys.py", "ctd": "kernel.py"}.items():
    _spec = find_spec(_name)
    if _spec and not any(
        (Path(at) / _file).exists() for at in _spec.submodule_search_locations or ()
    ):
        raise ImportError(
            f"{_spec.origin} hides the package {_name} that ctd consists of; rename it"
        )


def __getattr__(name: str) -> Any:
    """Import `Job` and `Submitted` when they are asked for: the command line needs neither."""
    if name == "Job":
        from cluster.api.job import Job

        return Job
    if name == "Submitted":
        from cluster.tracking import Submitted

        return Submitted
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
