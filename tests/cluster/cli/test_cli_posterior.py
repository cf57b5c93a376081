"""`ctd posterior`: the rates of all trials, with the bits that the training store kept."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from killing import die, killed
from lfads_cases import N_EVAL, N_TRAIN, SIZES, arrays
from messages import usage_error
from stores import make

from cluster import Job
from cluster.cli.posterior import _remove_left
from ctd.data import write_hdf5
from jobs import Store
from jobs.storage import connect
from jobs.storage.lease import Lease

ONE_PROGRAM = {"slots": 1, "microbatch": 1}
"""The layout that a plan measures with, so that the run compiles nothing further."""
SMALL_CHUNKS = ("--set", "params.chunk_batches=2", "--set", f"run={json.dumps(ONE_PROGRAM)}")
KEEP = (
    "--set",
    "params.keep=[rates,factors,inferred_inputs,states,initial_conditions,decoded_behavior]",
)
"""All that a file has, for stores: one program infers both."""
TORCH = {
    "rates": "output_params", "factors": "factors", "inferred_inputs": "co_means",
    "states": "gen_states", "initial_conditions": "ic_mean",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store of two models, which keeps all trials; the better one is item 1."""
    folder = tmp_path_factory.mktemp("trained")
    given = arrays()
    train, evaluation = given["train"], given["eval"]
    np.savez(folder / "spikes.npz", **given)  # whose names are read again, from another folder
    # As many trials in all, which the same program infers.
    others = {"train": np.concatenate([evaluation[-3:], train]), "eval": evaluation[:-3]}
    write_hdf5(folder / "others.h5", others)
    write_hdf5(folder / "fewer.h5", {"train": train[:3, :, 1:], "eval": train[:3, :, 1:]})
    job = Job(
        "lfads",
        name="train",
        seed=7,
        base=str(folder),
        params=SIZES | {"data": "spikes.npz"},
        sweep={"zip": {"learning_rate": [1e-7, 0.01], "variance_floor": [1e-4, 2e-4]}, "seeds": 1},
        run=ONE_PROGRAM,
    )
    job.run(executor="serial")
    return folder / "train.zarr"


@pytest.fixture(scope="module")
def kept(trained):
    """Results of the better model, by name."""
    store = Store.open(str(trained))
    return {name: store.rows(0, name, 1, 2)[0] for name in store.names(0)}


def test_file_has_the_bits_of_the_training_store(ctd, trained, kept):
    Path("out.h5").touch()  # an earlier answer
    code, out, err = ctd("posterior", trained, "--to", "out.h5", *SMALL_CHUNKS)
    assert code == 0, err
    assert f"wrote out.h5: model 1, trials {N_TRAIN} train, {N_EVAL} valid" in out
    assert f"model 1, eval_loss {kept['eval_loss']:.4g}, the best of 2" in err
    assert "an item is up to 16 trials\n" in err
    with h5py.File("out.h5") as file:
        for name, torch in TORCH.items():
            for split, word in (("train_", "train"), ("", "valid")):
                found, expected = file[f"{word}_{torch}"][:], kept[f"{split}{name}"]
                assert found.shape == expected.shape
                assert found.tobytes() == expected.tobytes(), f"{word} {name}"
        assert (file["train_gen_init"][:] == file["train_ic_mean"][:]).all()
        assert file.attrs["item"] == 1
        decoded, factors = file["valid_decoded_behavior"][:], file["valid_factors"][:]
        w, b = file["decoder_w"][:], file["decoder_b"][:]
        assert (file["train_decoded_behavior_sd"][:] > 0).all()
    _check_decoder(w, b, kept)
    # Means of what is read out of each draw, in float32.
    np.testing.assert_allclose(decoded, factors @ w.T + b, rtol=0, atol=1e-4 * np.ptp(decoded))
    behavior, n = arrays()["eval_behavior"], SIZES["n_metric"]
    residual = ((behavior - decoded)[:n] ** 2).sum((0, 1))
    total = ((behavior - behavior[:n].mean((0, 1)))[:n] ** 2).sum((0, 1))
    assert kept["behavior_r2"] == pytest.approx((1 - residual / total).mean(), abs=1e-4)
    assert [path.name for path in Path().iterdir()] == ["out.h5"], "the store in between is gone"


def test_what_a_killed_command_left_beside_its_file_is_removed(tmp_path):
    """And not what one that goes on computes in, or another file's."""
    to = tmp_path / "o[u]t.h5"
    folders = [tmp_path / f".{name}" for name in ("o[u]t-1", "o[u]t-2", "other-1")]
    killed(_computes_in, str(folders[0]))
    killed(_computes_in, str(folders[2]))
    Lease.acquire(connect.open_objects(f"{folders[1]}/posterior.zarr", create=True), "store")
    _remove_left(to)
    assert [folder.exists() for folder in folders] == [False, True, True]


