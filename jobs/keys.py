"""The keys of a store below run/, and which objects there are ours. docs/store-format.md describes the objects.

A constant is a key or a folder (the prefix of keys). A function returns the key of what its name says.
"""

import re

JOB, JOB_COPY = "run/job.json", "run/job.copy.json"
"""The job and its copy: everything else can be made again from either of them."""
KERNEL = "run/kernel.json"
"""The kernel's description, for readers that do not import it."""
CREATING = "run/creating.json"
"""Exists while a store is being created."""

DONE, SEGMENTS = "run/done", "run/segments"
FAILED, FAILED_SEGMENTS = "run/failed", "run/failed-segments"
SLOTS, LAYOUT = "run/slots", "run/layout"
CHECKPOINTS, EVENTS = "run/checkpoints", "run/events"
ROUNDS, DECISIONS = "run/rounds", "run/decisions"
LEASE, CANCEL, PARTS, GATHERING = "run/lease", "run/cancel", "run/parts", "run/gathering"
SUBMIT, SUMS, PICTURES = "run/submit", "run/sums", "run/pictures"
LIVE = "run/live"
CARD, NOTE = "run/card.json", "run/note.json"
"""A finished store's entry in a list of stores; the user's note on it."""


def place(folder: str, group: int, number: int) -> str:
    """Return where the objects of a shard, or of a round, lie in a folder: a key, or what their keys begin with."""
    return f"{folder}/{group}/{number:06d}"


def record(folder: str, group: int, shard: int, sha256: str) -> str:
    """A shard's marker, or failing items: two records of a shard, which differ in their checksum, have different keys."""
    return f"{place(folder, group, shard)}-{sha256[:8]}.json"


def slots(group: int) -> str:
    """Written when memory allows a group fewer slots than planned."""
    return f"{SLOTS}/{group}.json"


def layout(group: int, device_kind: str) -> str:
    """The microbatch chosen for a group on one kind of device."""
    return f"{LAYOUT}/{group}-{re.sub('[ /]', '_', device_kind)}.json"


def pictures(group: int) -> str:
    return f"{PICTURES}/{group}.json"


def live(group: int, shard: int) -> str:
    """The curves of a shard that is being computed."""
    return f"{place(LIVE, group, shard)}.json"


def decision(group: int, number: int) -> str:
    """The decision of a group's search from which the round with this number follows."""
    return f"{place(DECISIONS, group, number)}.json"


def lease(generation: int) -> str:
    return f"{LEASE}/{generation:08d}.json"


def cancel(generation: int) -> str:
    """A request to stop, addressed to the holder of one generation of the lease."""
    return f"{CANCEL}/{generation:08d}.json"


def submission(name: str) -> str:
    return f"{SUBMIT}/{name}/record.json"


def sums(name: str) -> str:
    """The checksums called `name`."""
    return f"{SUMS}/{name}.json"


OURS = re.compile(
    r"run/(?:(?:done|failed)/\d+/\d{6,}(?:-[0-9a-f]{8})?\.json"
    r"|(?:failed-)?segments/(?:\d{8}|[1-9]\d{8,})\.jsonl"
    r"|live/\d+/\d{6,}\.json"
    r"|(?:lease|cancel)/(?:\d{8}|[1-9]\d{8,})\.json"
    r"|(?:slots|pictures)/\d+\.json"
    r"|layout/\d+-[^/]+\.json"
    r"|checkpoints/\d+/\d{6,}/\d+"
    r"|rounds/\d+/\d{6,}"
    r"|decisions/\d+/\d{6,}\.json"
    r"|events/[^/]+-\d{5,}\.jsonl"
    r"|(?:parts/\d+|gathering|submit|sums|code)/.+"
    r"|[a-z.]+\.json)"
)
"""The keys below run/ that this program writes."""


def is_ours(key: str) -> bool:
    """Return whether this program writes objects at `key`; NFS writes .nfs0001, and macOS ._000001.json."""
    hidden = key.rpartition("/")[2].startswith(".")
    return not hidden and (not key.startswith("run/") or OURS.fullmatch(key) is not None)


def number_of(key: str) -> int:
    """Return the number in the last part of a key: 7 for run/done/0/000007-0a1b2c3d.json."""
    return int(re.split("[-.]", key.rpartition("/")[2])[0])
