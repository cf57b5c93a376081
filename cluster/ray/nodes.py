"""Find nodes on which workers keep dying, and set them aside, so that new workers start elsewhere."""

DEATHS = 3
"""A node is set aside once workers died on it during this many different shards. One shard that kills its
workers wherever it runs is no evidence against a node."""


class Nodes:
    """Counts deaths by node; `aside` holds the ids of the nodes set aside."""

    def __init__(self) -> None:
        self._deaths: dict[str, set[int]] = {}
        self.aside: set[str] = set()

    def note_death(self, node: str, shard: int) -> bool:
        """Note that a worker on `node` died while it ran `shard`; return whether to set the node aside."""
        shards = self._deaths.setdefault(node, set())
        shards.add(shard)
        return node not in self.aside and len(shards) >= DEATHS

    def selector(self) -> dict[str, str]:
        """Ray's label selector that excludes the nodes set aside; empty if there are none."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self.aside))})"} if self.aside else {}
