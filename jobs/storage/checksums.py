"""Small JSON objects that tell whether they are as they were written, and checksums of larger ones.

{"slots":4,"seal":"<sha256 of the bytes without this field>"}
"""

import hashlib
import json
from collections.abc import Buffer, Iterable, Mapping
from typing import Any

from obstore.store import ObjectStore

from jobs import keys
from jobs.storage import objects

_SEAL = ',"seal":"'


def seal(content: Mapping[str, Any]) -> bytes:
    """A mapping with at least one field as JSON, closed by a checksum of itself."""
    body = json.dumps(content, separators=(",", ":"))
    return f'{body[:-1]}{_SEAL}{digest(body.encode())}"}}'.encode()


def unseal(data: bytes | None) -> dict[str, Any] | None:
    """The mapping that `seal` wrote; None where nothing is there or a bit of it has changed."""
    try:
        body, found, rest = (data or b"").decode().rpartition(_SEAL)
    except UnicodeDecodeError:
        return None
    body += "}"
    if not found or rest != f'{digest(body.encode())}"}}':
        return None
    return dict(json.loads(body))


def write_sums(store: ObjectStore, name: str, sealed: Iterable[str], **about: Any) -> None:
    """Keep the checksums of these objects, as they are now, in run/sums/NAME.json.

    about: what else is to be known of them.
    """
    sums = {key: digest(data or b"") for key, data in objects.read_all(store, sorted(sealed))}
    objects.write(store, keys.sums(name), seal({**about, "sha256": sums}))


def read_sums(store: ObjectStore, name: str) -> dict[str, str] | None:
    """Key -> checksum, as `write_sums` kept them; None where that is missing or damaged."""
    content = unseal(objects.read(store, keys.sums(name)))
    return None if content is None else dict(content["sha256"])


def is_intact(store: ObjectStore, key: str, sha256: str) -> bool:
    """Whether the object at `key` has this checksum."""
    data = objects.read(store, key)
    return data is not None and digest(data) == sha256


def digest(data: Buffer) -> str:
    """sha256, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
