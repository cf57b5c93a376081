"""Check every object of a store against its checksum, and repair damaged ones.

    run/job.json, its copy      their own checksums; each is the other's backup                    made.py
    the kernel's description    its own checksum; made again from the kernel                       made.py
    metadata, sweep columns     checksums taken at creation; made again from the job               made.py
    segments of records         a checksum in every line; written again without the lost lines     records.py
    commit markers              their own checksums; a shard without marker is computed again      records.py
    rows of committed shards    all storage objects, by the checksums in the marker                records.py
    notes                       their own checksums; taken from the markers, or learned again      records.py
    leftovers                   removed                                                            leftovers.py
    events, decisions           checksums taken at the end; nothing makes them again               leftovers.py
    other programs' objects     counted, and left alone                                            leftovers.py
    reductions                  checksums taken by gather; reduced again                           made.py

A repair removes the markers of damaged shards, so that `resume` computes them. Leases, requests and submissions
are not checked: they come and go with runs, and nothing is made from them.
"""

import itertools
import re
import traceback
from collections.abc import Iterator

from jobs.gather.check.leftovers import OTHERS as OTHERS
from jobs.gather.check.leftovers import check_leftovers, check_logs, check_others
from jobs.gather.check.made import check_created, check_gathered, check_job
from jobs.gather.check.mending import Finding as Finding
from jobs.gather.check.mending import Mending
from jobs.gather.check.records import LOST as LOST
from jobs.gather.check.records import check_markers, check_notes, check_results
from jobs.spec.trust import refuse_strange
from jobs.storage.lease import Lease
from jobs.store.store import Store, refuse_links


def check(address: str, repair: bool = False) -> list[Finding]:
    """List everything that is wrong with a store; with `repair`, repair it as far as possible.

    After a repair, `resume` computes what is missing. Raises JobError if there is no store or both copies of
    run/job.json are damaged; for a repair also if the store is being run, or names code that the user has not trusted.

    >>> check("points.zarr")
    []
    """
    store = Store.open(address)
    if not repair:
        return list(_everything(Mending(store, False)))
    # A repair imports the kernel, to make metadata and reductions again.
    refuse_strange(store.job.base, store.job.spec.modules(), address)
    refuse_links(store)
    lease = Lease.acquire(store.objects, address)
    try:
        return list(_everything(Mending(store, True)))
    finally:
        lease.release()


def damage(error: BaseException) -> str | None:
    """Find the damage behind an error: one line with the object and the cure, or None if the store is whole.

    The stores are those in the error's traceback. Few objects are read: those that creation and gather wrote beside
    the rows. Rows count as damaged if Zarr raised the error.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    locals_ = (value for frame in reversed(frames) for value in frame.f_locals.values())
    for store in dict.fromkeys(value for value in locals_ if isinstance(value, Store)):
        mending = Mending(store, False)
        parts = (check_job(mending), check_created(mending), check_gathered(mending))
        for found in itertools.chain(*parts):
            if found.cure:
                what = f"{found.key} is {found.what}"
                return f"{store.address}: {what}; `ctd check {store.address} --repair`"
        if re.search(r"/(zarr|numcodecs)/", frames[-1].f_code.co_filename):
            what = f"is damaged ({str(error).partition(chr(10))[0]})"
            return f"{store.address}: {what}; `ctd check {store.address} --repair`"
    return None


def _everything(mending: Mending) -> Iterator[Finding]:
    yield from check_job(mending)
    yield from check_created(mending)
    markers = yield from check_markers(mending)
    yield from check_results(mending, markers)
    yield from check_notes(mending, markers)
    yield from check_leftovers(mending, set(markers))
    yield from check_logs(mending)
    yield from check_others(mending)
    yield from check_gathered(mending)
