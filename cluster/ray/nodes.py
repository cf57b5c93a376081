"""Nodes on which workers keep dying: set aside, so that new workers start elsewhere."""

DEATHS = 3
"""Deaths, each in the midst of another shard, that set a node aside. A single shard that kills its
workers wherever it runs says nothing of the nodes."""


class Nodes:
    """What died where."""

    def __init__(self) -> None:
        self._deaths: dict[str, set[int]] = {}
        self.aside: set[str] = set()

    def note_death(self, node: str, shard: int) -> bool:
        """A worker on `node` died in the midst of `shard`; whether the node should now be set aside."""
        shards = self._deaths.setdefault(node, set())
        shards.add(shard)
        return node not in self.aside and len(shards) >= DEATHS

    def selector(self) -> dict[str, str]:
        """Ray's label selector that leaves out the nodes set aside."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self.aside))})"} if self.aside else {}
