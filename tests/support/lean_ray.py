"""`ray` with its arguments, on nodes without dashboard and agents, which start sooner. They take no jobs, but run them."""

import sys

from cluster.ray.private import lean

COMMAND = [sys.executable, "-P", __file__]

if __name__ == "__main__":
    lean()
    from ray.scripts.scripts import main  # it asks what there is as it is imported

    main()
