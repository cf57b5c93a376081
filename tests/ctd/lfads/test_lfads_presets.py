"""The preset autolfads: what lfads-torch's scripts/run_pbt.py has, as a search that the kernel takes."""

import math

import pytest
from places import ROOT

from ctd.kernel import static_of
from ctd.lfads import kernel
from jobs.forms import extremes
from jobs.pipeline import read_stages
from jobs.plan.items import expand
from jobs.search.method import searched
from jobs.search.population import MIN_IMPROVEMENT, Population
from jobs.spec.presets import expand_preset

PUBLISHED = {
    "learning_rate": (1e-5, 5e-3, 0.3),
    "dropout": (0.0, 0.6, 0.3),
    "coordinated_dropout": (0.01, 0.7, 0.3),
    "kl_input": (1e-6, 1e-4, 0.8),
    "kl_ic": (1e-6, 1e-3, 0.8),
    "l2_generator": (1e-4, 1.0, 0.8),
    "l2_controller": (1e-4, 1.0, 0.8),
}
"""Least, largest, weight of exploration."""


@pytest.fixture(scope="module")
def spec():
    (stage,) = read_stages(ROOT / "examples" / "autolfads.yaml")
    return stage.spec({})


def test_ranges_are_the_published_ones(spec):
    search = spec.search
    assert isinstance(search, Population)
    assert {name: extremes(law) for name, law in search.params.items()} == {
        name: [low, high] for name, (low, high, _) in PUBLISHED.items()
    }
    assert (search.metric, search.mode, search.exploit) == ("smoothed_nll", "min", "tournament")
    assert (search.burn_in, search.every, search.patience) == (105, 25, 4)
    assert MIN_IMPROVEMENT == 5e-4
    assert spec.sweep.count() == 20


def test_moves_are_as_wide_as_published(spec):
    """Up by as much as theirs, and down by the same factor, where theirs drift down."""
    for name, law in spec.search.params.items():
        low, high, weight = PUBLISHED[name]
        if name in ("dropout", "coordinated_dropout"):
            expected = weight * (low + high) / 2
            assert law.perturb * (high - low) == pytest.approx(expected, rel=0.01)
        else:
            factor = (high / low) ** law.perturb
            assert factor == pytest.approx(1 + weight, rel=0.01), (name, math.log(factor))


def test_the_kernel_takes_it(spec):
    """Every field is there, is moved, and starts inside of its range."""
    items = expand(spec, kernel)
    (group,) = items.groups
    assert items.n == 20
    for name, (low, high, _) in PUBLISHED.items():
        if name in ("learning_rate", "coordinated_dropout"):
            assert getattr(group.params, name) == {"learning_rate": 4e-3}.get(name, 0.5)
        else:
            values = items.values(name, group.items)
            assert len(set(values)) == 20
            assert low <= values.min() < values.max() <= high
    assert spec.search.metric in kernel.dims
    assert static_of(group.params).penalties == "entry"
    assert kernel.advances(static_of(group.params)) == 1000
    assert searched(kernel, spec.search).outcomes[-1].name == "settled"


def test_what_the_job_says_counts():
    job = {
        "kernel": "lfads",
        "params": {"n_batches": 4000, "learning_rate": 1e-3},
        "search": {"preset": "autolfads", "generations": 9},
    }
    found = expand_preset(job, kernel, "job")
    assert found["params"]["n_batches"] == 4000
    assert found["search"]["generations"] == 9
    assert "start" not in found["search"]["params"]["learning_rate"]
