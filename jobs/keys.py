"""The keys of a store below run/: where what the runner needs to go on lies. docs/store-format.md says what it is.

A folder is a prefix of keys; a function gives one key. `number_of` reads the number that ends a key.
"""

JOB, JOB_COPY = "run/job.json", "run/job.copy.json"
"""All else can be made again from it; therefore there are two of it."""
CREATING = "run/creating.json"
"""There while a store is made."""

DONE, FAILED, SLOTS, LAYOUT = "run/done", "run/failed", "run/slots", "run/layout"
CHECKPOINTS, MEETINGS, EVENTS = "run/checkpoints", "run/meetings", "run/events"
LEASE, CANCEL, PARTS, GATHERING = "run/lease", "run/cancel", "run/parts", "run/gathering"
SUBMIT, SUMS = "run/submit", "run/sums"


def marker(group: int, shard: int) -> str:
    """The commit marker of a shard."""
    return f"{DONE}/{group}/{shard:06d}.json"


def failed(group: int, shard: int) -> str:
    """The items of a shard that fail by themselves."""
    return f"{FAILED}/{group}/{shard:06d}.json"


def slots(group: int) -> str:
    """The slots of a group, where they are fewer than planned."""
    return f"{SLOTS}/{group}.json"


def layout(group: int, device_kind: str) -> str:
    """The microbatch that was chosen for a group on a kind of device."""
    return f"{LAYOUT}/{group}-{device_kind.replace(' ', '_')}.json"


def checkpoints(group: int, shard: int) -> str:
    """The folder of the checkpoints of a shard."""
    return f"{CHECKPOINTS}/{group}/{shard:06d}"


def lease(generation: int) -> str:
    """One generation of the lease."""
    return f"{LEASE}/{generation:08d}.json"


def cancel(generation: int) -> str:
    """The request to the holder of a generation to stop."""
    return f"{CANCEL}/{generation:08d}.json"


def submission(name: str) -> str:
    """The record of a submission."""
    return f"{SUBMIT}/{name}/record.json"


def sums(name: str) -> str:
    """The checksums called `name`."""
    return f"{SUMS}/{name}.json"


def sums_name(key: str) -> str:
    """The inverse of `sums`."""
    return key.removeprefix(f"{SUMS}/").removesuffix(".json")


def number_of(key: str) -> int:
    """The number that a key ends with, as of run/done/0/000007.json."""
    return int(key.rpartition("/")[2].removesuffix(".json"))
