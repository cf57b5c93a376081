"""What LFADS says of data and of settings that cannot be right."""

import warnings

import numpy as np
import pytest
from pydantic import ValidationError

from ctd.data import write_hdf5
from ctd.kernel import inputs_of
from ctd.lfads import Model, kernel
from ctd.lfads.data import make_dataset
from ctd.lfads.sessions import load

RNG = np.random.default_rng(0)


def counts(n=4, n_steps=6, n_units=5):
    return RNG.poisson(1.5, (n, n_steps, n_units)) + (np.arange(n) == 0)[:, None, None]


def arrays(**changes):
    found = {"train": counts(), "eval": counts(3)} | changes
    return {name: value for name, value in found.items() if value is not None}


def with_entry(value, at=(1, 2, 3)):
    array = counts().astype(float)
    array[at] = value
    return array


def torch_arrays(**changes):
    data = {
        f"{name}_{kind}": counts(n)[:, : 4 if kind == "encod_data" else 6]
        for name, n in (("train", 4), ("valid", 3))
        for kind in ("encod_data", "recon_data")
    }
    return data | changes


@pytest.mark.parametrize(
    ("given", "params", "said"),
    [
        (arrays(train=with_entry(-1)), {}, r"train holds -1.0 at \(1, 2, 3\).*counts 0, 1, 2"),
        (arrays(eval=with_entry(0.5)), {}, r"eval holds 0.5 at \(1, 2, 3\).*likelihood: gaussian"),
        (
            arrays(train=with_entry(np.nan)),
            {},
            r"train has 1 NaN or infinite entries, the first at",
        ),
        (arrays(train=with_entry(2**32 - 1)), {}, r"holds 4294967295.0 at .* up to 16,777,216"),
        (arrays(train=counts().astype(str)), {}, "train has the type <U.*; real numbers expected"),
        (arrays(train=None), {}, r"lacks train, \(trial, time, unit\); found eval$"),
        (
            {"spikes": counts()},
            {},
            r"lacks train and eval, .*; found spikes; name the trials .* numpy\.save\(.* every fifth trial",
        ),
        (
            arrays(eval_condition=np.array(["left", "right", "left"])),
            {},
            r"eval_condition has the type <U5; .*; numpy\.unique\(labels, return_inverse=True\)\[1\]",
        ),
        (arrays(train=counts()[0]), {}, r"train has the shape \(6, 5\); \(trial, time, ...\)"),
        (arrays(eval=counts(3, n_units=4)), {}, r"train has .* \(6, 5\), but eval has \(6, 4\)"),
        (arrays(eval=counts(3, n_steps=7)), {}, r"\(6, 5\), but eval has \(7, 5\)"),
        (arrays(eval_rates=counts(3, n_units=4)), {}, "eval_rates has 4 units, but eval has 5"),
        (arrays(eval_inputs=counts(3, 5, 1)), {}, "eval_inputs has 5 time bins, but eval has 6"),
        (
            arrays(eval_initial_states=counts(3, 5, 1)),
            {},
            r"\(3, 5, 1\); \(trial, state\) expected",
        ),
        (
            arrays(eval_initial_states=np.ones((99, 2))),
            {},
            "eval_initial_states has 99 trials, but",
        ),
        (
            arrays(eval=with_entry(-2)),
            {"likelihood": "negative_binomial"},
            r"eval holds -2.* negative binomial likelihood needs counts",
        ),
        (
            arrays(),
            {"likelihood": "gamma"},
            r"train holds 0 at .* gamma likelihood needs positive numbers",
        ),
        (
            arrays(train=with_entry(-0.5)),
            {"likelihood": "zero_inflated_gamma"},
            r"train holds -0.5 at \(1, 2, 3\), but a zero-inflated gamma",
        ),
        (arrays(eval_rates=counts(9)), {}, "eval_rates has 9 trials, but eval has 3"),
        (arrays(train_external=counts()), {}, "train_external is there, but .* is missing"),
        (arrays(eval=counts(0)), {}, "it is empty"),
        (arrays(), {"lag": 6}, "lag: 6 bins .* show 6 to the encoder"),
        (arrays(), {"lag": 4, "held_out_bins": 2}, "lag: 4 bins .* show 4"),
        (arrays(), {"held_out_units": (2, 7, 9)}, "held_out_units: 7, 9 do not exist.* 0 to 4"),
        (arrays(), {"held_out_units": tuple(range(5))}, "all 5 units .* are held out"),
        (arrays(), {"held_out_bins": 6}, "6 of 6 bins"),
        (torch_arrays(), {"held_out_units": (1,)}, "already says what is held out"),
        (
            torch_arrays(valid_encod_data=counts(3, n_steps=7)),
            {},
            "valid_encod_data has the shape .* more than valid_recon_data",
        ),
        (torch_arrays(train_encod_data=with_entry(2)[:, :4]), {"lag": 5}, "lag: 5 bins"),
    ],
)
def test_data_refused(given, params, said):
    """The message names the dataset or the field, what it has and what was expected."""
    with pytest.raises(ValueError, match=said):
        make_dataset(given, Model(**params), "spikes.h5")


