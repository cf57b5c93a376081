"""cluster.ray.pool: the memory of a GPU."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from cluster.ray import pool


@pytest.mark.parametrize(("answers", "memory"), [(["dead", 5], 5), (["dead", "dead"], None)])
def test_gpu_memory_of_first_live_actor(monkeypatch, answers, memory):
    def get(answer):
        if answer == "dead":
            raise RayActorError
        return answer

    monkeypatch.setattr(pool.ray, "wait", lambda waiting: (waiting[:1], waiting[1:]))
    monkeypatch.setattr(pool.ray, "get", get)
    actor = lambda answer: SimpleNamespace(device_memory=SimpleNamespace(remote=lambda: answer))
    assert pool.gpu_memory([actor(answer) for answer in answers]) == memory
