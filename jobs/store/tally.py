"""The numbers of a store: its items and shards, and how they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from jobs.errors import count
from jobs.store.marker import Marker


@dataclass(frozen=True)
class Tally:
    """The numbers of items and shards of a store, by how they ended. Tallies of several stores add up."""

    items: int = 0
    done: int = 0
    dropped: int = 0
    """Items that a search took out."""
    failed: int = 0
    """Items that failed, by an error or by an outcome that is a failure."""
    shards: int = 0
    shards_done: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """The kernel's word for how items ended -> number of items."""
    not_finite: Counter[str] = field(default_factory=Counter)
    """Result -> number of done items whose values are all NaN or infinite."""

    @staticmethod
    def from_markers(
        markers: Iterable[Marker], is_searched: bool = False, items: int = 0, shards: int = 0
    ) -> Tally:
        """Count what markers say. is_searched: whether the job has a search. items, shards: those of the plan."""
        outcomes, not_finite = Counter[str](), Counter[str]()
        ended = failed = n_markers = 0
        for marker in markers:
            n_markers += 1
            ended += marker.n_items
            failed += marker.n_failed
            outcomes.update(marker.outcomes)
            not_finite.update(marker.nan or {})
        # Without a search the outcome of this name is the kernel's own.
        dropped = outcomes["dropped"] if is_searched else 0
        done = ended - failed - dropped
        return Tally(items, done, dropped, failed, shards, n_markers, outcomes, not_finite)

    def __add__(self, other: Tally) -> Tally:
        values = (getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        return Tally(*values)

    @property
    def ended(self) -> int:
        """The number of items of committed shards."""
        return self.done + self.dropped + self.failed

    @property
    def left(self) -> int:
        """The number of items that are not computed."""
        return self.items - self.ended

    @property
    def is_complete(self) -> bool:
        """True if all shards are committed."""
        return self.shards_done == self.shards

    @property
    def state(self) -> str:
        """The state of the store in a word, and the number of failed items.

        >>> Tally(items=12, done=6, failed=6).state, Tally(items=12, done=4).state
        ('complete, 6 of 12 failed', 'incomplete')
        """
        word = "incomplete" if self.left else "complete"
        return f"{word}, {self.failed:,} of {self.items:,} failed" if self.failed else word

    @property
    def text(self) -> str:
        """The numbers of items that are done, dropped, failed and left, as text.

        >>> Tally(items=20, done=7, dropped=12, failed=1).text
        'done 7, dropped 12, failed 1'
        """
        numbers = {"done": self.done, "dropped": self.dropped, "failed": self.failed}
        parts = [f"{word} {n:,}" for word, n in numbers.items() if n or word == "done"]
        if self.left:
            parts.append(f"{self.left:,} of {count(self.items, 'item')} left")
        return ", ".join(parts)
