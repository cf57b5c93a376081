"""A process that was forked from one that has used stores: told at once, where it would wait for ever."""

import subprocess
import sys

from places import SUPPORT

USE = """
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")
sys.path[:0] = [{support!r}]
import stores
from jobs import Store, open_store

def opened(path): return len(Store.open(path).committed.numbers())
def queried(path): return len(open_store(path).query())
def inherited(path): return len(STORE.rows(0, "steps", 0, 2))
def listed(path): return len(STORE.committed.numbers())

if __name__ == "__main__":
    STORE, _ = stores.run({path!r})
    for how, uses in {{"fork": (opened, queried, inherited, listed), "spawn": (opened,)}}.items():
        with multiprocessing.get_context(how).Pool(1) as made:
            for use in uses:
                try:
                    print(how, made.apply_async(use, ({path!r},)).get(120))
                except Exception as error:
                    print(how, type(error).__name__, error)
"""


def test_fork_is_told_to_be_a_spawned_process(tmp_path):
    script, path = tmp_path / "use.py", str(tmp_path / "s.zarr")
    script.write_text(USE.format(support=str(SUPPORT), path=path))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    *forked, spawned = done.stdout.splitlines()
    assert len(forked) == 4
    assert all(line.startswith("fork JobError process") for line in forked), done.stdout
    assert all("get_context('spawn')" in line for line in forked)
    assert spawned == "spawn 8"
