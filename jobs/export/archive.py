"""A store as one zip file that describes its content, for the supplement of a paper.

The store's objects lie at the archive's root: Zarr's own ZipStore reads it, and unpacking gives the store again. Leases,
checkpoints and submissions, which concern runs only, are left out. The file ro-crate-metadata.json describes the content by
RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): the job, digests of the code, versions, license, authors and dates.
"""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from ctd.replacing import replacing
from jobs import keys
from jobs.errors import JobError, advised, count, writing
from jobs.gather.check import check
from jobs.gather.gather import gather_to_look
from jobs.storage import objects
from jobs.storage.addresses import SUFFIX
from jobs.storage.checksums import digest
from jobs.storage.lease import describe, drivers
from jobs.store.card import Card, current_card
from jobs.store.store import Store, title_of

CRATE = "ro-crate-metadata.json"

_OF_RUNS = keys.LEASE, keys.CANCEL, keys.PARTS, keys.GATHERING, keys.SUBMIT
LEFT_OUT = tuple(f"{folder}/" for folder in (*_OF_RUNS, keys.CHECKPOINTS, keys.ROUNDS, keys.LIVE))
"""Prefixes of the keys that an archive leaves out."""

ORCID = re.compile(r"\s*<?(?:https://orcid\.org/)?((?:\d{4}-){3}\d{3}[\dX])>?\s*$")
"""The identifier at the end of an author's name."""

FOLDERS = {
    "results": "the results of every item, as Zarr arrays",
    "gathered": "what the kernel's reduction made of each group",
    "items": "one row for each item: what was swept, status, single numbers",
    "shards": "where and when each part of the results was computed",
    "reduced": "further reductions over all items",
}
FILES = {
    keys.JOB: "the job: parameters, sweep, seed, versions, digests of the source code",
    keys.KERNEL: "the kernel's results: axes, units, meaning",
    "zarr.json": "the metadata of all arrays (Zarr, version 3)",
}


@dataclass(frozen=True)
class About:
    """Fields of the description that the store does not hold."""

    license: str = ""
    """An SPDX identifier such as CC-BY-4.0, or the address of a text."""
    authors: Sequence[str] = ()
    """Names, each with an ORCID after it or without."""
    date: str = ""
    """When it is published, as 2026-11-28; by default today."""


def write_archive(store: Store, path: Path, about: About = About()) -> int:
    """Write a store as an archive and return the number of its objects; a file at `path` is replaced as a whole.

    Raises:
        JobError: a run of the store goes on, the store is damaged, the file cannot be written, or `about` is not valid.
    """
    _refuse(store, path, about)
    with objects.may_fail():
        gather_to_look(store)
    if wrong := [finding for finding in check(store.address) if finding.cure]:
        raise JobError(
            f"{store.address}: {wrong[0].key} is {wrong[0].what}; {advised('ctd', 'check', store.address, '--repair')}, then archive it"
        )
    card = current_card(store)
    named = sorted(k for k in objects.list_keys(store.objects, "") if not k.startswith(LEFT_OUT))
    with writing(path), replacing(path) as new, zipfile.ZipFile(new, "w") as archive:
        described = describe_store(store, card, about)
        _add(archive, CRATE, json.dumps(described, indent=1).encode())
        # Readers of RO-Crate expect an entry of the archive for each folder.
        for entity in described["@graph"]:
            if entity["@id"].endswith("/") and entity["@id"] != "./":
                _add(archive, entity["@id"], b"")
        for key, data in objects.read_all(store.objects, named):
            if data is not None and key != CRATE:
                _add(archive, key, data)
    return len(named)


def _refuse(store: Store, path: Path, about: About) -> None:
    if path.suffix != SUFFIX:
        raise JobError(f"{path}: a name that ends in {SUFFIX} expected")
    if running := drivers(store.objects, store.address):
        raise JobError(
            f"{store.address}: is being run by {describe(running[0])}; archive it when the run has ended"
        )
    if about.date:
        try:
            time.strptime(about.date, "%Y-%m-%d")
        except ValueError:
            raise JobError(f"--date {about.date}: a date such as 2026-11-28 expected") from None
    for author in about.authors:
        if (found := ORCID.search(author)) and not _is_orcid(found[1]):
            raise JobError(f"--author {author!r}: {found[1]} is no ORCID, its check digit is wrong")
    _license(about.license)


def _add(archive: zipfile.ZipFile, key: str, data: bytes) -> None:
    # Arrays are compressed already. Without times, so that the same store gives the same bytes.
    member = zipfile.ZipInfo(key)
    is_text = key.endswith((".json", ".jsonl"))
    member.compress_type = zipfile.ZIP_DEFLATED if is_text else zipfile.ZIP_STORED
    member.external_attr = (0o755 if member.is_dir() else 0o644) << 16
    archive.writestr(member, data)


