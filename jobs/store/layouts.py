"""Notes of how a group's items lie on the devices, where the plan leaves it open or memory allows less."""

from collections.abc import Mapping

from jobs.storage.checksums import Sealed


class FewerSlots(Sealed):
    """The slots of a group where memory allows fewer than planned: run/slots/G.json."""

    slots: int
    planned: int


class Microbatch(Sealed):
    """The microbatch of a group on one kind of device: run/layout/G-KIND.json."""

    microbatch: int
    seconds_per_item: Mapping[int, float] = {}
    """Microbatch -> measured seconds of one advance of one item; empty where a repair has taken the microbatch from markers."""
