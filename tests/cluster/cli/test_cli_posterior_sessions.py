"""`ctd posterior` of stitched models, a file for each session, and of chopped recordings, merged."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from lfads_cases import N_BINS, STARTS, STITCHED, UNITS, write_sessions
from messages import usage_error

from cluster import Job
from ctd.data import write_hdf5
from jobs import Store

# One model, whose program takes ten seconds to compile. Always: posteriors by the command (test_cli_posterior.py), models of
# sessions (tests/ctd/lfads/test_lfads_sessions.py), windows (test_lfads_chop.py).
pytestmark = pytest.mark.endurance

ONE_PROGRAM = {"slots": 1, "microbatch": 1}
"""The layout that a plan measures with, so that the run compiles nothing further."""
ONE = ("--set", f"run={json.dumps(ONE_PROGRAM)}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store of one stitched model of two chopped recordings, which keeps all windows."""
    folder = tmp_path_factory.mktemp("trained")
    write_sessions(folder)
    (folder / "again.h5").symlink_to(folder / "b.h5")
    write_hdf5(folder / "six.h5", {"train": np.ones((9, 6)), "eval": np.ones((9, 6))})
    params = STITCHED | {"data": ["a.h5", "b.h5"]}
    job = Job("lfads", name="train", seed=7, base=str(folder), params=params, run=ONE_PROGRAM)
    job.run(executor="serial")
    return folder / "train.zarr"


def check_rates(path, kept, k):
    """Where windows of session k do not overlap, rates have the bits that the training store kept of these windows."""
    units = UNITS[k]
    with h5py.File(path) as file:
        w, b = file["decoder_w"][:], file["decoder_b"][:]
        assert len(b) == 2 - k, "channels of the session"
        assert (w == kept["model.decoders.w"][k, : len(b)]).all()
        # Of merged windows as of windows: their weights sum to 1.
        decoded, factors = file["train_decoded_behavior"][:], file["train_factors"][:]
        np.testing.assert_allclose(decoded, factors @ w.T + b, rtol=0, atol=1e-4)
        for split, word in (("train_", "train"), ("", "valid")):
            rates, start = file[f"{word}_output_params"][:], file[f"{word}_window_start"][:]
            assert rates.shape == (N_BINS, units)
            assert file[f"{word}_ic_mean"].shape == (len(start), 5)
            mine = kept[f"{split}rates"][kept[f"{split}trial_session"] == k]
            assert np.isnan(mine[..., units:]).all()
            assert start.tolist() == STARTS
            for window, s in zip(mine[:4, 2:4, :units], start[:4], strict=True):
                assert rates[s + 2 : s + 4].tobytes() == window.tobytes()


@pytest.fixture(scope="module")
def kept(trained):
    """Results of the model, by name."""
    store = Store.open(str(trained))
    found = {name: store.rows(0, name, 0, 1)[0] for name in store.names(0)}
    assert found["model.sessions.n_channels"].tolist() == [2, 1]
    return found


def test_a_file_for_each_session_with_merged_rates(ctd, trained, kept):
    code, out, err = ctd("posterior", trained, "--json", *ONE)
    assert code == 0, err
    files = [trained.with_name(f"train-posterior-{name}.h5") for name in "ab"]
    assert [one["file"] for one in json.loads(out)] == [str(file) for file in files]
    for k, path in enumerate(files):
        check_rates(path, kept, k)
        path.unlink()


def test_session_is_chosen_by_its_units(ctd, trained, kept, monkeypatch):
    """Whatever its file is called; with its merged rates."""
    monkeypatch.chdir(trained.parent)
    args = ("--data", "again.h5", "--to", "out.h5", *ONE)
    code, out, err = ctd("posterior", trained, *args)
    assert code == 0, err
    n = len(STARTS)
    assert f"windows {n} train of 1 recording, {n} valid of 1 recording\n" in out
    check_rates("out.h5", kept, 1)
    Path("out.h5").unlink()


@pytest.mark.parametrize(
    "args",
    [
        ("--data", "six.h5"),
        ("--data", "again.h5", "--set", "params.session=0"),
        ("--to", "out.h5"),
        ("--set", "params.samples=[rates]"),
    ],
)
def test_posterior_of_sessions_refuses(ctd, trained, monkeypatch, args):
    monkeypatch.chdir(trained.parent)
    before = sorted(trained.parent.iterdir())
    usage_error(ctd("posterior", trained, *args))
    assert sorted(trained.parent.iterdir()) == before, "nothing is half-written"
