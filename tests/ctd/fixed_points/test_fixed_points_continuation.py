"""Branches and bifurcations against normal forms and closed forms.

One program holds all flows, and one all maps: which of them an item is, its constant input says. All are two cubic
polynomials of the two units h, k and the parameter p, and a tanh: XLA compiles their coefficients in half of the time of their
formulas.
"""

import re
import textwrap
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused, warned
from places import EXAMPLES, ROOT
from pydantic import ValidationError

from ctd.batch import Layout, run_items
from ctd.fixed_points import Followed, follow
from ctd.fixed_points.continuation import (
    OUTCOMES,
    Continuation,
    kernel,
    load,
    place_of,
)
from ctd.fixed_points.continuation.bifurcation import KINDS
from ctd.fixed_points.continuation.table import plots, reduce
from ctd.fixed_points.network import make_network
from ctd.kernel import inputs_of


def form(first, second):
    """(2, 65) the coefficients of two polynomials: {"hhp": c} is c h^2 p; "tanh", the last, is that of h."""
    found = np.zeros((2, 65))
    for row, terms in zip(found, (first, second), strict=True):
        for powers, value in terms.items():
            places = (
                ["1hkp".index(name) for name in powers.ljust(3, "1")] if powers != "tanh" else []
            )
            row[np.ravel_multi_index(places, (4, 4, 4)) if places else -1] += value
    return found


def of_one(first):
    """A flow of h; k decays."""
    return form(first, {"k": -1})


def turned(polynomials):
    """The same in other coordinates."""
    turn, whole = np.array([[0.8, -0.6], [0.6, 0.8]]), np.eye(4)
    whole[1:3, 1:3] = turn.T
    cubic = polynomials[:, :64].reshape(2, 4, 4, 4)
    cubic = np.einsum("ia,abcd,be,cf,dg->iefg", turn, cubic, whole, whole, whole)
    return np.column_stack([cubic.reshape(2, 64), turn @ polynomials[:, 64:]])


TANH = of_one({"h": -1, "tanh": 2, "p": 1})
PITCHFORK = of_one({"hp": 1, "hhh": -1})
CIRCLE = of_one({"hh": 1, "pp": 1, "1": -1 / 4})
FLOWS = {
    # name: (dh/dt, h, p there, outcome, [(kind, p, h)])
    # x' = -x + 2 tanh x + p folds where 2 sech^2 x = 1.
    "tanh": (TANH, 1.9150080481545754, 0.0, "complete",
             [("fold", -0.5328399753535521, 0.881373587019543), ("fold", 0.5328399753535521, -0.881373587019543)]),
    "pitchfork": (PITCHFORK, 0.0, -0.5, "complete", [("pitchfork", 0, 0)]),
    "arm of a pitchfork": (PITCHFORK, 0.7, 0.5, "complete", [("pitchfork", 0, 0)]),
    "transcritical": (of_one({"hp": 1, "hh": -1}), 0.0, -0.5, "complete", [("transcritical", 0, 0)]),
    # Along p = h - h^2 / 5, where a corrector has no footing near the crossing; the points of h = 0 are exact.
    "curved transcritical": (of_one({"hp": 1, "hh": -1, "hhh": 0.2}), 0.5, 0.45, "complete", [("transcritical", 0, 0)]),
    "hopf": (form({"hp": 1, "k": -1, "hhh": -1, "hkk": -1}, {"kp": 1, "h": 1, "hhk": -1, "kkk": -1}),
             0.0, -0.5, "complete", [("hopf", 0, 0)]),
    # Quadratic: the cubic term of the pitchfork comes from the other mode.
    "bent pitchfork": (turned(form({"hp": 1, "hk": -1}, {"k": -1, "hh": 1})), 0.0, -0.5, "complete", [("pitchfork", 0, 0)]),
    "circle": (CIRCLE, 0.5, 0.0, "closed", [("fold", -0.5, 0), ("fold", 0.5, 0)]),
    "its other side": (CIRCLE, -0.5, 0.0, "closed", [("fold", -0.5, 0), ("fold", 0.5, 0)]),
    "no bifurcation": (of_one({"h": -1, "p": 1}), 0.0, 0.0, "complete", []),
    "no point": (of_one({"hh": 1, "p": 1}), 0.5, 0.5, "nowhere", []),
    # A slow point, from which Newton goes to h = -1.
    "slow": (of_one({"hhh": -1, "h": 0.03, "1": -0.97}), 0.2, 0.0, "nowhere", []),
}  # fmt: skip
E = 0.004
C, S = np.cos(1), np.sin(1)
MAPS = {
    # p h (1 - h): its point 1 - 1/p crosses 0 at 1 and flips at 3. The other turns by 1 radian a step, with |.| = |p - 2|.
    "logistic": (form({"hp": 1, "hhp": -1}, {}), (0.6, 0.0), 2.5, [("transcritical", 1, 0), ("flip", 3, 2 / 3)]),
    "neimark-sacker": (form({"hp": C, "h": -2 * C, "kp": -S, "k": 2 * S, "hhh": -1, "hkk": -1},
                            {"hp": S, "h": -2 * S, "kp": C, "k": -2 * C, "hhk": -1, "kkk": -1}),
                       (0.0, 0.0), 2.5, [("hopf", 1, 0), ("hopf", 3, 0)]),
    # Both in one step: at h = 0, and at -E.
    "fold beside a flip": (form({"h": 1, "p": 1 / 2, "1": -1, "hh": -1}, {"k": E - 1, "hk": 1}),
                           (0.5, 0.0), 2.5, [("fold", 2, 0), ("flip", 2 + 2 * E**2, -E)]),
}  # fmt: skip