# --- the description ------------------------------------------------------------------------------


def describe_store(store: Store, card: Card, about: About) -> dict[str, Any]:
    """Describe a store by RO-Crate 1.1: the content of ro-crate-metadata.json."""
    people = [_person(name, k) for k, name in enumerate(about.authors)]
    programs = [
        _entity(f"#{name}", "SoftwareApplication", name=name, softwareVersion=version)
        for name, version in card.versions.items()
    ]
    code, files = list(_code(store)), list(_files(store))
    license_, licensed = _license(about.license)
    done = f"{card.done + card.dropped:,} of {count(card.items, 'item')}"
    root = _entity(
        "./",
        "Dataset",
        name=title_of(store),
        description=card.note or f"Results of ctd, kernel {card.kernel}: {done} computed",
        datePublished=about.date or time.strftime("%Y-%m-%d"),
        license=license_,
        hasPart=_refer(files),
        mentions={"@id": "#run"},
        author=_refer(people),
        keywords=", ".join(card.tags),
    )
    command = " ".join(map(str, dict(store.job.provenance).get("command", ())))
    run = _entity(
        "#run",
        "CreateAction",
        name=f"ctd computed {done}",
        description=command or "ctd run",
        object={"@id": keys.JOB},
        result={"@id": "./"},
        instrument=_refer([*programs, *code]),
        startTime=card.created,
        endTime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(card.ended)) if card.ended else "",
        agent=_refer(people),
    )
    version = {"@id": "https://w3id.org/ro/crate/1.1"}
    descriptor = _entity(CRATE, "CreativeWork", conformsTo=version, about={"@id": "./"})
    return {
        "@context": "https://w3id.org/ro/crate/1.1/context",
        "@graph": [descriptor, root, *licensed, *people, *files, run, *programs, *code],
    }


def _entity(where: str, kind: str, **fields: Any) -> dict[str, Any]:
    """An entity with the fields that have a value."""
    given = {name: value for name, value in fields.items() if value}
    return {"@id": where, "@type": kind, **given}


def _refer(entities: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"@id": entity["@id"]} for entity in entities]


def _is_orcid(text: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO 7064, mod 11-2).

    >>> _is_orcid("0000-0002-1825-0097"), _is_orcid("0000-0002-1825-0098")
    (True, False)
    """
    digits, total = text.replace("-", ""), 0
    for digit in digits[:-1]:
        total = 2 * (total + int(digit))
    return "0123456789X"[(12 - total) % 11] == digits[-1]


def _person(text: str, k: int) -> dict[str, Any]:
    found = ORCID.search(text)
    name = text[: found.start()].strip() if found else text.strip()
    where = f"https://orcid.org/{found[1]}" if found else f"#author-{k + 1}"
    return _entity(where, "Person", name=name or where)


def _license(text: str) -> tuple[Any, list[dict[str, Any]]]:
    """The license of the data as the root names it, and its entity. Raises JobError for an identifier that SPDX lacks."""
    if not text:
        return "No license is given: ask the authors before you use the data.", []
    where = text
    if "://" not in text:
        try:
            text = canonicalize_license_expression(text)
        except InvalidLicenseExpression:
            text = ""
        # An expression of several, or a license of one's own, has no page.
        if not re.fullmatch(r"(?!LicenseRef)[\w.-]+", text):
            raise JobError(
                f"--license {where}: is neither one identifier of spdx.org/licenses, such as CC-BY-4.0, nor a link"
            )
        where = f"https://spdx.org/licenses/{text}"
    return {"@id": where}, [_entity(where, "CreativeWork", name=text)]


def _files(store: Store) -> Iterator[dict[str, Any]]:
    for key, text in FILES.items():
        if (data := objects.read(store.objects, key)) is not None:
            about = {"contentSize": str(len(data)), "identifier": f"sha256:{digest(data)}"}
            yield _entity(key, "File", name=text, encodingFormat="application/json", **about)
    for folder, text in FOLDERS.items():
        if objects.read(store.objects, f"{folder}/zarr.json") is not None or folder == "results":
            yield _entity(f"{folder}/", "Dataset", name=text)


def _code(store: Store) -> Iterator[dict[str, Any]]:
    """The modules that the results come from, by the digests of their files."""
    commit = dict(store.job.provenance).get("git_commit")
    for module, sha256 in store.job.sources.items():
        yield _entity(
            f"#source-{module}",
            "SoftwareSourceCode",
            name=module,
            programmingLanguage="Python",
            identifier=f"sha256:{sha256}",
            version=str(commit) if commit and module.startswith("ctd") else "",
        )
