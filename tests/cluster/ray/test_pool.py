"""cluster.ray.pool: which nodes are set aside; the memory of a GPU."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from cluster.ray import pool
from cluster.ray.pool import Nodes


@pytest.mark.parametrize(("answers", "found"), [(["dead", 5], 5), (["dead", "dead"], None)])
def test_memory_is_that_of_the_first_actor_that_can_start(monkeypatch, answers, found):
    def get(answer):
        if answer == "dead":
            raise RayActorError
        return answer

    monkeypatch.setattr(pool.ray, "wait", lambda waiting: (waiting[:1], waiting[1:]))
    monkeypatch.setattr(pool.ray, "get", get)
    actor = lambda answer: SimpleNamespace(device_memory=SimpleNamespace(remote=lambda: answer))
    slots = [SimpleNamespace(actor=actor(answer)) for answer in answers]
    two = SimpleNamespace(slots=slots, reach=SimpleNamespace(ask=lambda call: call()))
    assert pool.Pool.gpu_memory(two) == found


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
