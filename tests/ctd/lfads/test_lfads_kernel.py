"""Models in training behind the kernel contract: bookkeeping, outcomes, results, searches in between."""

import jax
import numpy as np
import pytest

from ctd.batch import Layout, Run, layout_for, program, run_items, traced_columns
from ctd.cells import check_params
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.lfads import Model, kernel
from ctd.lfads.data import make_dataset
from ctd.lfads.metrics import bits_per_spike
from ctd.lfads.results import kept
from ctd.lfads.trained import check_sizes, n_external

SIZES = {
    "encoder": 6,
    "controller": 5,
    "generator": 7,
    "n_factors": 3,
    "batch_size": 8,
    "n_batches": 150,
    "report_every": 60,
    "warm_up": 2,
    "kl_ramp": 50,
    "n_samples": 3,
    "n_metric": 9,
    "n_saved": 2,
    "held_out_units": (1,),
    "held_out_bins": 2,
}
LAYOUT = Layout(1, 1)
N_STEPS, N_UNITS = 8, 6


N_TRAIN, N_EVAL = 60, 20


def arrays():
    """Counts of one pattern over time, the same in all trials."""
    rng = np.random.default_rng(1)
    pattern = np.exp(np.outer(np.sin(np.arange(N_STEPS)), rng.uniform(-1.5, 1.5, N_UNITS)))
    rates = np.broadcast_to(pattern, (N_TRAIN + N_EVAL, N_STEPS, N_UNITS))
    counts = rng.poisson(rates)
    return {
        "train": counts[:N_TRAIN],
        "eval": counts[N_TRAIN:],
        "eval_rates": rates[N_TRAIN:],
        "eval_inputs": rng.standard_normal((N_EVAL, N_STEPS, 1)),
        "eval_initial_states": rng.standard_normal((N_EVAL, 3)),
        "train_behavior": rates[:N_TRAIN, :, :2],
        "eval_behavior": rates[N_TRAIN:, :, :2],
    }


def model(**changes):
    return Model(**SIZES | changes)


def train(params, columns=None, given=None):
    shared = make_dataset(arrays() if given is None else given, inputs_of(params))
    return run_items(kernel, params, columns, shared=shared, layout=LAYOUT)


def start(params):
    shared = make_dataset(arrays(), inputs_of(params))
    columns = {k: np.asarray(v)[None] for k, v in traced_of(params)._asdict().items()}
    traced = traced_columns(Model, columns, params.dtype)
    prog = program(kernel, static_of(params), LAYOUT)
    return Run(prog, shared, 0, np.arange(1), traced)


@pytest.fixture(scope="module")
def several():
    """Models that differ in what an item can differ in; row 1 diverges, row 2 stops early."""
    columns = {
        "learning_rate": [0.06, 1e30, 1e-12, 0.01],
        "patience": [0, 0, 1, 0],
        "dropout": [0.0, 0.1, 0.1, 0.4],
        "warm_up": [2, 0, 2, 2],
    }
    return train(model(), columns)


def test_results_are_all_there(several):
    """Shapes by axis; scalars of every metric that the data allow."""
    lengths = {"trial": 2, "time": N_STEPS, "unit": N_UNITS, "factor": 3, "state": 7, "batch": 3}
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
        "bits_per_spike", "cosmoothing_bits_per_spike", "forward_bits_per_spike", "rate_r2",
        "input_r2", "initial_state_r2", "behavior_r2", "eval_loss",
    ):  # fmt: skip
        assert np.isfinite(several[name][0]), name
    assert (several["rates"][0] > 0).all()


@pytest.mark.parametrize(
    ("given", "n_train", "n_eval"),
    [
        ({"n_saved": 9}, 0, 9),
        ({"n_saved": 900}, 0, N_EVAL),
        ({"save": "eval"}, 0, N_EVAL),
        ({"save": "all"}, N_TRAIN, N_EVAL),
        ({"save": 3}, 3, 3),
        ({"save": 0}, 0, 0),
    ],
)
def test_trials_are_kept(given, n_train, n_eval):
    """Of both splits, whatever number the metrics are of."""
    params = model(n_metric=4, **given)
    assert kept(params, make_dataset(arrays(), inputs_of(params))) == (n_train, n_eval)


@pytest.mark.parametrize("save", [0, 3])
def test_kept_trials_are_stored(save):
    """Shapes alone."""
    params = model(n_metric=4, save=save)
    shared = make_dataset(arrays(), inputs_of(params))
    traced = jax.tree.map(np.asarray, traced_of(params))
    _, found = program(kernel, static_of(params), LAYOUT).abstract(shared, traced)
    for name in ("rates", "factors", "inferred_inputs", "states", "initial_conditions"):
        for prefix in ("train_", ""):
            shape = found[prefix + name].shape if prefix + name in found else (0,)
            assert shape[0] == save, prefix + name
    assert found["rate_r2"].shape == ()


@pytest.mark.parametrize(
    ("likelihood", "outputs"),
    [("negative_binomial", 2), ("gamma", 2), ("zero_inflated_gamma", 3)],
)
def test_other_likelihoods(likelihood, outputs):
    """Sizes of the output layer; bits a spike where data are counts alone."""
    params = model(likelihood=likelihood, save="eval")
    given = {
        k: v + 0.5 if k in ("train", "eval") and "gamma" in likelihood else v
        for k, v in arrays().items()
    }
    shared = make_dataset(given, inputs_of(params))
    traced = jax.tree.map(np.asarray, traced_of(params))
    _, found = program(kernel, static_of(params), LAYOUT).abstract(shared, traced)
    assert found["model.output.w"].shape == (outputs * N_UNITS, 3)
    assert found["rates"].shape == (N_EVAL, N_STEPS, N_UNITS)
    assert ("bits_per_spike" in found) == ("co_bps" in found) == (likelihood == "negative_binomial")


