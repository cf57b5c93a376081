"""jobs.inputs.measure: what a plan says of the data that a group loads."""

from typing import NamedTuple

import numpy as np
import pytest
from jaxtyping import Float

from ctd.kernel import File, Params
from jobs.inputs.measure import MOST_DATA, MOST_UNUSED, data_told, paths_of


class Trials(NamedTuple):
    counts: Float[np.ndarray, "trial time unit"]
    inputs: Float[np.ndarray, "trial time input"] | None
    dt: Float[np.ndarray, ""]


class Shared(NamedTuple):
    train: Trials
    weights: Float[np.ndarray, "unit unit"]


class Read(NamedTuple):
    trials: Trials
    unused: dict[str, None]


class Perhaps(Params):
    path: File[str] = ""


counts, dt = np.zeros((200, 25, 1030)), np.zeros(())


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        ((), []),
        (np.zeros((3, 4, 5)), []),
        (Trials(counts, None, dt), ["counts: trial 200, time 25, unit 1,030"]),
        (Trials(counts, counts[..., :0], dt), ["counts: trial 200, time 25, unit 1,030"]),
        # Not as annotated: a check of the kernel says so, if it minds.
        (Trials(counts[0], counts[..., :2], dt), ["inputs: trial 200, time 25, input 2"]),
        (
            Shared(Trials(counts, None, dt), np.zeros((3, 3))),
            ["train.counts: trial 200, time 25, unit 1,030"],
        ),
    ],
)
def test_sizes_of_annotated_data(shared, said):
    assert data_told([shared]) == said


def test_a_few_arrays_are_enough():
    many = NamedTuple("many", [(f"x{k}", Float[np.ndarray, "a b c"]) for k in range(9)])
    assert len(data_told([many(*[np.zeros((1, 1, 1))] * 9)])) == MOST_DATA


def test_datasets_that_are_not_used_are_named():
    trials, many = Trials(counts, None, dt), {f"d{k}": None for k in range(MOST_UNUSED + 1)}
    groups = [Read(trials, {"age": None}), Read(trials, {"age": None, "notes": None}), trials]
    sizes = [f"{name}: trial 200, time 25, unit 1,030" for name in ("trials.counts", "counts")]
    assert data_told(groups) == [*sizes, "not used: age, notes"]
    assert data_told([Read(trials, many)])[1].endswith(f"d{MOST_UNUSED - 1}, ...")


def test_an_empty_name_is_no_file():
    assert paths_of(Perhaps()) == []


def test_plan_shows_exchanged_axes(ctd, job_file, tmp_path):
    np.save(tmp_path / "rates.npy", np.random.default_rng(0).normal(size=(8, 30)))
    job = "kernel: curbd\nparams: {data: rates.npy, regions: {A: 0-29}, n_runs: 5}\n"
    assert "data             x: recording 1, time 8, unit 30" in ctd("plan", job_file(job))[1]
