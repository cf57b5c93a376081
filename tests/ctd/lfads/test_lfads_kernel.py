"""Models in training behind the kernel contract: bookkeeping, outcomes, results, searches in between."""

import jax
import numpy as np
import pytest
from lfads_cases import LAYOUT, N_EVAL, N_STEPS, N_TRAIN, N_UNITS, arrays, model
from messages import refused

from ctd.batch import Layout, Run, evaluated, layout_for, program, run_items, traced_columns
from ctd.cells import check_params
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.lfads import Model, kernel
from ctd.lfads.data import make_dataset
from ctd.lfads.metrics import bits_per_spike
from ctd.lfads.results import count_stored
from ctd.lfads.summary import reduce
from ctd.lfads.trained import check_sizes, n_external
from ctd.rows import Best


def abstract(params, given=None):
    """Name -> shape and dtype of each result: nothing is compiled."""
    shared = make_dataset(arrays() if given is None else given, inputs_of(params))
    traced = jax.tree.map(np.asarray, traced_of(params))
    return evaluated(kernel, static_of(params), shared, traced).results


def start(params):
    shared = make_dataset(arrays(), inputs_of(params))
    columns = {k: np.asarray(v)[None] for k, v in traced_of(params)._asdict().items()}
    traced = traced_columns(Model, columns, params.dtype)
    prog = program(kernel, static_of(params), LAYOUT)
    return Run(prog, shared, 0, np.arange(1), traced)


@pytest.fixture(scope="module")
def several():
    """Models that differ in what an item can differ in; row 1 diverges, row 2 stops early, after two plateaus."""
    columns = {
        "learning_rate": [0.06, 1e30, 1e-12, 0.01],
        "patience": [0, 0, 5, 0],
        "dropout": [0.0, 0.1, 0.1, 0.4],
        "warm_up": [2, 0, 0, 0],
    }
    params = model()
    shared = make_dataset(arrays(), inputs_of(params))
    return run_items(kernel, params, columns, shared=shared, layout=LAYOUT)


def test_results_are_all_there(several):
    """Shapes by axis; scalars of every metric that the data allow."""
    lengths = {
        "trial": N_EVAL,
        "time": N_STEPS,
        "unit": N_UNITS,
        "factor": 3,
        "state": 7,
        "batch": 10,
    }
    for name, axes in (
        ("rates", ("trial", "time", "unit")),
        ("factors", ("trial", "time", "factor")),
        ("states", ("trial", "time", "state")),
        ("initial_conditions", ("trial", "state")),
        ("curve.eval.loss", ("batch",)),
    ):
        assert kernel.dims[name].axes == axes
        assert several[name].shape == (4, *(lengths[axis] for axis in axes))
    for name in (
        "bits_per_spike", "co_bps", "fp_bps", "rate_r2",
        "input_r2", "initial_state_r2", "behavior_r2", "eval_loss",
    ):  # fmt: skip
        assert np.isfinite(several[name][0]), name
    assert (several["rates"][0] > 0).all()


@pytest.mark.parametrize(
    ("given", "n_train", "n_eval"),
    [
        ({"save": None, "n_saved": 9}, 0, 9),
        ({"save": None, "n_saved": 900}, 0, N_EVAL),
        ({"save": "eval"}, 0, N_EVAL),
        ({"save": "all"}, N_TRAIN, N_EVAL),
        ({"save": 3}, 3, 3),
        ({"save": 0}, 0, 0),
    ],
)
def test_trials_are_kept(given, n_train, n_eval):
    """Of both splits, whatever number the metrics are of."""
    params = model(n_metric=4, **given)
    assert count_stored(params, make_dataset(arrays(), inputs_of(params))) == (n_train, n_eval)


@pytest.mark.parametrize(
    ("likelihood", "outputs", "save"),
    [("negative_binomial", 2, 3), ("zero_inflated_gamma", 3, 0)],
)
def test_other_likelihoods_and_kept_trials(likelihood, outputs, save):
    """Shapes alone: the output layer, the trials that are stored, bits a spike where data are counts."""
    given = {
        k: v + 0.5 if k in ("train", "eval") and "gamma" in likelihood else v
        for k, v in arrays().items()
    }
    found = abstract(model(likelihood=likelihood, n_metric=4, save=save), given)
    assert found["model.output.w"].shape == (outputs * N_UNITS, 3)
    for name in ("rates", "factors", "inferred_inputs", "states", "initial_conditions"):
        for prefix in ("train_", ""):
            shape = found[prefix + name].shape if prefix + name in found else (0,)
            assert shape[0] == save, prefix + name
    if save:
        assert found["rates"].shape == (save, N_STEPS, N_UNITS)
    assert found["rate_r2"].shape == ()
    assert ("bits_per_spike" in found) == ("co_bps" in found) == (likelihood == "negative_binomial")


