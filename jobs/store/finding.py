"""Find stores: those that are named, those below a folder or a prefix of a bucket, those that match a pattern."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import obstore
from obstore.store import ObjectStore

from jobs import keys
from jobs.errors import JobError
from jobs.storage import addresses, connect, objects
from jobs.storage.addresses import is_zip
from jobs.storage.checksums import parsed, verified
from jobs.storage.connect import read_member

Notify = Callable[[str], object]
"""Called with an address, or with a line."""

Read = Callable[[str], bytes | None]
"""Key -> the object of a store there; None if there is none."""

METADATA = ("zarr.json", "results/0/zarr.json")
"""The objects beside the job that every question needs."""
DEEP = 3
"""Levels of folders that are looked into; a whole disk is not."""
MOST_TOLD = 5
"""Most stores that a message names."""


def find_stores(locations: Iterable[str], notify: Notify = warnings.warn) -> list[str]:
    """Return the addresses of stores, each once, in the order in which they are named.

    A store in a folder is left out if another one there has its items, so that no item counts twice: archives beside their
    store, copies, and the store that a forked one grew from. So is a damaged store, unless all are.

    locations: addresses. A store stands for itself, a folder for the stores up to three levels below it, and * ? [...] are patterns.
    So are s3://BUCKET/PREFIX and s3://BUCKET/*.zarr. An address where nothing is, is returned as it is.
    notify: called with a line if stores are left out, and with one for each set of stores whose items count twice all the same,
    because they were named.

    Raises JobError if a pattern matches no store, or a folder has none.
    """
    candidates: dict[str, Candidate] = {}
    named_addresses: set[str] = set()
    for location in locations:
        links: list[str] = []
        below = dict(walk(location, _look, links.append))
        if links:
            notify(f"left out, {unfollowed(links)}")
        is_pattern = _is_pattern(location)
        if not below and (is_pattern or _is_folder(location)):
            problem = "no store matches" if is_pattern else "no store lies in this folder"
            raise JobError(f"{location}: {problem}; `ctd ls` lists stores")
        candidates |= below or {location: Candidate(None)}
        # The address of a store stands for that store alone: `walk` looks for none inside of it.
        if is_pattern or (len(below) == 1 and _matching(location) == [*below]):
            named_addresses |= below.keys()
    if len(candidates) == 1:
        return [*candidates]
    candidates = _undamaged(candidates, named_addresses, notify)
    copies = _copies(candidates, named_addresses)
    if copies:
        some = shortened(
            [f"{address} ({copies[address]})" for address in candidates if address in copies]
        )
        text = f"left out, since another store here has their items: {some}"
        notify(f"{text}; name a store to take it too")
    selected = [address for address in candidates if address not in copies]
    for line in _twice(selected, candidates):
        notify(line)
    return selected


def _undamaged(
    candidates: "Mapping[str, Candidate]", named_addresses: Set[str], notify: Notify
) -> "dict[str, Candidate]":
    """Leave out damaged stores that the user did not name, and say so; all stay if all are damaged."""
    lacking = {address: c.lacks for address, c in candidates.items() if c.lacks}
    broken = {address: key for address, key in lacking.items() if address not in named_addresses}
    if not broken or len(broken) == len(candidates):
        return dict(candidates)
    some = shortened([f"{address} ({key})" for address, key in broken.items()])
    notify(
        f"left out, since an object there is damaged, missing or closed to you: {some}; `ctd check` says more"
    )
    return {address: c for address, c in candidates.items() if address not in broken}


class Candidate(NamedTuple):
    """A store in a folder, and whose items it has."""

    id: str | None
    """The identity of the store; None if it is not known."""
    parts: Mapping[str | None, str] = {}
    """Identity -> address at that time, of the store that it was forked from, and of those that this one grew from."""
    lacks: str = ""
    """The key of a damaged or missing object without which nobody can ask the store; "" if there is none."""
    is_original: bool = False
    """True if the store has the name of its job, or one in the command that made it: most copies have another."""


def _look(address: str, read: Read) -> Candidate | None:
    data = _job(read)
    if data is None:
        return None
    if not (job := verified(data)):
        copy = read(keys.JOB_COPY)
        # A job of a newer ctd may have another checksum: it is not damaged.
        job = verified(copy) or parsed(data) or parsed(copy)
    if not job:
        return Candidate(None, lacks=keys.JOB)
    ancestors = _ancestors(job.get("provenance"))
    parts = {_identity(part, "spec_sha256"): str(part.get("store")) for part in ancestors}
    lacks = next((key for key in METADATA if parsed(read(key)) is None), "")
    return Candidate(_identity(job, "digest"), parts, lacks, _is_named(job, address))


def _is_named(job: Mapping[str, Any], address: str) -> bool:
    """Return whether a store's name is that of its job, or is in the command that made it."""
    name = PurePosixPath(address).name
    try:
        words = [job["spec"].get("name"), *job["provenance"].get("command", ())]
    except (AttributeError, KeyError, TypeError):  # of another program
        return False
    return any(name in (word, f"{word}.zarr", PurePosixPath(str(word)).name) for word in words)


