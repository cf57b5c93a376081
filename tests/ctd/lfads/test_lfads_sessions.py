"""Several sessions under one generator: each is a model of its own, padding counts for nothing, the core stays fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lfads_cases import CHOP, LAYOUT, STARTS, STITCHED, STITCHED_SIZES, UNITS, write_sessions
from messages import refused
from pydantic import ValidationError
from scipy.stats import poisson

from ctd.batch import Run, program, traced_columns
from ctd.data import read_hdf5, write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.lfads import Model, kernel
from ctd.lfads.kernel import item_keys
from ctd.lfads.loss import bound, draw_noise, gather, training_loss
from ctd.lfads.model import Fitted
from ctd.lfads.readins import init_stitched, of_session, of_trials, real_entries, with_core
from ctd.lfads.sessions import load
from ctd.lfads.train import Position, train_step
from ctd.lfads.trained import by_session, held_out_of_session
from ctd.lfads.weights import unflatten
from ctd.rows import Best

N_BINS = 8
"""Of a trial; those of the recordings that are trained on: `lfads_stitched`."""
ROWS = np.array([3, 8, 1, 11, 10, 5])
"""Training windows of both sessions."""


def session(units, trials, seed=0, n_bins=N_BINS, **changes):
    """Counts of conditions with common latents, which other units read out."""
    rng = np.random.default_rng(seed)
    latents = np.random.default_rng(99).standard_normal((5, n_bins, 2))
    condition = np.arange(trials) % 5
    rates = np.exp(latents @ rng.normal(size=(2, units)) * 0.7 + 1)
    counts = rng.poisson(rates[condition])
    found = {"train": counts, "eval": counts[:5], "eval_rates": rates[condition][:5]}
    found |= {"train_condition": condition, "bin_s": np.array(0.01)} | changes
    return {name: value for name, value in found.items() if value is not None}


def write(folder, **files):
    for name, arrays in files.items():
        write_hdf5(folder / f"{name}.h5", arrays)
    return tuple(str(folder / f"{name}.h5") for name in files)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(parameters, the results below) of a model of two sessions."""
    params = Model(data=write_sessions(tmp_path_factory.mktemp("sessions")), **STITCHED)
    columns = {name: np.asarray(v)[None] for name, v in traced_of(params)._asdict().items()}
    traced = traced_columns(Model, columns, params.dtype)
    prog = program(kernel, static_of(params), LAYOUT)
    run = Run(prog, load(inputs_of(params)), 0, np.arange(1), traced)
    for _ in range(kernel.advances(inputs_of(params))):
        run.step()
    weights = {name for name in run.results if name.startswith(("weights.", "model."))}
    # All results take ten seconds to compile; they are compared in tests/cluster/cli/test_cli_posterior_sessions.py.
    further = {"curve.eval.loss", "best_batch", "eval_loss", "trial_session", "rates", "rate_r2"}
    further |= {"session_loss", "session_nll"}
    names = weights - {f"model.decoders.{name}" for name in "wb"} | further
    return params, run.peek(tuple(sorted(names)))[1]


def tree_of(results):
    """The weights of the only model, as `ctd.lfads.model` has them."""
    found = {
        "generator": {k: results[f"weights.{k}"][0] for k in ("wRUHX", "bRU", "wCHX", "bC", "wO")}
    }
    for name, value in results.items():
        if name.startswith("model."):
            part, entry = name.split(".")[1:]
            found.setdefault(part, {})[entry] = value[0]
    return jax.tree.map(jnp.asarray, found)


@pytest.fixture(scope="module")
def terms(trained):
    """(training loss with `penalties: entry` and the nll alone, sessions, terms of a mixed minibatch, of each session)."""
    params, results = trained
    none = {"coordinated_dropout": 0.0, "dropout": 0.0, "kl_ic": 0.0, "kl_input": 0.0}
    none |= {"l2_generator": 0.0, "l2_controller": 0.0}
    model = params.model_copy(update={"penalties": "entry", **none})

    @jax.jit
    def terms(dataset, weights, key):
        batch = gather(model, dataset, dataset.train, ROWS)
        given = weights, (batch, key), jnp.zeros(())
        loss, _ = training_loss(static_of(model), traced_of(model), dataset, *given)
        noise = draw_noise(model, jax.random.split(key)[0], batch)
        real, own = real_entries(dataset, batch.session), of_trials(dataset, weights, batch.session)
        mixed, each = bound(Fitted(model, 1e-4, dataset, own), batch, noise, real), []
        for k, one in enumerate(dataset.stitched.sessions):
            own = of_session(weights, k, UNITS[k], one.seen_units)
            alone = gather(model, one, one.train, ROWS % len(STARTS))
            each.append(bound(Fitted(model, 1e-4, one, own), alone, noise))
        return loss, batch.session, mixed, each

    return terms(load(inputs_of(model)), tree_of(results), jax.random.key(0))


