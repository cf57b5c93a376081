"""Addresses: a path on this machine, or SCHEME://BUCKET/KEY on an object store.

    results/points.zarr                 a path; file:///home/you/points.zarr is one too
    s3://BUCKET/KEY                     Amazon S3, and any server with its protocol
    gs://BUCKET/KEY                     Google Cloud Storage
    az://CONTAINER/KEY                  Azure Blob Storage
    https://HOST/KEY                    data files only
    STORE::ITEM                         the weights of an item of a store, data only

Addresses appear in stores, events and messages, so one that contains a secret is refused.
"""

import os
import re
import sys
from pathlib import Path, PurePath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from jobs.errors import JobError, advised, nearest

BUCKETS = ("s3", "gs", "az")
"""Schemes of object stores, which can hold results and data."""

LINKS = ("http", "https")
"""Schemes from which data can only be read."""

SUFFIX = ".zip"
"""The ending of an archive: a store in one file, which is only read."""


class ItemPart(NamedTuple):
    """The address of a part of an item, see `item_arrays`."""

    store: str
    item: int
    part: str = "weights"


def local_path(address: str) -> Path | None:
    """Return the path that an address means; None if it is remote. Raises JobError if it is malformed or holds credentials."""
    name = scheme(address)
    if not name:
        return Path(address)
    if name != "file":
        _check(address, name)
        return None
    parts = urlsplit(address)
    # file://HOST/PATH names the disk of another machine, which this one cannot open.
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise JobError(f"{address}: file:///ABSOLUTE/PATH expected, or the path alone")
    return Path(unquote(parts.path))


def refuse_empty[T: str | None](address: T) -> T:
    """Return an address. Raises JobError if it is empty, as that of a shell's variable that is not set."""
    if address == "":
        raise JobError("an address is empty; give a store, or set the variable that has it")
    return address


def refuse_undecoded(path: str) -> str:
    """Return a path. Raises JobError if it is no UTF-8: the client library panics at such bytes, and JAX compiles no code there."""
    try:
        path.encode()
    except UnicodeEncodeError:  # Python reads such bytes as lone surrogates
        raise JobError(f"{path!a}: {_why_undecoded(os.fsencode(path))}") from None
    return path


def _why_undecoded(path: bytes) -> str:
    """Say why Python cannot read the bytes of a path as text, and what to do."""
    try:
        path.decode()
    except UnicodeDecodeError:
        return "is no UTF-8; rename the folder"
    return f"is UTF-8, but this locale has Python read names as {sys.getfilesystemencoding()}; export PYTHONUTF8=1"


def plain(address: str) -> str:
    """Return the address in its one written form: paths without file://, no slash at the end."""
    path = local_path(address)
    return address.rstrip("/") if path is None else str(path)


def scheme(address: str) -> str:
    """Return the part before `:/`, in lower case; "" for a path. Raises JobError for s3: and the like without the slash."""
    # One slash is enough, because a Path turns s3://B/K into s3:/B/K: `_check` then says what is expected.
    name, colon, remainder = address.partition(":")
    if colon and name in BUCKETS and not remainder.startswith("/"):
        raise JobError(f"{address}: {name}://BUCKET/KEY expected")
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", address)
    return match[1].lower() if match else ""


def join(base: str, name: str) -> str:
    """Return `name` relative to the folder or address `base`; an address or an absolute path stays as it is."""
    if scheme(name):
        return plain(name)
    if not scheme(base):
        return str(Path(base) / name)
    return name if Path(name).is_absolute() else f"{plain(base)}/{name}"


def parse_item(text: str, base: str) -> ItemPart | None:
    """Parse `STORE::ITEM[::PART]`, or return None if `text` names a file. A relative STORE starts from `base`.

    >>> parse_item("train.zarr::7", "/lab")
    ItemPart(store='/lab/train.zarr', item=7, part='weights')
    >>> [parse_item(name, "/lab") for name in ("net.h5", "net.h5::²")]
    [None, None]
    """
    store, *parts = text.split("::")
    if len(parts) not in (1, 2) or not parts[0].isdecimal():
        return None
    return ItemPart(join(base, store), int(parts[0]), *parts[1:])


def absolute(address: str) -> str:
    """Return the absolute path of a local address; any other one stays as it is.

    >>> absolute("/data/runs/a.zarr"), absolute("s3://lab/runs/a.zarr")
    ('/data/runs/a.zarr', 's3://lab/runs/a.zarr')
    """
    # Not by the working directory where the path is absolute: that of a Ray job may be gone.
    path = local_path(address)
    return address if path is None else str(path.absolute())


def path_beside(address: str) -> Path:
    """Return where to put what is made from a store, such as its pictures, without an ending: beside it, or here if it is remote.

    >>> str(path_beside("runs/v0.01.zarr")), str(path_beside("runs/v0.01")), str(path_beside("s3://lab/runs/a.zarr"))
    ('runs/v0.01', 'runs/v0.01', 'a')
    """
    path = local_path(address) or Path(PurePath(address).name)
    if path.name in ("", ".."):  # of `.`: the name is the folder's
        path = path.resolve()
    return without_ending(path)


def without_ending[P: PurePath](path: P) -> P:
    """Return the path without the ending of a store; any other ending is part of its name."""
    return path.with_suffix("") if path.suffix in (".zarr", SUFFIX) else path


def is_zip(path: Path | None) -> bool:
    """Return whether there is an archive at a path."""
    return path is not None and path.suffix == SUFFIX and path.is_file()


def refuse_zip(path: Path | None) -> None:
    """Raise JobError if there is an archive at a path: nothing writes to one."""
    if path is not None and is_zip(path):
        raise JobError(f"{path}: an archive is only read; unpack it to go on: {to_unpack(path)}")


def to_unpack(path: Path) -> str:
    """Return the command that unpacks an archive."""
    return advised("unzip", path, "-d", path.with_suffix(".zarr"))


def _check(address: str, name: str) -> None:
    """Raise JobError unless a remote address is well-formed and free of credentials."""
    schemes, parts = (*BUCKETS, *LINKS, "file"), urlsplit(address)
    # Without what may be secret: user:password@ before the host, and the query, where a signed link has its signature.
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if name not in schemes:
        raise JobError(f"{bare}: unknown scheme {name}://{nearest(name, schemes)}")
    if "@" in parts.netloc or parts.query:
        raise JobError(
            f"{bare}: holds credentials, or a signed link, which the store would show to everybody; "
            "give them by the environment (docs/object-stores.md)"
        )
    place = "HOST" if name in LINKS else "CONTAINER" if name == "az" else "BUCKET"
    if not address[len(name) :].startswith("://") or not parts.netloc or not parts.path.strip("/"):
        raise JobError(f"{address}: {name}://{place}/KEY expected, such as {name}://lab/run.zarr")