def test_more_trials_than_there_are(tmp_path):
    write_hdf5(tmp_path / "spikes.h5", arrays())
    params = model(save=21, data=str(tmp_path / "spikes.h5"))
    with pytest.raises(
        ValueError, match=r"save: 21 trials .*spikes.h5 has 20 for evaluation; `save: all`"
    ):
        kernel.load(inputs_of(params))


def test_outcomes(several):
    """How each ended, in steps taken and in curves."""
    names = [kernel.outcomes[k].name for k in several["outcome"]]
    assert names == ["trained", "diverged", "stopped_early", "trained"]
    assert several["batches"][0] == 150
    assert several["batches"][1] < 60
    assert several["batches"][2] == 120
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
        ends = np.minimum(60 * np.arange(1, 4), 150)
        assert several["best_batch"][row] == ends[np.nanargmin(curve)]
    parts = sum(several[f"eval_{name}"][0] for name in ("nll", "kl_ic", "kl_input"))
    assert parts == pytest.approx(several["eval_loss"][0], rel=1e-6)


@pytest.fixture(scope="module")
def variant():
    """Neural ODEs without a controller, with a Gaussian likelihood, of which the rate falls on a plateau."""
    settings = {"n_batches": 24, "report_every": 2, "warm_up": 0, "kl_ramp": 0}
    settings |= {"schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 2}
    settings |= {"generator_cell": "node", "field_units": 8, "n_metric": N_EVAL}
    params = model(likelihood="gaussian", controller=0, **settings)
    # What true rates, states and behaviour are good for is seen of the others.
    used = ("train", "eval", "eval_inputs")
    given = {name: array for name, array in arrays().items() if name in used}
    return train(params, {"learning_rate": [0.01, 0.5]}, given)


def test_plateau_lowers_the_learning_rate(variant):
    """By the factor after every second evaluation in a row without a better one, as counted here."""
    found = variant
    for row, largest in enumerate((0.01, 0.5)):
        expected, best, stale, rate = [], np.inf, 0, largest
        for loss in found["curve.eval.loss"][row]:
            expected.append(rate)
            stale = 0 if loss < best else stale + 1
            best = min(best, loss)
            if stale and stale % 2 == 0:
                rate *= 0.5
        np.testing.assert_allclose(found["curve.train.learning_rate"][row], expected, rtol=1e-6)
    assert min(found["curve.train.learning_rate"][1]) <= 0.25, "two plateaus at a rate far too high"


def test_models_run_one_by_one_on_a_cpu():
    """Known, so that no run begins with measuring it."""
    assert kernel.candidates() == (1,)
    assert layout_for(kernel, 8) == Layout(8, 1)


def test_generator_is_a_network(several):
    weights = {
        name.removeprefix("weights."): value[0]
        for name, value in several.items()
        if name.startswith("weights.")
    }
    check_params("gru", weights, "generator")
    np.testing.assert_allclose(np.linalg.norm(weights["wO"], axis=1), 1, rtol=1e-5)


def test_neural_ode_is_a_network(variant):
    """Of the cell node, which tells its sizes to whoever applies the model."""
    weights = {
        k.removeprefix("weights."): v[0] for k, v in variant.items() if k.startswith("weights.")
    }
    check_params("node", weights, "generator")
    check_sizes(
        model(controller=0, generator_cell="node", field_units=8),
        {"generator": weights},
        "STORE::0",
    )
    assert n_external(model(controller=0), weights) == 0
    for given, said in (
        (
            {},
            "generator_cell: gru given, but the model of STORE::0 has node; write generator_cell: node",
        ),
        ({"generator_cell": "node"}, "field_units: 128 given, but the model of STORE::0 has 8"),
    ):
        with pytest.raises(ValueError, match=said):
            check_sizes(model(controller=0, **given), {"generator": weights}, "STORE::0")


def test_training_lowers_the_loss(several):
    """The model learns the pattern, not flat rates: of the units that the encoder sees, and of the one held out."""
    curve = several["curve.eval.loss"][0]
    assert curve[-1] < curve[0]
    assert several["rate_r2"][0] > 0.8
    counts, rates = arrays()["eval"][:9], arrays()["eval_rates"][:9].astype(np.float32)
    seen = np.arange(N_UNITS) != 1
    for name, units in (("bits_per_spike", seen), ("cosmoothing_bits_per_spike", ~seen)):
        where = slice(None), slice(0, N_STEPS - 2), units
        # The true rates are worth this many bits; noise of 60 trials costs a little.
        best = float(bits_per_spike(counts[where], rates[where]))
        assert several[name][0] > 0.8 * best, name


def test_learning_rate_changes_between_advances():
    """A search replaces traced values between two advances: the next block is trained with the new ones."""
    one, other = start(model()), start(model())
    for run in (one, other):
        run.advance()
    # Placed as the rate it replaces: JAX compiles the advance anew for an array that lies elsewhere.
    rate = other._put(np.full(1, 0.5, np.float32))
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
    assert variant["outcome"][0] == 0
    assert np.isfinite(variant["cycle_consistency"][0])
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