def test_more_trials_than_there_are(tmp_path):
    write_hdf5(tmp_path / "spikes.h5", arrays())
    params = model(save=21, data=str(tmp_path / "spikes.h5"))
    with refused(ValueError):
        kernel.load(inputs_of(params))


def test_outcomes(several):
    """How each ended, in steps taken and in curves."""
    names = [kernel.outcomes[k].name for k in several["outcome"]]
    assert names == ["trained", "diverged", "stopped_early", "trained"]
    assert several["batches"][0] == 150
    assert several["batches"][1] < 15
    assert several["batches"][2] == 90
    assert np.isfinite(several["curve.eval.loss"][0]).all()
    assert np.isnan(several["curve.eval.loss"][2][-1])
    # The one that diverged did so before any evaluation: it keeps its first weights.
    assert np.isnan(several["eval_loss"][1])
    for name in ("weights.wRUHX", "rates"):
        assert np.isfinite(several[name][1]).all(), name


def test_best_parameters_are_kept(several):
    """What is reported is the best evaluation on the curve, on the same draws."""
    for row in (0, 2, 3):
        curve = several["curve.eval.loss"][row]
        assert several["eval_loss"][row] == np.nanmin(curve)
        ends = 15 * np.arange(1, 11)
        assert several["best_batch"][row] == ends[np.nanargmin(curve)]
    parts = sum(several[f"eval_{name}"][0] for name in ("nll", "kl_ic", "kl_input"))
    assert parts == pytest.approx(several["eval_loss"][0], rel=1e-6)


def test_states_as_factors():
    """`readout: states` starts from, and stores, a readout of the states themselves.

    That nothing else is read out, nor trained: `ode, no controller` in tests/ctd/lfads/test_lfads_forward.py.
    """
    run = start(model(controller=0, n_factors=7, readout="states"))
    np.testing.assert_array_equal(run.peek(("weights.wO",))[1]["weights.wO"][0], np.eye(7))
    assert run.results["model.output.w"].shape == (1, N_UNITS, 7)
    with refused(ValueError):
        model(readout="states")


def test_last_parameters_rank():
    """What is reported with `criterion: last`: tests/ctd/lfads/test_lfads_sessions.py."""
    params = model(criterion="last", schedule="exponential")
    results = {"outcome": np.zeros(2, int), "eval_loss": np.array([2.0, 1.0])}
    results |= {"eval_nll": np.ones(2), "curve.eval.loss": np.ones((2, 10))}
    found = reduce(params, None, {"item": np.arange(2)}, results, Best())
    assert found["item"].tolist() == [1, 0]
    with refused(ValueError):
        model(criterion="last")


def test_ranks_by_held_out_units():
    """Beside those by the loss, of all models that did not diverge; one without a value is the last."""
    results = {name: np.array([1.0, 2.0, 3.0, 4.0, 5.0]) for name in ("eval_loss", "eval_nll")}
    results |= {"outcome": np.array([0, 2, 0, 0, 0]), "curve.eval.loss": np.ones((5, 2))}
    results["co_bps"] = np.array([0.1, 0.9, np.nan, 0.3, 0.2])
    found = reduce(model(), None, {"item": np.arange(5)}, results, Best(n_best=3))
    assert found["item"].tolist() == [0, 2, 3]
    assert found["co_bps_rank"].tolist() == [2, 3, 0]


def test_tables_of_best_models_have_the_units_of_the_results():
    """Bits of spikes are bits there, too."""
    both = kernel.tables.dims.keys() & kernel.dims.keys()
    assert "bits_per_spike" in both
    for name in both:
        assert kernel.tables.dims[name].units == kernel.dims[name].units, name


def test_plateau_lowers_the_learning_rate(several):
    """By the factor after every second evaluation in a row without a better one, as counted here; without warm-up."""
    for row, largest in ((2, 1e-12), (3, 0.01)):
        expected, best, stale, rate = [], np.inf, 0, largest
        for loss in several["curve.eval.loss"][row]:
            expected.append(rate if np.isfinite(loss) else np.nan)
            stale = 0 if loss < best else stale + 1
            best = min(best, loss)
            if stale and stale % 2 == 0:
                rate *= 0.5
        np.testing.assert_allclose(several["curve.train.learning_rate"][row], expected, rtol=1e-6)
    assert np.nanmin(several["curve.train.learning_rate"][2]) == pytest.approx(0.25e-12), (
        "two plateaus of a model that does not move"
    )


