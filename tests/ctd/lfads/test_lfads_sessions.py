"""Several sessions under one generator: each is a model of its own, padding counts for nothing, the core stays fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from ctd.batch import Layout, Run, program, run_items, traced_columns
from ctd.data import write_hdf5
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.lfads import Model, kernel
from ctd.lfads.adapters import of_session, of_trials, real_entries
from ctd.lfads.loss import Minibatch, bound, draw_noise, gather, training_loss
from ctd.lfads.sessions import load

SIZES = {
    "encoder": 4, "controller": 3, "generator": 5, "n_factors": 2, "batch_size": 6, "n_batches": 4,
    "report_every": 4, "warm_up": 2, "kl_ramp": 2, "n_samples": 2, "n_metric": 9, "n_saved": 2,
    "coordinated_dropout": 0.2,
}  # fmt: skip
N_BINS, UNITS, TRIALS = 8, (6, 4), (20, 14)


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
    """(parameters, results) of a model of two sessions."""
    folder = tmp_path_factory.mktemp("sessions")
    parts = [session(*shape, seed) for seed, shape in enumerate(zip(UNITS, TRIALS, strict=True))]
    params = Model(data=write(folder, a=parts[0], b=parts[1]), **SIZES)
    return params, run_items(kernel, params, layout=Layout(1, 1))


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


def test_the_nll_of_an_entry_is_of_the_sessions_own_units(trained):
    """With `penalties: entry` a trial of 4 units weighs as much as one of 6: its nll is the mean over its own entries."""
    params, results = trained
    none = {"coordinated_dropout": 0.0, "dropout": 0.0, "kl_ic": 0.0, "kl_input": 0.0}
    none |= {"l2_generator": 0.0, "l2_controller": 0.0}
    model = params.model_copy(update={"penalties": "entry", **none})

    @jax.jit
    def terms(dataset, weights, key):
        batch = gather(model, dataset, dataset.train, np.array([3, 20, 1, 33, 22, 19]))
        given = Minibatch(batch, key), jnp.zeros(())
        loss, _ = training_loss(static_of(model), traced_of(model), dataset, weights, *given)
        noise = draw_noise(model, jax.random.split(key)[0], batch)
        real, own = real_entries(dataset, batch.session), of_trials(dataset, weights, batch.session)
        return loss, bound(model, own, 1e-4, batch, noise, real)["nll"], batch.session

    loss, nll, session = terms(load(inputs_of(model)), tree_of(results), jax.random.key(0))
    entries = N_BINS * np.array(UNITS)[np.asarray(session)]
    assert set(entries) == {48, 32}
    # float32 sums, in another order.
    assert float(loss) / (N_BINS * 6) == pytest.approx(np.mean(np.asarray(nll) / entries), rel=1e-5)


def test_each_session_is_a_model_of_its_own(trained):
    """A mixed minibatch gives each trial the terms that its session's own model and data give it."""
    params, results = trained
    data = load(inputs_of(params))

    @jax.jit
    def terms(dataset, weights, key):
        batch = gather(params, dataset, dataset.train, np.array([3, 20, 1, 33, 22, 19]))
        noise = draw_noise(params, key, batch)
        real = real_entries(dataset, batch.session)
        mixed = bound(params, of_trials(dataset, weights, batch.session), 1e-4, batch, noise, real)
        each = []
        for k, one in enumerate(dataset.stitched.sessions):
            own = of_session(weights, k, UNITS[k], one.seen_units)
            index = np.array([3, 0, 1, 13, 2, 19]) % TRIALS[k]
            each.append(bound(params, own, 1e-4, gather(params, one, one.train, index), noise))
        return batch.session, mixed, each

    session, mixed, each = terms(data, tree_of(results), jax.random.key(0))
    for k, alone in enumerate(each):
        mine = np.asarray(session) == k
        for name, value in mixed.items():
            # Sums of 50 float32 terms, in another order.
            np.testing.assert_allclose(value[mine], alone[name][mine], rtol=2e-5, err_msg=name)


def test_padding_is_not_trained(trained):
    """Padded columns start at 0 (conditions) and stay; what is stored of units that are not there is NaN."""
    _, results = trained
    assert results["model.sessions.n_units"].tolist() == [list(UNITS)]
    for name in ("readin.w", "readout.w"):
        w = results[f"model.{name}"][0]
        padded = w[1, :, UNITS[1] :] if name == "readin.w" else w[1, :, UNITS[1] :, :]
        assert (padded == 0).all(), name
        assert (w[0] != 0).all(), name
    assert results["trial_session"].tolist() == [[0, 0, 1, 1]]
    assert np.isnan(results["rates"][0, 2:, :, UNITS[1] :]).all()
    assert np.isfinite(results["rates"][0, :2]).all()
    assert np.isfinite(results["rate_r2"]).all()


