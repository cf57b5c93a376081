"""cluster.ray.pool: the memory of a GPU."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from cluster.ray import pool


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
    assert pool.Pool._gpu_memory(SimpleNamespace(slots=slots)) == found