def polynomials(weights, h, x):
    """Those of number x[0], whose tanh is that of x[1] h; x[2] is p."""
    one = jnp.concatenate([jnp.ones(1), h, x[2:]])
    three = one[:, None, None] * one[:, None] * one
    terms = jnp.append(three.ravel(), jnp.tanh(x[1] * h[0]))
    return weights["form"][x[0].astype(int)] @ terms


N = len(FLOWS)
POINTS = SimpleNamespace(states=np.zeros((6, 2)))
"""As many points as a reduction's items start at."""


def followed(forms, points, starts, low, high, slope=1, **settings):
    """The results of items that differ in form, point and start; at most N."""
    n = len(points)
    filled = lambda values: np.resize(values, (N, *np.shape(values)[1:]))  # one shape, one program
    network = make_network(polynomials, {"form": filled(forms)}, filled(points), "float64")
    params = Continuation(low=low, high=high, start=starts[0], n_steps=300, **settings)
    columns = {
        "start_point": np.arange(n),
        "start": np.asarray(starts, float),
        "x": np.column_stack([np.arange(n), np.full(n, slope), np.zeros(n)]),
        "along": np.tile([0.0, 0.0, 1.0], (n, 1)),
    }
    return run_items(kernel, params, columns, shared=network, layout=Layout(N, 1))


@pytest.fixture(scope="module")
def flows():
    forms, h, starts, *_ = zip(*FLOWS.values(), strict=True)
    points = np.column_stack([h, np.zeros(N)])
    return followed(np.array(forms), points, starts, -1, 1, time="continuous")


@pytest.fixture(scope="module")
def maps():
    forms, points, starts, _ = zip(*MAPS.values(), strict=True)
    return followed(np.array(forms), np.array(points), starts, 0.5, 3.9)


def assert_met(results, row, expected):
    """The kinds, and p and h to 1e-8: the rounding of a determinant, which vanishes there, moves its root by so much."""
    n = int(results["n_met"][row])
    met = sorted(
        (
            float(results["met_parameter"][row, k]),
            KINDS[results["met_kind"][row, k]],
            results["met_state"][row, k, 0],
        )
        for k in range(n)
    )
    assert [kind for _, kind, _ in met] == [
        kind for kind, *_ in sorted(expected, key=lambda e: e[1])
    ]
    for (p, _, h), (_, p0, h0) in zip(met, sorted(expected, key=lambda e: e[1]), strict=True):
        assert p == pytest.approx(p0, abs=1e-8)
        assert h == pytest.approx(h0, abs=1e-8)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_bifurcations(flows, name):
    row = list(FLOWS).index(name)
    *_, outcome, expected = FLOWS[name]
    assert OUTCOMES[flows["outcome"][row]].name == outcome
    assert_met(flows, row, expected)


