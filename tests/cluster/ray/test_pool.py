"""cluster.ray.pool: which nodes are set aside."""

from cluster.ray.pool import Nodes


def test_node_is_set_aside_after_deaths_in_three_shards():
    nodes = Nodes()
    assert [nodes.note_death("a", shard) for shard in (1, 2, 3)] == [False, False, True]
    assert nodes.selector() == {}
    nodes.aside |= {"b", "a"}
    assert nodes.selector() == {"ray.io/node-id": "!in(a,b)"}
    assert not nodes.note_death("a", 4)


def test_shard_that_kills_its_workers_does_not_set_a_node_aside():
    nodes = Nodes()
    assert not any(nodes.note_death("a", 7) for _ in range(10))
    assert not any(nodes.note_death(node, 8) for node in "abc")
