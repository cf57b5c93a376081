"""Mappings whose values are read when they are asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping


class Lazy[T](Mapping[str, T]):
    """name -> `read(name)`, for these names; `read` decides what becomes of another name."""

    def __init__(self, names: Iterable[str], read: Callable[[str], T]) -> None:
        self._names, self._read = tuple(names), read

    def __getitem__(self, name: str) -> T:
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
