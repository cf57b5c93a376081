"""A store as one zip file that describes its content, for the supplement of a paper.

The store's objects lie at the archive's root: Zarr's own ZipStore reads it, and unpacking gives the store again. Leases,
checkpoints and submissions, which concern runs only, are left out. The file ro-crate-metadata.json describes the content by
RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): the job, digests of the code, versions, license, authors and dates.
"""

from __future__ import annotations

import json
import os
import re
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from ctd.replacing import replacing
from jobs import keys
from jobs.errors import JobError, advised, writing
from jobs.gather.check import check
from jobs.gather.gather import gather_to_look
from jobs.storage import objects
from jobs.storage.addresses import SUFFIX
from jobs.storage.lease import describe, drivers
from jobs.store.card import Card, write_card
from jobs.store.look import Look
from jobs.store.store import Store, links_of, title_of

CRATE = "ro-crate-metadata.json"

_OF_RUNS = keys.LEASE, keys.CANCEL, keys.PARTS, keys.GATHERING, keys.SUBMIT
LEFT_OUT = tuple(f"{folder}/" for folder in (*_OF_RUNS, keys.CHECKPOINTS, keys.ROUNDS, keys.LIVE))
"""Prefixes of the keys that an archive leaves out."""

ORCID = re.compile(r"(?:\d{4}-){3}\d{3}[\dX]")
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
    card = write_card(Look(store))
    stored_keys = sorted(
        k for k in objects.list_keys(store.objects, "") if not k.startswith(LEFT_OUT)
    )
    with writing(path), replacing(path, typed=True) as new, zipfile.ZipFile(new, "w") as archive:
        described = describe_store(store, card, about)
        _add(archive, CRATE, json.dumps(described, indent=1).encode())
        # Readers of RO-Crate expect an entry of the archive for each folder.
        for entity in described["@graph"]:
            if entity["@id"].endswith("/") and entity["@id"] != "./":
                _add(archive, entity["@id"], b"")
        for key, data in objects.read_all(store.objects, stored_keys):
            if data is not None and key != CRATE:
                _add(archive, key, data)
    return len(stored_keys)


def _refuse(store: Store, path: Path, about: About) -> None:
    if path.suffix != SUFFIX:
        raise JobError(f"{path}: a name that ends in {SUFFIX} expected")
    if running := drivers(store.objects, store.address):
        raise JobError(
            f"{store.address}: is being run by {describe(running[0])}; archive it when the run has ended"
        )
    for link in links_of(store, everything=True):  # what it leads to would be published
        raise JobError(
            f"{store.address}: {link} is a link to {os.path.realpath(link)}, which is no part of the store; delete it"
        )
    if about.date:
        try:
            time.strptime(about.date, "%Y-%m-%d")
        except ValueError:
            raise JobError(f"--date {about.date}: a date such as 2026-11-28 expected") from None
    if about.license:
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
    license_ = [
        _entity(_license(name), "CreativeWork", name=name) for name in [about.license] if name
    ]
    files = [_entity(key, "File", name=text) for key, text in FILES.items()]
    folders = [
        _entity(f"{name}/", "Dataset", name=text) for name, text in FOLDERS.items() if name in store.root
    ]  # fmt: skip
    programs = [
        _entity(f"#{name}", "SoftwareApplication", name=name, softwareVersion=version)
        for name, version in card.versions.items()
    ]
    code = [
        _entity(f"#source-{name}", "SoftwareSourceCode", name=name, identifier=f"sha256:{sha256}")
        for name, sha256 in store.job.sources.items()
    ]
    root = _entity(
        "./",
        "Dataset",
        name=title_of(store),
        description=card.note or f"Results of ctd, kernel {card.kernel}",
        datePublished=about.date or time.strftime("%Y-%m-%d"),
        license=_refer(license_) or "No license is given: ask the authors before you use the data.",
        hasPart=_refer([*files, *folders]),
        mentions=_refer([*programs, *code]),
        author=_refer(people),
        keywords=", ".join(card.tags),
    )
    version = {"@id": "https://w3id.org/ro/crate/1.1"}
    head = _entity(CRATE, "CreativeWork", conformsTo=version, about={"@id": "./"})
    graph = [head, root, *license_, *people, *files, *folders, *programs, *code]
    return {"@context": f"{version['@id']}/context", "@graph": graph}


def _entity(entity_id: str, kind: str, **fields: Any) -> dict[str, Any]:
    """An entity with the fields that have a value."""
    return {"@id": entity_id, "@type": kind, **{name: v for name, v in fields.items() if v}}


def _refer(entities: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"@id": entity["@id"]} for entity in entities]


def _person(text: str, k: int) -> dict[str, Any]:
    name, _, orcid = text.strip().rpartition(" ")
    if not ORCID.fullmatch(orcid):
        return _entity(f"#author-{k + 1}", "Person", name=text.strip())
    return _entity(f"https://orcid.org/{orcid}", "Person", name=name)


def _license(text: str) -> str:
    """The address of a license. Raises JobError for an identifier that SPDX lacks."""
    if "://" in text:
        return text
    try:
        name = str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        name = ""
    # An expression of several, or a license of one's own, has no page.
    if not re.fullmatch(r"(?!LicenseRef)[\w.-]+", name):
        raise JobError(
            f"--license {text}: is neither one identifier of spdx.org/licenses, such as CC-BY-4.0, nor a link"
        )
    return f"https://spdx.org/licenses/{name}"