def test_models_run_one_by_one_on_a_cpu():
    """Known, so that no run begins with measuring it."""
    assert kernel.batching.candidates() == (1,)
    assert layout_for(kernel, 8) == Layout(8, 1)


def test_generator_is_a_network(several):
    weights = {
        name.removeprefix("weights."): value[0]
        for name, value in several.items()
        if name.startswith("weights.")
    }
    check_params("gru", weights, "generator")
    np.testing.assert_allclose(np.linalg.norm(weights["wO"], axis=1), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def variant():
    """Results, as shapes, of neural ODEs without a controller, with a Gaussian likelihood.

    What they compute: tests/ctd/lfads/test_lfads_forward.py.
    """
    params = model(likelihood="gaussian", controller=0, generator_cell="node", field_units=8)
    return abstract(params)


def test_neural_ode_is_a_network(variant):
    """Of the cell node, which tells its sizes to whoever applies the model."""
    weights = {
        name.removeprefix("weights."): np.zeros(value.shape, value.dtype)
        for name, value in variant.items()
        if name.startswith("weights.")
    }
    check_params("node", weights, "generator")
    check_sizes(
        model(controller=0, generator_cell="node", field_units=8),
        {"generator": weights},
        "STORE::0",
    )
    assert n_external(model(controller=0), weights) == 0
    for given in (
        {},
        {"generator_cell": "node"},
    ):
        with refused(ValueError):
            check_sizes(model(controller=0, **given), {"generator": weights}, "STORE::0")


def test_training_lowers_the_loss(several):
    """The model learns the pattern, not flat rates: of the units that the encoder sees, and of the one held out."""
    curve = several["curve.eval.loss"][0]
    assert curve[-1] < curve[0]
    assert several["rate_r2"][0] > 0.8
    counts, rates = arrays()["eval"][:9], arrays()["eval_rates"][:9].astype(np.float32)
    seen = np.arange(N_UNITS) != 1
    for name, units in (("bits_per_spike", seen), ("co_bps", ~seen)):
        where = slice(None), slice(0, N_STEPS - 2), units
        # The true rates are worth this many bits; noise of 60 trials costs a little.
        best = float(jax.jit(bits_per_spike)(counts[where], rates[where]))
        assert several[name][0] > 0.8 * best, name


def test_learning_rate_changes_between_advances():
    """A search replaces traced values between two advances: the next block is trained with the new ones."""
    one, other = start(model()), start(model())
    for run in (one, other):
        run.advance()
    # Placed as the rate it replaces: JAX compiles the advance anew for an array that lies elsewhere.
    rate = other._send(np.full(1, 0.5, np.float32))
    traced = other._slots.traced._replace(learning_rate=rate)
    other._slots = other._slots._replace(traced=traced)
    for run in (one, other):
        run.advance()
    a, b = (
        jax.tree.map(np.asarray, run._slots.state.curves["train.nll"][0]) for run in (one, other)
    )
    assert a[0] == b[0]
    assert a[1] != b[1]


def test_variant_without_controller(variant):
    """And with a Gaussian likelihood: what does not apply is not among the results."""
    assert {"cycle_consistency", "rate_r2", "behavior_r2"} < set(variant)
    assert not {"inferred_inputs", "input_r2", "bits_per_spike"} & set(variant)


def test_file_of_either_layout(tmp_path):
    """The same trials under the names of lfads-torch are the same data, to the bit: nothing else enters a model."""
    own, held = arrays(), N_UNITS - 1
    names = {name: name for name in ("inputs", "initial_states", "behavior")} | {"rates": "truth"}
    torch = {
        f"{role.replace('eval', 'valid')}_{names[field]}": array
        for name, array in own.items()
        for role, _, field in [name.partition("_")]
        if field
    }
    for role, name in (("train", "train"), ("eval", "valid")):
        torch[f"{name}_recon_data"] = own[role].astype(np.float32)
        torch[f"{name}_encod_data"] = own[role][:, :-2, :held].astype(np.float32)
    write_hdf5(tmp_path / "own.h5", own)
    write_hdf5(tmp_path / "torch.h5", torch)
    a, b = (
        kernel.load(inputs_of(model(data=str(tmp_path / file), **held_out)))
        for file, held_out in (
            ("own.h5", {"held_out_units": (held,)}),
            ("torch.h5", {"held_out_units": (), "held_out_bins": 0}),
        )
    )
    assert a.held_units.tolist() == [held]
    assert len(a.seen_bins) == N_STEPS - 2
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, one), other in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == other.dtype, path
        assert one.tobytes() == other.tobytes(), path