@pytest.mark.endurance
@pytest.mark.parametrize("name", MAPS)
def test_map_bifurcations(maps, name):
    assert_met(maps, list(MAPS).index(name), MAPS[name][-1])


def test_points_of_a_branch_are_zeros_in_order(flows):
    """Of the folded curve x' = 0, p = x - 2 tanh x in closed form; x falls from end to end, stable outside the folds."""
    row = list(FLOWS).index("tanh")
    there = flows["n_unstable"][row] >= 0
    p, h = flows["parameter"][row, there], flows["branch_state"][row, there, 0]
    np.testing.assert_allclose(p, h - 2 * np.tanh(h), atol=1e-10)
    np.testing.assert_allclose(np.sort(p[[0, -1]]), [-1, 1], rtol=1e-12)
    assert (np.diff(h) > 0).all() or (np.diff(h) < 0).all()
    inside = np.abs(h) < np.arccosh(np.sqrt(2))
    np.testing.assert_array_equal(flows["n_unstable"][row, there], inside)
    assert np.isnan(flows["parameter"][row, ~there]).all()


def test_reduce_lists_a_branch_and_its_folds_once(flows):
    """Two items followed one folded branch from both of its ends, two one circle; one began nowhere."""
    names = ("tanh", "pitchfork", "tanh", "no point", "circle", "its other side")
    rows = [list(FLOWS).index(name) for name in names]
    some = {name: values[rows].copy() for name, values in flows.items()}
    some["constant_input"][:] = 0  # which is the number of the form
    for name in ("parameter", "branch_state", "n_unstable"):
        some[name][2] = some[name][2, ::-1]
    inputs = inputs_of(Continuation(time="continuous"))
    columns = {"item": np.arange(4, 10), "start_point": np.arange(6)}
    with warned():
        table = reduce(inputs, POINTS, columns, some, None)
    assert table["branch_of_start"].tolist() == [0, 1, 0, -1, 2, 2]
    assert table["branch_starts"].tolist() == [2, 1, 2]
    assert table["branch_item"].tolist() == [4, 5, 8]
    assert table["branch_folds"].tolist() == [2, 0, 2]
    assert table["kind"].tolist() == ["fold", "fold", "pitchfork", "fold", "fold"]
    assert table["count"].tolist() == [1] * 5
    expected = [-0.53284, -0.5, 0, 0.5, 0.53284]
    np.testing.assert_allclose(table["bifurcation_parameter"], expected, atol=1e-6)
    assert flows["n_points"][list(FLOWS).index("no point")] == 0
    # The circle is stable where h < 0.
    np.testing.assert_allclose(
        [table["branch_low"][2], table["branch_high"][2]], [-0.5, 0.5], atol=1e-9
    )
    assert table["branch_stable"][2] == pytest.approx(0.5, abs=0.002)
    # The straight line h = 0 is stable up to p = 0, the middle of its range.
    assert table["branch_stable"][1] == pytest.approx(0.5, abs=1e-8)
    # At another input the other side of the circle is another branch, with its own folds and its own picture.
    some["constant_input"][5] = 1
    with warned():
        table = reduce(inputs, POINTS, {"start_point": np.arange(6) % 5}, some, None)
    assert table["branch_of_start"].tolist() == [0, 1, 0, -1, 2, 3]
    assert table["bifurcation_input"][:, 0].tolist() == [0, 0, 1, 0, 0, 1, 0]
    drawn = plots(inputs, POINTS, {}, some, table)
    assert [plot.title[-9:] for plot in drawn] == ["(0, 0, 0)", "(1, 1, 1)"]
    assert [layer.name for layer in drawn[1].layers] == ["stable", "unstable", "fold (2)"]