def _identity(job: Mapping[str, object], digest: str) -> str | None:
    """Return the identity of a store: its job, and when, where and by which command it was created; None if the job does not
    say so. Archives of the store keep it, and so does the provenance of a store that is forked from it.

    digest: the key of the job's digest.
    """
    about = [job.get(name) for name in (digest, "base", "provenance")]
    return None if None in about else json.dumps(about, sort_keys=True)


def _ancestors(provenance: object) -> list[dict[str, Any]]:
    """Return the entries of the store that a store was forked from, of the one that this was forked from, and so on."""
    parent = provenance.get("forked") if isinstance(provenance, dict) else None
    return [parent, *_ancestors(parent.get("provenance"))] if isinstance(parent, dict) else []


def _copies(
    candidates: Mapping[str, Candidate], named_addresses: Collection[str]
) -> dict[str, str]:
    """Return address -> why its items are those of another store, for stores that are not named."""
    n_of = Counter[str | None](candidate.id for candidate in candidates.values() if candidate.id)
    is_begun = lambda address: (
        n_of[candidates[address].id] > 1 and _read(_bucket(address), address, keys.CARD) is None
    )
    # A forked store before the one that it grew from. Of several copies one that is named, then a store before its archives, then a finished one,
    # then the original.
    rank = lambda address: (
        -len(candidates[address].parts), address not in named_addresses, _is_archive(address), is_begun(address),
        not candidates[address].is_original,
    )  # fmt: skip
    holder: dict[str | None, str] = {}
    copies = {}
    for address in sorted(candidates, key=rank):
        candidate, other = candidates[address], holder.get(candidates[address].id)
        if address in named_addresses or candidate.id is None or other is None:
            holder = dict.fromkeys([candidate.id, *candidate.parts], address) | holder
        elif candidates[other].id != candidate.id:
            copies[address] = f"part of {other}"
        else:
            kind = "an archive" if _is_archive(address) else "a copy"
            copies[address] = f"{kind} of {'the store in ' * _is_archive(other)}{other}"
    return copies


def _twice(selected: Collection[str], candidates: Mapping[str, Candidate]) -> Iterator[str]:
    """Yield a line for each set of the selected stores that hold the same items."""
    address_of = {candidates[address].id: address for address in reversed([*candidates])}
    holders: dict[str | None, list[str]] = {}
    for address in selected:
        for identity in {candidates[address].id: "", **candidates[address].parts}:
            holders.setdefault(identity, []).append(address)
    names: dict[tuple[str, ...], list[str]] = {}
    for identity, holding in holders.items():
        if identity is not None and len(holding) > 1:
            name = address_of.get(identity) or candidates[holding[0]].parts[identity]
            names.setdefault(tuple(holding), []).append(name)
    for stores, origins in names.items():
        *most, last = stores
        often = "twice" if len(stores) == 2 else f"{len(stores)} times"
        both = f"{', '.join(most)} and {last} hold the same items, which count {often}"
        yield f"{both}: those of {', '.join(origins)}"


