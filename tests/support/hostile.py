"""A store as a stranger may send it: its job names code that writes a file when it is imported."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import stores

from jobs import keys
from jobs.gather.gather import gather
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store.manifest import write_job
from jobs.store.store import Store

PAYLOAD = "from pathlib import Path\nPath({mark!r}).write_text('run')\nfrom toy import *\n"


@cache
def finished() -> Path:
    """A finished toy store, one shard of which is not gathered."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = stores.copied_run(folder / "toy.zarr")
    last = store.committed.markers()[-1]
    store.committed.forget([last.shard])
    gather(store)
    sealed = last.to_bytes()
    objects.write(store.objects, keys.record(keys.DONE, 1, 7, digest(sealed)), sealed)
    return folder / "toy.zarr"


class Hostile:
    """A copy of that store, resealed to name `payload` in its own folder run/code.

    path: of the store. `ran` says whether the payload has been imported since.
    """

    def __init__(self, path: Path, kernel: str = "payload", base: str | None = None, **params):
        shutil.copytree(finished(), path)
        store = Store.open(str(path))
        self.path, self.mark = path, path.parent / "hacked"
        self.code = path / "run" / "code" if base is None else Path(base)
        self.code.mkdir(parents=True, exist_ok=True)
        (self.code / "payload.py").write_text(PAYLOAD.format(mark=str(self.mark)))
        reseal(store, str(self.code), kernel, **params)

    @property
    def ran(self) -> bool:
        return self.mark.exists()


def reseal(store, base, kernel, **params):
    """Have the store's job name another kernel, and further params."""
    spec = store.job.spec
    spec = spec.model_copy(update={"kernel": kernel, "params": {**spec.params, **params}})
    store.job = store.job.model_copy(update={"spec": spec, "base": base})
    write_job(store.objects, store.job)


def of_train_rnn(path: Path) -> Store:
    """A finished store of `train_rnn`, ctd's own kernel."""
    job = {
        "kernel": "train_rnn",
        "params": stores.SMALL_RNN,
        "sweep": {"grid": {"learning_rate": [0.01, 0.02]}},
        "run": stores.FOUR_SLOTS,
    }
    store = stores.copied_run(path, job)
    gather(store)
    return store
