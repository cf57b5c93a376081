"""Find the rows of a shard that fail by themselves, by trying halves of it."""

from collections.abc import Sequence


class Bisection:
    """Binary search for the rows of a shard that fail by themselves; each is seen to fail alone.

    A range that fails is cut in two. If the first half passes, the second is taken to fail and is cut without a
    probe, so one failing row among n takes about log2(n) probes. A single row must fail `confirm` times in a
    row: workers also die for other reasons, or only after they have reported.

    rows: the rows in question, rising; a probe's range may hold others between them.
    """

    def __init__(self, rows: Sequence[int], confirm: int) -> None:
        self._rows, self._confirm, self._misses = rows, confirm, 0
        self._waiting: list[tuple[int, int]] = []
        self._part: tuple[int, int] | None = None
        self._is_first_half = False
        self.found: list[int] = []
        self._halve(0, len(rows))

    @property
    def probe(self) -> tuple[int, int] | None:
        """(first row, row after the last) of the next probe; None once the search is over."""
        if self._part is None:
            return None
        return self._rows[self._part[0]], self._rows[self._part[1] - 1] + 1

    def passed(self) -> None:
        """Note that the probe was computed."""
        self._misses = 0
        if self._is_first_half and self._waiting[-1][1] - self._waiting[-1][0] > 1:
            self._halve(*self._waiting.pop())
        else:
            self._go_on()

    def failed(self) -> bool:
        """Note that the probe failed; return whether that added a row to `found`."""
        assert self._part is not None
        start, stop = self._part
        if stop - start > 1:
            self._halve(start, stop)
            return False
        self._misses += 1
        if self._misses < self._confirm:
            return False
        self.found.append(self._rows[start])
        self._misses = 0
        self._go_on()
        return True

    def _halve(self, start: int, stop: int) -> None:
        middle = (start + stop) // 2
        self._waiting.append((middle, stop))
        self._part, self._is_first_half = (start, middle), True

    def _go_on(self) -> None:
        self._part = self._waiting.pop() if self._waiting else None
        self._is_first_half = False