def test_reversed_axes_of_matlab_are_told():
    with pytest.raises(ValueError, match=r"axes reversed: save them as \(unit, time, trial\)$"):
        make_dataset(arrays(eval=counts()[..., :4]), Model(), "spikes.mat")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"n_batches": 500},
            "kl_ramp: 1000 steps are longer than training, n_batches = 500; add to params kl_ramp: 250, or",
        ),
        (
            {"n_batches": 5},
            "kl_ramp: 1000, warm_up: 100 steps .* add to params kl_ramp: 2, warm_up: 2",
        ),
        ({"l2_ramp": 9000}, "l2_ramp: 9000 steps"),
        ({"warm_up": 9000}, "warm_up: 9000 steps"),
        ({"held_out_units": (1, 1)}, "give each unit once"),
        ({"held_out_units": (-1,)}, "by its number 0, 1"),
        ({"likelihood": "binomial"}, "likelihood"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_settings_refused(params, said):
    with pytest.raises(ValidationError, match=said):
        Model(**params)


def test_file_is_needed():
    with pytest.raises(ValueError, match="data: the file of the trials is needed: HDF5"):
        load(Model())


def test_file_lacks_trials(tmp_path):
    write_hdf5(tmp_path / "other.h5", {"weights": np.ones(3)})
    with pytest.raises(ValueError, match=r"other\.h5: lacks .*train.*found weights"):
        load(Model(data=str(tmp_path / "other.h5")))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1)])
@pytest.mark.parametrize("ending", ["npz", "mat"])
def test_conditions_are_a_vector_as_matlab_saves_it(tmp_path, shape, ending):
    path, given = tmp_path / f"spikes.{ending}", np.array([30, 10, 30]).reshape(shape)
    made = arrays(eval_condition=given)
    np.savez(path, **made) if ending == "npz" else write_hdf5(path, made)
    found = load(Model(data=str(path)))
    assert found.conditions.tolist() == [10, 30]
    assert found.evaluation.condition.tolist() == [[False, True], [True, False], [False, True]]


def test_silent_units_are_warned_of_and_kept():
    train = counts()
    train[..., 2] = 0
    with pytest.warns(UserWarning, match="1 unit without a spike in training: 2"):
        dataset = make_dataset(arrays(train=train), Model())
    assert np.isfinite(dataset.bias).all()
    assert dataset.bias[2] == pytest.approx(np.log(0.5 / 24))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (arrays(conditions=np.arange(3)), r"spikes\.h5: not used: conditions; did you mean 'eval_condition'\?$"),
        (torch_arrays(valid_truths=counts(3)), "not used: valid_truths; did you mean 'valid_truth'"),
        (arrays(train=counts() * 100), r"spikes.h5: the counts are multiples of \d+00: .*; multiply rates a second by the width"),
        (arrays(train=counts() + 30), "spikes.h5: the counts have the mean 3.*; multiply"),
        (arrays(bin_s=np.array([[10.0]])), "spikes.h5: bin_s: 10 s is long for a bin"),
        (arrays(eval_rates=counts(3) * 100.0), "spikes.h5: eval_rates has the mean .*, the counts .*: it should be expected counts a bin; multiply"),
    ],
)  # fmt: skip
def test_what_a_file_has_probably_by_mistake_is_warned_of(given, said):
    with pytest.warns(UserWarning, match=said):
        make_dataset(given, Model(), "spikes.h5")


def test_other_datasets_are_named():
    """Nothing is said of a name whose like is there, and `bin_s` is used."""
    given = arrays(subject=np.ones(()), eval_condition=np.arange(3), conditions=np.arange(3))
    assert list(make_dataset(given | {"bin_s": np.ones(())}, Model()).unused) == [
        "conditions",
        "subject",
    ]


def test_minibatches_of_more_trials_than_there_are(tmp_path):
    np.savez(tmp_path / "few.npz", **arrays())
    few = Model(data=str(tmp_path / "few.npz"), batch_size=5)
    with pytest.warns(UserWarning, match="batch_size: 5, but there are 4 trials for training: .*"):
        kernel.load(inputs_of(few))


def test_counts_take_few_bytes():
    dataset = make_dataset(arrays(), Model())
    assert dataset.train.data.dtype == np.uint8
    train = counts()
    train[0, 0, 0] = 300
    large = make_dataset(arrays(train=train), Model())
    assert large.train.data.dtype == np.int32
    assert len(large.log_factorial) == 512 > large.train.data.max()
    # Its length is part of the program, which sets of data of equal shapes share.
    assert len(dataset.log_factorial) == len(
        make_dataset(arrays(train=counts() + 9), Model()).log_factorial
    )


def test_encoded_data_of_its_own():
    """What the encoder sees may be other than counts (smoothed, say); a part of them is not copied."""
    whole = {f"{n}_recon_data": counts(k) for n, k in (("train", 4), ("valid", 3))}
    part = {f"{n}_encod_data": whole[f"{n}_recon_data"][:, :4, :3] for n in ("train", "valid")}
    dataset = make_dataset(whole | part, Model())
    assert dataset.train.encoded is None
    assert (list(dataset.seen_units), list(dataset.seen_bins)) == ([0, 1, 2], [0, 1, 2, 3])
    assert list(dataset.held_units) == [3, 4]
    smooth = {name: value + 0.5 for name, value in part.items()}
    assert make_dataset(whole | smooth, Model()).train.encoded.shape == (4, 4, 3)


def test_gaussian_takes_reals():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = make_dataset(arrays(train=with_entry(-0.5)), Model(likelihood="gaussian"))
    assert dataset.log_factorial is None
    assert dataset.bias.shape == (10,)