def test_the_nll_of_an_entry_is_of_the_sessions_own_units(terms):
    """With `penalties: entry` a trial of 5 units weighs as much as one of 7: its nll is the mean over its own entries."""
    loss, session, mixed, _ = terms
    entries = CHOP["window"] * np.array(UNITS)[np.asarray(session)]
    assert set(entries) == {42, 30}
    # float32 sums, in another order.
    expected = np.mean(np.asarray(mixed["nll"]) / entries)
    assert float(loss) / max(entries) == pytest.approx(expected, rel=1e-5)


def test_each_session_is_a_model_of_its_own(terms):
    """A mixed minibatch gives each trial the terms that its session's own model and data give it."""
    _, session, mixed, each = terms
    assert session.tolist() == (ROWS // len(STARTS)).tolist()
    for k, alone in enumerate(each):
        mine = np.asarray(session) == k
        for name, value in mixed.items():
            # Sums of 50 float32 terms, in another order.
            np.testing.assert_allclose(value[mine], alone[name][mine], rtol=2e-5, err_msg=name)


def first_weights(params):
    """Those of the first item of a job of seed 0."""
    static, traced = static_of(params), traced_of(params)

    @jax.jit
    def init(dataset, key):
        key = item_keys(jax.random.fold_in(key, 0), traced)[0]
        return init_stitched(static, traced, key, dataset)

    data = load(inputs_of(params))
    return data, jax.tree.map(np.asarray, init(data, jax.random.key(0)))


def test_padding_is_not_trained(trained):
    """Padded columns stay as they start; what is stored of units that are not there is NaN."""
    params, results = trained
    assert results["model.sessions.n_units"].tolist() == [list(UNITS)]
    _, first = first_weights(params)
    for part, units in (("readin", -1), ("readout", -2)):
        before, after = first[part]["w"], results[f"model.{part}.w"][0]
        same = np.moveaxis(before == after, units, 1)
        assert same[1, UNITS[1] :].all(), part
        assert not same[0].any(), part
        assert not same[1, : UNITS[1]].any(), part
    session = np.repeat([[0, 1]], len(STARTS), axis=1)
    assert results["trial_session"].tolist() == session.tolist()
    rates = results["rates"][0]
    assert np.isnan(rates[session[0] == 1][..., UNITS[1] :]).all()
    assert np.isfinite(rates[session[0] == 0]).all()
    assert np.isfinite(results["rate_r2"]).all()


def test_last_parameters_are_reported(trained):
    """`criterion: last` reports the end of the curve though it was lower before."""
    _, results = trained
    curve = results["curve.eval.loss"][0]
    assert results["best_batch"].tolist() == [4]
    assert results["eval_loss"][0] == curve[-1] > curve.min()


def test_metrics_by_session(trained):
    """The nll of each session by SciPy, from its posterior mean rates."""
    params, results = trained
    for k, units in enumerate(UNITS):
        counts = read_hdf5(params.data[k])["eval"]
        windows = np.stack([counts[start : start + CHOP["window"]] for start in STARTS])
        rates = results["rates"][0, results["trial_session"][0] == k][..., :units]
        expected = -poisson.logpmf(windows, rates).sum((1, 2)).mean()
        # -log p is convex in the rate, so that draws cost more than their mean: 10 %.
        assert 1 < results["session_nll"][0, k] / expected < 1.2
    # As many windows of each.
    assert results["session_loss"][0].mean() == pytest.approx(results["eval_loss"][0], rel=5e-3)


def test_sessions_of_the_best(trained):
    """The best of three models first, a row for each of its sessions."""
    params, _ = trained
    loss = np.array([3.0, 1.0, 2.0])
    sessions = {f"session_{name}": loss[:, None] + [0, 0.5] for name in ("loss", "nll")}
    results = {"eval_loss": loss, "eval_nll": loss, "outcome": np.zeros(3, int)} | sessions
    results["curve.eval.loss"] = np.ones((3, 2))
    table = kernel.tables.reduce(
        inputs_of(params), None, {"item": np.arange(3)}, results, Best(n_best=2)
    )
    assert table["session_item"].tolist() == [1, 1, 2, 2]
    assert table["session"].tolist() == [0, 1, 0, 1]
    assert table["session_nll"].tolist() == [1, 1.5, 2, 2.5]


def test_models_start_from_read_ins_of_conditions(tmp_path):
    """With 0 where a session has no unit."""
    files = write(tmp_path, a=session(7, 20), b=session(5, 14, seed=1))
    data, first = first_weights(Model(data=files, **STITCHED_SIZES))
    read_in, read_in_bias, readout = data.stitched.alignment
    for found, expected in (
        (first["readin"]["w"], read_in),
        (first["readin"]["b"], read_in_bias),
        (first["readout"]["w"][:, 0], readout),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for w in (first["readin"]["w"], np.moveaxis(first["readout"]["w"], -1, 1)):
        assert (w[1, ..., 5:] == 0).all()
        assert (w[0] != 0).all()


def test_read_ins_of_conditions_agree_over_sessions(tmp_path):
    """Condition averages of both sessions, read in, are the components of all units, as NumPy finds them."""
    arrays = [session(units, 500, seed) for seed, units in enumerate((12, 9))]
    files = write(tmp_path, a=arrays[0], b=arrays[1])
    found = load(inputs_of(Model(data=files, **STITCHED_SIZES))).stitched.alignment
    averages = [
        np.stack([a["train"][a["train_condition"] == c].mean(0) for c in range(5)]).reshape(40, -1)
        for a in arrays
    ]
    both = np.concatenate(averages, axis=1)
    left = np.linalg.svd(both - both.mean(0), full_matrices=False)[0]
    for k, one in enumerate(averages):
        w, b = found.read_in[k][:, : one.shape[1]], found.read_in_bias[k]
        read_in = one @ w.T + b
        # float32 weights, sums of ten.
        np.testing.assert_allclose(read_in.mean(0), 0, atol=1e-4)
        for factor in range(2):
            # Regression, and 100 noisy trials a condition: close, not equal.
            assert np.corrcoef(read_in[:, factor], left[:, factor])[0, 1] ** 2 > 0.9, (k, factor)


def test_new_session_with_a_core_that_stays(trained, tmp_path):
    """Every weight of the core keeps its bits; read-in and readout of the new session are trained."""
    _, results = trained
    cores = {}
    for part in ("weights", "model"):
        found = {
            k.removeprefix(f"{part}."): v[0] for k, v in results.items() if k.startswith(f"{part}.")
        }
        write_hdf5(tmp_path / f"{part}.h5", found)
        cores["core" if part == "weights" else "core_model"] = str(tmp_path / f"{part}.h5")
    (new,) = write(tmp_path, new=session(7, 18, seed=5, train_condition=None))
    params = Model(data=new, **STITCHED_SIZES | cores)
    with refused(ValueError):
        load(inputs_of(params.model_copy(update={"input_prior": "gaussian"})))
    data, static = load(inputs_of(params)), static_of(params)
    traced = jax.tree.map(jnp.asarray, traced_of(params))

    @jax.jit
    def run(dataset, key):
        """The weights after four steps, as a run takes them."""
        state = kernel.init(static, dataset, traced, key)
        like = with_core(dataset, init_stitched(static, traced, key, dataset))

        def body(at, _):
            at, _, finite = train_step(static, traced, dataset, key, at, like)
            return at, finite

        start = Position(state.weights, state.optimizer, state.step, state.plateaus)
        at, finite = jax.lax.scan(body, start, length=4)
        return unflatten(at.weights, like), finite

    made, finite = run(data, jax.random.key(0))
    assert finite.all()
    core = tree_of(results)
    kept = core.keys() - {"readin", "readout", "sessions", "decoders"}
    assert kept > {"generator", "controller", "inputs", "ic", "ic_prior", "encoder_forward"}
    for part in kept:
        for name, value in core[part].items():
            np.testing.assert_array_equal(made[part][name], value, err_msg=f"{part}.{name}")
    assert made["readin"]["w"].shape == (1, 2, 7)
    assert (made["readin"]["b"] != 0).all(), "trained from 0"
    assert data.stitched.alignment is None


@pytest.mark.parametrize(
    ("asked", "n"), [({"n_saved": 4}, {"trial": 8}), ({"save": 3}, {"trial": 6, "train_trial": 6})]
)
def test_coordinates_count_the_stored_trials_of_all_sessions(tmp_path, asked, n):
    inputs = inputs_of(Model(data=write_sessions(tmp_path), chop=CHOP, **STITCHED_SIZES, **asked))
    found = kernel.coordinates(inputs, load(inputs))
    assert {name: len(one.values) for name, one in found.items() if "trial" in name} == n


@pytest.mark.parametrize(
    "changes",
    [
        {"bin_s": np.array(0.02)},
        {"bin_s": None},
        {"bin_s": np.ones(3)},
        {"eval": np.zeros((0, N_BINS, 4)), "eval_rates": None},
        {"n_bins": 9},
        {"train_condition": None},
        {"train": np.ones((14, N_BINS, 4), int)},
        {"train_condition": np.arange(14) + 50},
        {"train_condition": np.ones(3)},
        {"train_external": np.ones((14, N_BINS, 1)), "eval_external": np.ones((5, N_BINS, 1))},
    ],
)  # fmt: skip
def test_sessions_that_do_not_go_together(tmp_path, changes):
    """One line, which names file and dataset."""
    files = write(tmp_path, a=session(6, 20), b=session(4, 14, seed=1, **changes))
    with refused(ValueError) as found:
        load(inputs_of(Model(data=files, **STITCHED_SIZES)))
    assert "\n" not in str(found.value)


def test_held_out_of_each(tmp_path):
    """A list for each file, which its posterior is told alone."""
    files = write(tmp_path, a=session(6, 20), b=session(4, 14, seed=1))
    params = Model(data=files, held_out_units=((0, 2), ()), **STITCHED_SIZES)
    found = load(inputs_of(params)).stitched
    alone = load(inputs_of(Model(data=files[0], held_out_units=(0, 2), **STITCHED_SIZES)))
    assert found.sessions[0].held_units.tolist() == alone.held_units.tolist() == [0, 2]
    shown = [[0, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 0]]
    np.testing.assert_array_equal(found.is_seen, shown)
    np.testing.assert_array_equal((found.alignment.read_in != 0).any(axis=1), shown)
    each = by_session(params.model_dump(), None, str)
    assert [one["held_out_units"] for one in each] == [(0, 2), ()]
    (only,) = by_session(params.model_dump(), files[1], str)
    assert only["held_out_units"] == ()
    (listed,) = by_session({"data": files[:1], "held_out_units": (0, 2)}, None, str)
    assert listed["held_out_units"] == (0, 2)
    # A file of other trials, of which only the user can say whose session's they are.
    (other,) = by_session(params.model_dump(), "other.npz", str)
    assert held_out_of_session({**other, "session": 1})["held_out_units"] == ()
    for wrong in (None, 2):
        with pytest.raises(ValueError, match="session: "):
            held_out_of_session({**other, "session": wrong})
    assert held_out_of_session({**other, "held_out_units": (4,)})["held_out_units"] == (4,)


def test_too_many_factors_for_the_conditions(tmp_path):
    files = write(tmp_path, a=session(6, 20), b=session(4, 14, seed=1))
    with refused(ValueError):
        load(inputs_of(Model(data=files, **STITCHED_SIZES | {"n_factors": 11})))


@pytest.mark.parametrize(
    "params",
    [
        {"data": []},
        {"data": ["a.h5", "b.h5"], "held_out_units": (1,)},
        {"data": "a.h5", "held_out_units": ((1,), ())},
        {"data": ["a.h5", "b.h5"], "held_out_units": ((), (2, 2))},
        {"data": ["a.nwb", "b.h5"], "bin_s": 0.1, "window": (0, 1)},
        {"core_model": "model.h5"},
    ],
)  # fmt: skip
def test_settings_of_sessions_refused(params):
    with refused(ValidationError):
        Model(**params)


def test_core_that_does_not_fit(trained, tmp_path):
    params, results = trained
    found = {
        k.removeprefix("weights."): v[0] for k, v in results.items() if k.startswith("weights.")
    }
    write_hdf5(tmp_path / "core.h5", found)
    core = {"core": str(tmp_path / "core.h5"), "data": params.data}
    with refused(ValueError):
        load(inputs_of(Model(**STITCHED | core | {"generator": 9})))
    with refused(ValueError):
        load(inputs_of(Model(**STITCHED | core | {"controller": 0})))
