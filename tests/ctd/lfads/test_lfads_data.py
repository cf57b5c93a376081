"""What LFADS says of data and of settings that cannot be right."""

import warnings

import numpy as np
import pytest
from messages import refused, warned
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
    ("given", "params"),
    [
        (arrays(train=with_entry(-1)), {}),
        (arrays(eval=with_entry(0.5)), {}),
        (arrays(train=with_entry(np.nan)), {}),
        (arrays(train=with_entry(2**32 - 1)), {}),
        (arrays(train=counts().astype(str)), {}),
        (arrays(train=None), {}),
        ({"spikes": counts()}, {}),
        (arrays(eval_condition=np.array(["left", "right", "left"])), {}),
        (arrays(train=counts()[0]), {}),
        (arrays(eval=counts(3, n_units=4)), {}),
        (arrays(eval=counts(3, n_steps=7)), {}),
        (arrays(eval_rates=counts(3, n_units=4)), {}),
        (arrays(eval_inputs=counts(3, 5, 1)), {}),
        (arrays(eval_initial_states=counts(3, 5, 1)), {}),
        (arrays(eval_initial_states=np.ones((99, 2))), {}),
        (arrays(eval=with_entry(-2)), {"likelihood": "negative_binomial"}),
        (arrays(), {"likelihood": "gamma"}),
        (arrays(train=with_entry(-0.5)), {"likelihood": "zero_inflated_gamma"}),
        (arrays(eval_rates=counts(9)), {}),
        (arrays(train_external=counts()), {}),
        (arrays(eval=counts(0)), {}),
        (arrays(), {"lag": 6}),
        (arrays(), {"lag": 4, "held_out_bins": 2}),
        (arrays(), {"held_out_units": (2, 7, 9)}),
        (arrays(), {"held_out_units": tuple(range(5))}),
        (arrays(), {"held_out_bins": 6}),
        (torch_arrays(), {"held_out_units": (1,)}),
        (torch_arrays(valid_encod_data=counts(3, n_steps=7)), {}),
        (torch_arrays(train_encod_data=with_entry(2)[:, :4]), {"lag": 5}),
    ],
)
def test_data_refused(given, params):
    """The message names the dataset or the field, what it has and what was expected."""
    with refused(ValueError):
        make_dataset(given, Model(**params), "spikes.h5")


def test_reversed_axes_of_matlab_are_told():
    with refused(ValueError):
        make_dataset(arrays(eval=counts()[..., :4]), Model(), "spikes.mat")


@pytest.mark.parametrize(
    "params",
    [
        {"n_batches": 500},
        {"n_batches": 5},
        {"l2_ramp": 9000},
        {"warm_up": 9000},
        {"held_out_units": (1, 1)},
        {"held_out_units": (-1,)},
        {"likelihood": "binomial"},
        {"dropout": 1.0},
    ],
)
def test_settings_refused(params):
    with refused(ValidationError):
        Model(**params)


def test_file_is_needed():
    with refused(ValueError):
        load(Model())


def test_file_lacks_trials(tmp_path):
    write_hdf5(tmp_path / "other.h5", {"weights": np.ones(3)})
    with refused(ValueError):
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
    with warned():
        dataset = make_dataset(arrays(train=train), Model())
    assert np.isfinite(dataset.bias).all()
    assert dataset.bias[2] == pytest.approx(np.log(0.5 / 24))


@pytest.mark.parametrize(
    "given",
    [
        arrays(conditions=np.arange(3)),
        torch_arrays(valid_truths=counts(3)),
        arrays(train=counts() * 100),
        arrays(train=counts() + 30),
        arrays(bin_s=np.array([[10.0]])),
        arrays(eval_rates=counts(3) * 100.0),
    ],
)  # fmt: skip
def test_what_a_file_has_probably_by_mistake_is_warned_of(given):
    with warned():
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
    with warned():
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