def _computes_in(folder):
    Lease.acquire(connect.open_objects(f"{folder}/posterior.zarr", create=True), "store")
    die()


def _check_decoder(w, b, kept):
    """By NumPy, in float64: ridge regression of behaviour on the factors that the training store kept."""
    n = SIZES["n_metric"]
    x = kept["train_factors"][:n].reshape(-1, SIZES["n_factors"]).astype(float)
    y = arrays()["train_behavior"][:n].reshape(-1, 2)
    gram = (x - x.mean(0)).T @ (x - x.mean(0))
    gram += 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram))
    expected = np.linalg.solve(gram, (x - x.mean(0)).T @ (y - y.mean(0))).T
    # float32 sums over 72 rows, whose ridge bounds the condition number by 3e4.
    np.testing.assert_allclose(w, expected, rtol=0, atol=1e-2 * np.abs(expected).max())
    scale = np.abs(y).max()
    np.testing.assert_allclose(
        x @ w.T + b, (x - x.mean(0)) @ expected.T + y.mean(0), atol=1e-3 * scale
    )


def test_several_models_and_other_trials_go_into_a_store(ctd, trained, kept):
    """Planned alone: of each model all chunks, the better one first, with the values that it was trained with.
    More bits a spike are better, without a sign before the name.

    A trial's draws depend on its number and split alone: the first evaluation trials have the bits of the training store.
    """
    args = ("--data", trained.with_name("others.h5"), "--store", "out.zarr", "--limit", 2)
    args = (
        *args,
        "--where",
        "item < 2",
        "--sort",
        "bits_per_spike",
        *SMALL_CHUNKS,
        *KEEP,
        "--json",
    )
    code, _, err = ctd("posterior", trained, *args)
    assert code == 0, err
    assert "no effect" not in err
    _, out, _ = ctd("query", "out.zarr", "--columns", "of_item,chunk,variance_floor", "--json")
    found = [
        tuple(row[k] for k in ("of_item", "chunk", "variance_floor")) for row in json.loads(out)
    ]
    assert found == [(1, k, 2e-4) for k in range(6)] + [(0, k, 1e-4) for k in range(6)]
    store = Store.open("out.zarr")
    rows = {name: store.rows(0, name, 0, 6) for name in store.names(0)}
    full = [0] * 16
    split = [full, full, full, [0] * 15 + [-1], [1] * 16, [1] + [-1] * 15]
    assert rows["split"].tolist() == split
    rates = rows["rates"][4:].reshape(32, *rows["rates"].shape[2:])
    assert rates[:17].tobytes() == kept["rates"][:17].tobytes()
    assert np.isnan(rates[17:]).all()
    assert np.isfinite(rows["decoded_behavior"][0]).all(), "of a file without behaviour, too"


PIPELINE = """
kernel: lfads.posterior
params:
  weights: {{store: {store}, sort: eval_loss, limit: 1}}
  model: {{store: {store}, sort: eval_loss, limit: 1, part: {part}}}
  data: {data}
  chunk_batches: 2
  keep: [rates, factors, inferred_inputs, states, initial_conditions, decoded_behavior]
  {sizes}
sweep: {{grid: {{chunk: {{range: 5}}}}}}
"""


def test_job_that_chooses_a_model(ctd, trained, job_file):
    """As docs/lfads.md has it; a part that there is none of is named."""
    sizes = "\n  ".join(f"{k}: {json.dumps(v)}" for k, v in SIZES.items() if k != "save")
    write = lambda part: job_file(
        PIPELINE.format(store=trained, part=part, data=trained.with_name("others.h5"), sizes=sizes)
    )
    code, out, err = ctd("plan", write("model"), "--json")
    assert code == 0, err
    assert json.loads(out)["items"] == 5
    usage_error(ctd("plan", write("modle")), "kernel lfads stores no modle in this job")


@pytest.mark.parametrize(
    "args",
    [
        ("--data", "fewer.h5"),
        ("--data", "none.h5"),
        ("--where", "eval_loss < 0"),
        ("--to", "out.csv"),
        ("--to", "no/out.h5"),
        ("--to", "out.h5", "--limit", "2"),
        ("--to", "out.h5", "--store", "out.zarr"),
        ("--set", "params.keep=[rate]"),
        ("--set", "params=3"),
    ],
)  # fmt: skip
def test_posterior_refuses(ctd, trained, monkeypatch, args):
    monkeypatch.chdir(trained.parent)
    before = sorted(trained.parent.iterdir())
    answer = ctd("posterior", trained, *args)
    usage_error(answer)
    assert len(answer[2].splitlines()) <= 2
    assert sorted(trained.parent.iterdir()) == before, "nothing is half-written"


def test_posterior_refuses_stores_of_other_kernels(ctd, tmp_path):
    answer = ctd("posterior", make(tmp_path / "walks.zarr").address)
    usage_error(answer, "is a store of toy; give a store of lfads")