def test_lines_change_at_the_bifurcations(flows):
    """A pitchfork at p = 0 on a branch whose h does not vary, and the folds of another, which are ends of its lines."""
    inputs = inputs_of(Continuation(time="continuous"))
    for name, ends, label in (
        ("pitchfork", ([-1, 0], [0, 1]), "h, the same at every p"),
        (
            "tanh",
            ([-1, 1], [-0.53284, 0.53284]),
            "principal component 1 of h (100 % of the variance)",
        ),
    ):
        some = {key: values[[list(FLOWS).index(name)]] for key, values in flows.items()}
        drawn = plots(
            inputs,
            POINTS,
            {},
            some,
            reduce(inputs, POINTS, {"start_point": np.arange(6)}, some, None),
        )
        assert [plot.y.label for plot in drawn] == [label]
        for layer, expected in zip(drawn[0].layers, ends, strict=False):
            p = np.asarray(layer.x)[np.isfinite(layer.y)]
            np.testing.assert_allclose([p.min(), p.max()], expected, atol=1e-6)


def test_a_closed_branch_is_drawn_closed(flows):
    some = {key: values[[list(FLOWS).index("circle")]] for key, values in flows.items()}
    columns, inputs = {"start_point": np.arange(6)}, inputs_of(Continuation(time="continuous"))
    (plot,) = plots(inputs, POINTS, {}, some, reduce(inputs, POINTS, columns, some, None))
    stable, unstable, _ = plot.layers
    assert unstable.x[0, [0, -1]].tolist() == [0, 0]  # where it began
    # Half a circle in units of its longest step, and no gap in it.
    steps = np.hypot(np.diff(unstable.x[0]), np.diff(unstable.y[0]))
    assert np.nansum(steps) == pytest.approx(np.pi / 2, rel=0.01)
    assert np.isfinite(stable.y[0]).any()


def test_steps_are_in_units_of_the_points():
    """The tanh flow, a thousand times smaller: both starts lie on one branch, whose folds no step jumps over."""
    s = 1e-3
    points = np.array([[-1.915, 0], [1.915, 0]]) * s
    small = of_one({"h": -1, "tanh": 2 * s, "p": 1})  # of h / s
    found = followed([small] * 2, points, (0, 0), -s, s, slope=1 / s, time="continuous")
    found["constant_input"][:] = 0  # which is the number of the form
    columns = {"item": np.arange(2), "start_point": np.arange(6)}
    branches = reduce(inputs_of(Continuation(time="continuous")), POINTS, columns, found, None)
    assert branches["branch_starts"].tolist() == [2]
    np.testing.assert_allclose(branches["bifurcation_parameter"], [-5.328e-4, 5.328e-4], rtol=1e-3)


def test_hopf_frequency_is_that_of_the_critical_pair(flows):
    """The flow's normal form turns by 1 radian a unit of time."""
    row = list(FLOWS).index("hopf")
    np.testing.assert_allclose(flows["met_mode"][row, 0], [0, 1], atol=1e-8)


def logistic_beside_a_turn(h, p):
    """The first and the second map of MAPS, in one of three units; the second one's p is less by 0.2."""
    a, b, c = h
    turned = (p - 2.2) * jnp.stack([C * b - S * c, S * b + C * c])
    return jnp.append(p * a * (1 - a), turned - (b**2 + c**2) * h[1:])


@pytest.mark.endurance  # always: flows by the kernel, above; `follow` of flows by the pages of the site
def test_follow_a_map():
    """As in a notebook. The map turns by 1 radian a step where its modes grow."""
    found = follow(logistic_beside_a_turn, [0.6, 0.0, 0.0], low=0.5, high=3.9, start=2.5)
    assert found.branches["kind"].tolist() == ["transcritical", "hopf", "flip", "hopf"]
    met = found.branches["bifurcation_parameter"]
    np.testing.assert_allclose(met, [1, 1.2, 3, 3.2], atol=1e-8)
    re, im = found.results["met_mode"][
        0, np.nanargmin(np.abs(found.results["met_parameter"] - 3.2))
    ]
    assert np.hypot(re, im) == pytest.approx(1, abs=1e-8)
    assert np.arctan2(im, re) == pytest.approx(1, abs=1e-8)
    assert repr(found).splitlines()[0] == "1 start on 1 branch"
    assert {ax.get_xlabel() for ax in found.figure().axes} == {"p, input"}


