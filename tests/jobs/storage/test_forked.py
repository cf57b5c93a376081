"""A process that was forked from one that has used stores: told at once, where it would wait for ever."""

import multiprocessing

import pytest
import stores

from jobs import Store, open_store
from jobs.errors import JobError

USES = {
    "opened": lambda store: len(Store.open(store.address).committed.numbers()),
    "queried": lambda store: len(open_store(store.address).query()),
    "inherited": lambda store: len(store.rows(0, "steps", 0, 2)),
    "listed": lambda store: len(store.committed.numbers()),
}


def tell(queue, store):
    """What becomes of each use."""
    for name, use in USES.items():
        try:
            queue.put((name, use(store)))
        except Exception as error:
            queue.put((name, error))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
def test_fork_is_told_to_be_a_spawned_process(tmp_path):
    store, _ = stores.run(tmp_path / "s.zarr")
    forks = multiprocessing.get_context("fork")
    queue = forks.Queue()
    process = forks.Process(target=tell, args=(queue, store))
    process.start()
    try:
        for name in USES:
            (used, told) = queue.get(timeout=120)
            assert (used, type(told)) == (name, JobError)
            assert str(told).startswith("process ")
            assert "get_context('spawn')" in str(told)
    finally:
        process.kill()
        process.join()