def test_read_ins_of_conditions_agree_over_sessions(tmp_path):
    """Condition averages of both sessions, read in, are the components of all units, as NumPy finds them."""
    arrays = [session(units, 500, seed) for seed, units in enumerate((12, 9))]
    files = write(tmp_path, a=arrays[0], b=arrays[1])
    found = load(inputs_of(Model(data=files, **SIZES))).stitched.alignment
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
    params = Model(data=new, **SIZES | cores | {"n_saved": 0})
    before = load(inputs_of(params))
    columns = {k: np.asarray(v)[None] for k, v in traced_of(params)._asdict().items()}
    traced = traced_columns(Model, columns, params.dtype)
    run = Run(program(kernel, static_of(params), Layout(1, 1)), before, 0, np.arange(1), traced)
    run.step()
    made = run.peek(tuple(k for k in run.results if k.startswith(("weights.", "model."))))[1]
    for name, value in results.items():
        if (name.startswith("weights.") and name != "weights.bO") or name.startswith("model.enc"):
            # Rows of norm 1 are normalised again, which may round them once more.
            loose = 2e-7 if name == "weights.wO" else 0
            np.testing.assert_allclose(made[name], value, rtol=loose, err_msg=name)
    for part in ("ic", "controller", "inputs", "ic_prior"):
        for name in (n for n in results if n.startswith(f"model.{part}.")):
            assert made[name].tobytes() == results[name].tobytes(), name
    assert made["model.readin.w"].shape == (1, 1, 2, 7)
    assert (made["model.readin.b"] != 0).all(), "trained from 0"
    assert before.stitched.alignment is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bin_s": np.array(0.02)}, "b.h5: bin_s: 0.02, but .*a.h5 has 0.01; .* bin them alike"),
        ({"bin_s": None}, "b.h5: bin_s: None, but"),
        ({"bin_s": np.ones(3)}, r"b.h5: bin_s has the shape \(3,\)"),
        ({"eval": np.zeros((0, N_BINS, 4)), "eval_rates": None}, "b.h5: eval has the shape .* it is empty"),
        ({"n_bins": 9}, "b.h5: train: time bins: 9, but .*a.h5 has 8; .*`chop`"),
        ({"train_condition": None}, "b.h5: lacks train_condition, which .*a.h5 has"),
        ({"train_condition": np.arange(14) + 50}, "no condition is in all sessions"),
        ({"train_condition": np.ones(3)}, "b.h5: train_condition has 3 trials, but train has 14"),
        (
            {"train_external": np.ones((14, N_BINS, 1)), "eval_external": np.ones((5, N_BINS, 1))},
            "b.h5: train_external: inputs: 1, but .*a.h5 has 0",
        ),
    ],
)  # fmt: skip
def test_sessions_that_do_not_go_together(tmp_path, changes, said):
    """One line, which names file and dataset."""
    files = write(tmp_path, a=session(6, 20), b=session(4, 14, seed=1, **changes))
    with pytest.raises(ValueError, match=said) as found:
        load(inputs_of(Model(data=files, **SIZES)))
    assert "\n" not in str(found.value)


def test_too_many_factors_for_the_conditions(tmp_path):
    files = write(tmp_path, a=session(6, 20), b=session(4, 14, seed=1))
    with pytest.raises(ValueError, match="n_factors: 11 components of condition averages"):
        load(inputs_of(Model(data=files, **SIZES | {"n_factors": 11})))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"data": []}, "data"),
        ({"data": ["a.h5", "b.h5"], "held_out_units": (1,)}, "held_out_units: sessions have units of"),
        ({"data": ["a.nwb", "b.h5"], "bin_s": 0.1, "window": (0, 1)}, "but b.h5 holds trials"),
        ({"core_model": "model.h5"}, "core_model: goes with core"),
    ],
)  # fmt: skip
def test_settings_of_sessions_refused(params, said):
    with pytest.raises(ValidationError, match=said):
        Model(**params)


def test_core_that_does_not_fit(trained, tmp_path):
    params, results = trained
    found = {
        k.removeprefix("weights."): v[0] for k, v in results.items() if k.startswith("weights.")
    }
    write_hdf5(tmp_path / "core.h5", found)
    core = {"core": str(tmp_path / "core.h5"), "data": params.data}
    with pytest.raises(ValueError, match=r"generator: 9 given, but the model of .*core.h5 has 5"):
        load(inputs_of(Model(**SIZES | core | {"generator": 9})))
    with pytest.raises(ValueError, match=r"0 external inputs, but the core .* was trained with 1"):
        load(inputs_of(Model(**SIZES | core | {"controller": 0})))
