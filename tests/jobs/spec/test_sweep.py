"""jobs.spec.sweep: counts, order and draws of axes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import refused
from pydantic import ValidationError

from jobs.plan.params import join
from jobs.spec.sweep import Sweep, columns_of

FORMS = [
    ({"range": 3}, [0, 1, 2]),
    ({"range": [1, 4]}, [1, 2, 3]),
    ({"range": [0, 10, 5]}, [0, 5]),
    ({"linspace": [0, 1, 3]}, [0, 0.5, 1]),
    ({"geomspace": [0.01, 1, 3]}, [0.01, 0.1, 1]),
    ([3, 1], [3, 1]),
    (["a", None], ["a", None]),
]


def rows(sweep, seed=0):
    columns = sweep.columns(seed)
    values = {k: [c.values[i] for i in c.codes] for k, c in columns.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_axis_values(form, expected):
    found = [row["a"] for row in rows(Sweep.model_validate({"grid": {"a": form}}))]
    if all(isinstance(v, int | float) for v in expected):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    else:
        assert found == expected


@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=3),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_columns_are_the_product(grid, zipped, seeds):
    """Against itertools: grid axes, then zip, then seeds, the last fastest."""
    names = [f"g{k}" for k in range(len(grid))]
    given_zip = {"z1": list(range(zipped)), "z2": list(range(10, 10 + zipped))} if zipped else {}
    sweep = Sweep.model_validate({
        "grid": {k: {"range": n} for k, n in zip(names, grid, strict=True)},
        "zip": given_zip, "seeds": seeds,
    })  # fmt: skip
    axes = [[{name: v} for v in range(n)] for name, n in zip(names, grid, strict=True)]
    if zipped:
        axes.append([{"z1": k, "z2": 10 + k} for k in range(zipped)])
    if seeds > 1:
        axes.append([{"seed": k} for k in range(seeds)])
    expected = [
        {k: v for part in parts for k, v in part.items()} for parts in itertools.product(*axes)
    ]
    if sweep.columns(0):
        assert rows(sweep) == expected
    assert sweep.count() == len(expected)


def test_random_draws_lie_in_range_and_do_not_move():
    make = lambda samples, extra: Sweep.model_validate({
        "random": {"u": {"uniform": [2, 3]}, "l": {"loguniform": [1e-4, 1e-2]},
                   "i": {"integers": [0, 5]}, "c": {"choice": ["a", "b"]}, **extra},
        "samples": samples,
    })  # fmt: skip
    few, many = rows(make(10, {}), 7), rows(make(200, {"a": {"uniform": [0, 1]}}), 7)
    for name in ("u", "l", "i", "c"):
        # Neither more samples nor one more field changes what was drawn.
        assert [row[name] for row in many[:10]] == [row[name] for row in few]
    for row in many:
        assert 2 <= row["u"] < 3
        assert 1e-4 <= row["l"] < 1e-2
        assert row["i"] in range(5)
        assert row["c"] in "ab"
    # Uniform in the logarithm: half lies below the geometric mean; sd of the share is 0.035.
    assert 0.35 < np.mean([row["l"] < 1e-3 for row in many]) < 0.65
    assert rows(make(10, {}), 8) != few
    # A further sweep of a list draws what more samples would have drawn.
    parts = columns_of([make(10, {}), Sweep(grid={"u": [0, 1]}), make(190, {})], 7)
    for name in ("u", "l", "i", "c"):
        assert [parts[2][name].values[k] for k in parts[2][name].codes] == [
            row[name] for row in many[10:]
        ]


@pytest.mark.parametrize(
    ("change", "grown"),
    [
        ({}, True), ({"samples": 9}, True), ({"samples": 7}, False), ({"seeds": 3}, False),
        ({"random": {"u": {"uniform": [0, 2]}}, "samples": 9}, False),
        ({"samples": 9, "grid": {"a": [1, 2]}}, False),
    ],
)  # fmt: skip
def test_more_samples_keep_the_first_items(change, grown):
    few = Sweep.model_validate({"random": {"u": {"uniform": [0, 1]}}, "samples": 8, "seeds": 2})
    many = Sweep.model_validate(few.model_dump() | change)
    assert few.grown_to(many) == grown
    assert (rows(many)[:16] == rows(few)) == grown
    crossed = few.model_copy(update={"grid": {"a": [1, 2]}})
    assert not crossed.grown_to(crossed.model_copy(update={"samples": 9}))


@pytest.mark.parametrize(
    "given",
    [
        {"random": {"a": {"uniform": [0, 1]}}},
        {"samples": 3},
        {"zip": {"a": [1], "b": [1, 2]}},
        {"grid": {"a": [1]}, "zip": {"a": [1]}},
        {"grid": {"a": []}},
        {"grid": {"a": {"geomspace": [0, 1, 3]}}},
        {"grid": {"a": {"range": [0, 10, 0]}}},
        {"grid": {"a": {"range": [0, 2.5]}}},
        {"grid": {"a": {"range": [1, 2, 3, 4]}}},
        {"grid": {"a": {"range": [3]}}},
        {"grid": {"a": {"range": "3"}}},
        # More than NumPy can count.
        {"grid": {"a": {"range": 2**63}}},
        {"zip": {"a": {"linspace": [0, 1, 2**63]}}},
        {"random": {"a": {"integers": [0, 2**64]}}, "samples": 2},
        {"random": {"a": {"integers": [3, 3]}}, "samples": 2},
        {"random": {"a": {"uniform": [0.3, 0]}}, "samples": 2},
        {"random": {"a": {"loguniform": [0.1, 0.001]}}, "samples": 2},
        {"seeds": 0},
        {"grid": {"a": 3}},
        {"grid": {"a": {"logspace": [0, 1, 3]}}},
        {"grid": {"a": {"linspace": [0, 1, 3], "range": 2}}},
        {"random": {"a": {"normal": [0, 1]}}, "samples": 2},
        {"random": {"a": [0, 1]}, "samples": 2},
    ],
)
def test_sweep_refuses(given):
    with refused(ValidationError) as caught:
        Sweep.model_validate(given)
    assert caught.value.error_count() == 1  # of the form that was meant, not of all there are


def test_axes_from_python_may_be_any_sequence():
    for axis in ((1, 2), range(1, 3), np.array([1, 2]), {"range": (np.int64(1), 3)}):
        assert Sweep.model_validate({"grid": {"a": axis}}).count() == 2


def test_join_keeps_earlier_items():
    first = Sweep.model_validate({"grid": {"a": [1, 2]}})
    second = Sweep.model_validate({"grid": {"b": [5.0, 6.0]}})
    joined = join([(2, first.columns(0)), (2, second.columns(0))], {"a": 9, "b": 0.5})
    value = lambda name: [joined[name].values[c] for c in joined[name].codes]
    assert value("a") == [1, 2, 9, 9]
    assert value("b") == [0.5, 0.5, 5.0, 6.0]


@pytest.mark.parametrize(
    "forms",
    [
        [{"range": 3}, {"range": [5, 13]}],
        [{"range": 3}, {"linspace": [0, 1, 3]}],
        [{"integers": [0, 1000]}, [7]],
    ],
)
def test_joined_numbers_stay_numbers(forms):
    """Of NumPy's whole numbers texts were made, in whose order items took each other's values."""
    parts = [
        Sweep(random={"k": form}, samples=20) if "integers" in form else Sweep(grid={"k": form})
        for form in forms
    ]
    joined = join([(part.count(), part.columns(0)) for part in parts], {"k": 0})["k"]
    expected = [value for part in parts for value in part.columns(0)["k"].values]
    assert joined.values.dtype.kind in "if"
    np.testing.assert_array_equal(joined.values[joined.codes], expected)