def shortened(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are, for a message."""
    more = len(names) - MOST_TOLD
    return ", ".join(names[:MOST_TOLD]) + f" and {more} more" * (more > 0)


def _is_archive(address: str) -> bool:
    return is_zip(addresses.local_path(address))


def unfollowed(links: Sequence[str]) -> str:
    """Say why these addresses, to which `walk` did not go, are left out."""
    return f"since links are followed only where you name them: {shortened(links)}"


def walk[T](
    address: str, look: Callable[[str, Read], T | None], tell_link: Notify = lambda at: None
) -> Iterator[tuple[str, T]]:
    """Yield (address, look(address, read)) of the stores that an address stands for, see `find_stores`.

    look: returns what the caller wants to know of a store; None if there is none at the address. `read` returns a small object
    of the store, None if there is no such object. Many stores of a bucket are looked at at a time.
    tell_link: called with each folder or archive that is a link and was not named: somebody else may have laid it.

    Raises JobError, within seconds, if the bucket cannot be read.
    """
    level, bucket = _matching(address, tell_link), _bucket(address)
    call = lambda at: look(at, partial(_read, bucket, at))
    for _ in range(DEEP + 1):
        looked = map(call, level) if bucket is None else objects.each(bucket, call, level)
        level_info = list(zip(level, looked, strict=True))
        yield from ((place, info) for place, info in level_info if info is not None)
        # A store is not entered: its thousands of folders hold no other store.
        level = [
            inner
            for place, info in level_info
            if info is None
            for inner in _folders(place, tell_link)
        ]


def stores_in(folder: str) -> list[str]:
    """Return the addresses of the first stores directly in a folder of this machine, sorted; none for a bucket."""
    if addresses.local_path(folder) is None:
        return []
    stores = (at for at in _folders(folder) if is_store(partial(_read, None, at)))
    return list(islice(stores, MOST_TOLD))


def is_store(read: Read) -> bool:
    """Return whether there is a store where `read` reads; a damaged one is one, too."""
    return _job(read) is not None


def _job(read: Read) -> bytes | None:
    """Return the run/job.json where `read` reads, else its copy, empty if a store has lost both; None if there is no store."""
    data = read(keys.JOB)
    data = read(keys.JOB_COPY) if data is None else data
    # A store that is being created has neither of them yet.
    if data is None and b'"ctd_format"' in (read(METADATA[0]) or b""):
        return b"" if read(keys.CREATING) is None else None
    return data


def _bucket(address: str) -> ObjectStore | None:
    """Return the bucket of an address; None for a path. One client for all stores there: making one takes as long as a request."""
    if addresses.scheme(address) not in addresses.BUCKETS:
        return None
    return connect.remote("/".join(address.split("/")[:3]), connect.IMPATIENT)


def _read(bucket: ObjectStore | None, address: str, key: str) -> bytes | None:
    """Return an object of the store at an address; None if there is none, b"" if this user may not read a folder NAME.zarr."""
    if bucket is not None:
        prefix = address.split("/", 3)[3]
        read = lambda place: objects.read(place, f"{prefix}/{key}")
        return connect.first_request(address, read, bucket)
    path = addresses.local_path(address)
    if path is None or is_zip(path):
        return read_member(path, key) if path else None
    if objects.is_irregular_file(path / key):
        return None
    try:
        return (path / key).read_bytes()
    except OSError as error:
        return b"" if isinstance(error, PermissionError) and path.suffix == ".zarr" else None


def _is_pattern(address: str) -> bool:
    return re.search(r"[*?[]", address) is not None and not Path(address).exists()


def _is_folder(address: str) -> bool:
    """Return whether an address is that of a folder that cannot be a store: it has no metadata of Zarr."""
    path = addresses.local_path(address)
    return path is not None and path.is_dir() and not (path / "zarr.json").exists()


def _matching(address: str, tell_link: Notify = lambda at: None) -> list[str]:
    """Return the addresses that match a pattern, sorted; for no pattern the address itself, without slashes at its end.

    tell_link: called with each link that matches, and is left out.
    """
    address = addresses.refuse_empty(address).rstrip("/") or "/"
    if addresses.scheme(address) in addresses.BUCKETS and address.count("/") == 2:
        return _folders(address)
    at = re.search(r"[^/]*[*?[][^/]*", address)
    if at is None or not _is_pattern(address):
        return [addresses.plain(address)]
    head = address[: at.start()].rstrip("/") or ("/" if at.start() else ".")
    fits = lambda entry: fnmatchcase(entry.rpartition("/")[2], at[0])
    near = filter(fits, _folders(head, lambda entry: fits(entry) and tell_link(entry)))
    matching = []
    for folder in near:
        for match in _matching(folder + address[at.end() :], tell_link):
            if _leads_away(folder, match):
                tell_link(match)
            else:
                matching.append(match)
    return matching


def _leads_away(folder: str, address: str) -> bool:
    """Return whether a link lies between a folder and an address below it."""
    top, path = addresses.local_path(folder), addresses.local_path(address)
    if top is None or path is None:
        return False
    return any(place.is_symlink() for place in (path, *path.parents) if top in place.parents)


def _folders(address: str, tell_link: Notify = lambda at: None) -> list[str]:
    """Return the addresses of the folders and archives in a folder, sorted; without hidden ones, and without links, which are told."""
    head, links = "" if address == "." else f"{address.rstrip('/')}/", set[str]()
    if addresses.scheme(address) in addresses.BUCKETS:
        listing = connect.first_request(address, obstore.list_with_delimiter)
        names = [name.rstrip("/") for name in listing["common_prefixes"]]
    else:
        path = addresses.local_path(address)
        try:
            inner = [p for p in path.iterdir() if p.is_dir() or is_zip(p)] if path else []
        except OSError:  # of somebody else, or gone meanwhile
            return []
        names, links = [p.name for p in inner], {p.name for p in inner if p.is_symlink()}
    visible = [name for name in sorted(names) if not name.startswith(".")]
    for name in visible:
        if name in links:
            tell_link(head + name)
    return [head + name for name in visible if name not in links]