def test_follow_says_why_starts_are_on_no_branch():
    table = dict.fromkeys((*kernel.display.summary, "branch_starts"), np.zeros(0))
    table["branch_item"] = np.zeros(1, int)  # of another axis than the bifurcations
    found = Followed({"outcome": np.array([5, 0, 5])}, table, kernel, POINTS, None)
    assert repr(found).splitlines()[:2] == [
        "3 starts on 0 branches",
        "2 nowhere: no fixed point was found within max_step of the start, which was a slow point or too far from a fixed one",
    ]


@pytest.mark.endurance
def test_follow_in_a_notebook_as_the_page_prints_it():
    page = (ROOT / "docs" / "dynamics.md").read_text()
    code, shown = re.findall(r"```python\n((?:(?!```)[\s\S])*)\n```\n\n((?:    .*\n)+)", page)[0]
    lines = code.splitlines()
    names = {}
    exec("\n".join(lines[:-1]), names)
    assert repr(eval(lines[-1], names)).splitlines() == textwrap.dedent(shown).splitlines()
    axes = names["found"].figure().axes
    assert [ax.get_xlabel() for ax in axes] == ["p, input"]


@pytest.mark.parametrize(
    "fields",
    [
        {"low": 1, "high": 1},
        {"along": [0, 0]},
        {"start": 2},
        {"cell": "gruu"},
    ],
)
def test_params_refuse(fields):
    with refused(ValidationError):
        Continuation.model_validate(fields)


def test_load_refuses(tmp_path):
    weights = str(EXAMPLES / "decision_gru.h5")
    for fields in (
        {"over": "wQ"},
        {"over": "wO"},
        {},
        {"points": weights, "dataset": "h1"},
        {"points": weights, "dataset": "bO"},
    ):
        with refused(ValueError):
            load(inputs_of(Continuation(weights=weights, **fields)))


@pytest.mark.parametrize(
    ("over", "x", "point", "expected"),
    [
        # over, x, point, (x where p is 0, p of the point); None: elsewhere.
        ("input", (), 0, ([0, 0], 0)),
        ("input", (), 1, ([-0.5, 0.5], 0.5)),  # own input (0, 1): across `along`, and along it
        ("input", (-0.5, 0.5), 1, ([-0.5, 0.5], 0.5)),
        ("input", (0.0, 0.0), 1, None),
        ("input", (), 2, None),  # p is 3, beyond `high`
        ("wR", (), 2, ([3, 3], 1)),
        ("wR", (0.0, 1.0), 1, ([0, 1], 1)),
        ("wR", (0.0, 0.0), 1, None),
    ],
)
def test_a_branch_begins_at_the_constant_input_of_its_point(over, x, point, expected):
    network = SimpleNamespace(
        cell={polynomials: None},
        inputs=np.array([[0, 0], [0, 1], [3, 3.0]]),
        states=np.zeros((3, 1, 5), np.float32),
    )
    traced = SimpleNamespace(x=np.array(x), along=np.array([1.0, 1.0]), start=1.0, low=-2.0, high=2.0, start_point=point)  # fmt: skip
    found = place_of(SimpleNamespace(over=over), network, traced)
    assert bool(found.has_point) == (expected is not None)
    if expected:
        np.testing.assert_allclose(found.x, expected[0], atol=1e-6)
        assert float(found.p) == pytest.approx(expected[1], abs=1e-6)


def test_load_takes_the_constant_inputs_of_a_table(tmp_path):
    given = {"weights": str(EXAMPLES / "decision_gru.h5"), "points": str(tmp_path / "points.npz")}
    inputs = inputs_of(Continuation(**given))
    for own, size in (([[0.0], [0.5]], (2, 1)), (None, (0, 0)), ([[0.0]], (0, 0))):
        table = {"point": np.zeros((2, 100))} | ({} if own is None else {"constant_input": own})
        np.savez(given["points"], **table)
        assert load(inputs).inputs.shape == size
    with refused(ValueError):
        load(inputs_of(Continuation(**given, dataset="points")))
