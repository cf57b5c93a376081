"""JSON with its own checksum inside, and stored checksums of other objects.

{"slots":4,"seal":"<sha256 of the bytes without this field>"}
"""

import hashlib
import json
from collections.abc import Buffer, Iterable, Mapping
from typing import Annotated, Any, Self, TypeVar

from obstore.store import ObjectStore
from pydantic import BaseModel, PlainSerializer

from jobs import keys
from jobs.storage import objects

_SEAL = ',"seal":"'

T = TypeVar("T")

ByName = Annotated[T, PlainSerializer(lambda values: values._asdict())]
"""A named tuple that stands in JSON as a mapping with its names."""


class Sealed(BaseModel, frozen=True, serialize_by_alias=True):
    """The content of an object of JSON that carries its own checksum. Later versions of ctd may have added fields."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of the object, without its checksum."""
        return self.model_dump()

    def to_bytes(self) -> bytes:
        """Return the object."""
        return checksummed(self.to_json())

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Return the content that `to_json` gave. Raises ValueError for anything else."""
        return cls.model_validate(content)

    @classmethod
    def from_bytes(cls, data: bytes | None) -> Self | None:
        """Return the content of an object; None if `data` is None or damaged, or has other content."""
        # A checksum does not say who wrote the object.
        try:
            return cls.from_json(verified(data))
        except (ValueError, TypeError, OverflowError):
            return None

    def write(self, store: ObjectStore, key: str) -> None:
        """Write the object."""
        objects.write(store, key, self.to_bytes())

    @classmethod
    def read(cls, store: ObjectStore, key: str) -> Self | None:
        """Return the content of the object at `key`; None if it is missing or damaged, or has other content."""
        return cls.from_bytes(objects.read(store, key))

    def agree(self, store: ObjectStore, key: str) -> Self:
        """Return the content of the object at `key`; the first caller writes its own there, and all others get the same."""
        # Of several who create it at the same time one succeeds; all, that one too, take what is there.
        objects.create(store, key, self.to_bytes())
        agreed = self.read(store, key)
        if agreed is None:  # the object exists, but is damaged: nobody can have used it
            self.write(store, key)
        return agreed or self


def checksummed(content: Mapping[str, object]) -> bytes:
    """Return a mapping (at least one field) as JSON whose last field, `seal`, is a checksum of the rest."""
    body = json.dumps(content, separators=(",", ":"))
    return f'{body[:-1]}{_SEAL}{digest(body.encode())}"}}'.encode()


def verified(data: bytes | None) -> dict[str, Any] | None:
    """Return the mapping that `checksummed` wrote; None if `data` is None or damaged."""
    try:
        # From the right: `seal` is the last field, and the content may contain the same text.
        body, seal, checksum = (data or b"").decode().rpartition(_SEAL)
    except UnicodeDecodeError:
        return None
    body += "}"
    if not seal or checksum != f'{digest(body.encode())}"}}':
        return None
    return parsed(body)


def parsed(text: str | bytes | None) -> dict[str, Any] | None:
    """Return the mapping in a JSON text; None if the text is no JSON mapping."""
    try:
        # A stranger may have nested brackets a million deep.
        content = json.loads(text or b"null")
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_verified(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """Return the mapping with a checksum at `key`; None if it is missing or damaged."""
    return verified(objects.read(store, key))


class Sums(Sealed, extra="allow"):
    """The checksums of some objects, run/sums/NAME.json. Further fields say what the objects were made from: `about`."""

    sha256: dict[str, str]
    """Key -> checksum."""

    @property
    def about(self) -> dict[str, Any]:
        """The further fields."""
        return self.model_extra or {}

    def to_json(self) -> dict[str, Any]:
        """Return the content of the object, the checksums last."""
        return {**self.about, "sha256": self.sha256}


def write_sums(store: ObjectStore, name: str, listed: Iterable[str], **about: object) -> None:
    """Write the checksums of the objects at the listed keys, as they are now, and further fields, to run/sums/NAME.json."""
    sums = {key: digest(data or b"") for key, data in objects.read_all(store, sorted(listed))}
    Sums(sha256=sums, **about).write(store, keys.sums(name))


def is_intact(store: ObjectStore, key: str, sha256: str) -> bool:
    """Return whether there is an object at `key` with this checksum."""
    data = objects.read(store, key)
    return data is not None and digest(data) == sha256


def digest(data: Buffer) -> str:
    """Return the sha256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(content: object) -> str:
    """Return the `digest` of numbers, texts, lists and mappings, whose keys may be in any order."""
    return digest(json.dumps(content, sort_keys=True).encode())
