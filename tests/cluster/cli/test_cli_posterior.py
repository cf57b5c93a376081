"""`ctd posterior`: the rates of all trials, with the bits that the training store kept."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_jobs import refused

from cluster import Job
from ctd.data import write_hdf5
from jobs import Store

N_TRAIN, N_EVAL = 11, 6
"""No multiples of a chunk, 8 trials."""

SIZES = {
    "encoder": 4, "controller": 4, "generator": 5, "n_factors": 3, "batch_size": 4, "n_batches": 4,
    "report_every": 2, "warm_up": 1, "kl_ramp": 2, "n_samples": 2, "n_metric": 4,
}  # fmt: skip
ONE_PROGRAM = {"slots": 1, "microbatch": 1}
"""The layout that a plan measures with, so that the run compiles nothing further."""
SMALL_CHUNKS = ("--set", "params.chunk_batches=2", "--set", f"run={json.dumps(ONE_PROGRAM)}")
TORCH = {
    "rates": "output_params", "factors": "factors", "inferred_inputs": "co_means",
    "states": "gen_states", "initial_conditions": "ic_mean",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store of two models, which keeps all trials; the better one is item 1."""
    folder = tmp_path_factory.mktemp("trained")
    counts = np.random.default_rng(0).poisson(1.0, (N_TRAIN + N_EVAL, 6, 7))
    write_hdf5(folder / "spikes.h5", {"train": counts[:N_TRAIN], "eval": counts[N_TRAIN:]})
    write_hdf5(
        folder / "others.h5", {"train": counts[N_TRAIN : N_TRAIN + 3], "eval": counts[N_TRAIN:-2]}
    )
    write_hdf5(folder / "fewer.h5", {"train": counts[:3, :, 1:], "eval": counts[:3, :, 1:]})
    job = Job(
        "lfads",
        name="train",
        seed=7,
        base=str(folder),
        params=SIZES | {"data": "spikes.h5", "save": "all"},
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
    code, out, err = ctd("posterior", trained, "--to", "out.h5", *SMALL_CHUNKS)
    assert code == 0, err
    assert f"wrote out.h5: model 1, trials {N_TRAIN} train, {N_EVAL} valid" in out
    with h5py.File("out.h5") as file:
        for name, torch in TORCH.items():
            for split, word in (("train_", "train"), ("", "valid")):
                found, expected = file[f"{word}_{torch}"][:], kept[f"{split}{name}"]
                assert found.shape == expected.shape
                assert found.tobytes() == expected.tobytes(), f"{word} {name}"
        assert (file["train_gen_init"][:] == file["train_ic_mean"][:]).all()
        assert file.attrs["item"] == 1
    assert [path.name for path in Path().iterdir()] == ["out.h5"], "the store in between is gone"


def test_store_of_other_trials(ctd, trained, kept):
    """A trial's draws depend on its number and split alone: the first evaluation trials have the same bits."""
    args = ("--data", trained.with_name("others.h5"), "--store", "out.zarr", "--where", "item == 1")
    code, _, err = ctd("posterior", trained, *args, *SMALL_CHUNKS, "--json")
    assert code == 0, err
    store = Store.open("out.zarr")
    rows = {name: store.rows(0, name, 0, 2) for name in store.names(0)}
    assert rows["split"].tolist() == [[0] * 3 + [-1] * 5, [1] * 4 + [-1] * 4]
    rates = rows["rates"][1, :4]
    assert rates.tobytes() == kept["rates"][:4].tobytes()
    assert np.isnan(rows["rates"][1, 4:]).all()
    assert "states" not in rows


def test_several_models_go_into_a_store(ctd, trained):
    """Planned alone: of each model all chunks, with the values that it was trained with."""
    args = ("--limit", 2, "--store", "two.zarr", "--data", trained.with_name("others.h5"))
    assert ctd("posterior", trained, *args, *SMALL_CHUNKS)[0] == 0
    _, out, _ = ctd("query", "two.zarr", "--columns", "of_item,chunk,variance_floor", "--json")
    found = [
        tuple(row[k] for k in ("of_item", "chunk", "variance_floor")) for row in json.loads(out)
    ]
    assert found == [(1, k, 2e-4) for k in range(2)] + [(0, k, 1e-4) for k in range(2)]


PIPELINE = """
kernel: lfads.posterior
params:
  weights: {{store: {store}, sort: eval_loss, limit: 1}}
  model: {{store: {store}, sort: eval_loss, limit: 1, part: {part}}}
  data: {data}
  chunk_batches: 2
  {sizes}
sweep: {{grid: {{chunk: {{range: 5}}}}}}
"""


def test_job_that_chooses_a_model(ctd, trained, job_file):
    """As docs/data.md has it; a part that there is none of is named."""
    sizes = "\n  ".join(f"{name}: {value}" for name, value in SIZES.items())
    write = lambda part: job_file(
        PIPELINE.format(store=trained, part=part, data=trained.with_name("others.h5"), sizes=sizes)
    )
    code, out, err = ctd("plan", write("model"), "--json")
    assert code == 0, err
    assert json.loads(out)["items"] == 5
    refused(ctd("plan", write("modle")), "kernel lfads stores no modle in this job")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--data", "fewer.h5"), "fewer.h5 has 6 units, but the model was trained on 7; give a file with 7"),
        (("--data", "none.h5"), "none.h5"),
        (("--where", "eval_loss < 0"), "no model with eval_loss < 0"),
        (("--to", "out.csv"), "give it the ending .h5"),
        (("--to", "no/out.h5"), "no such folder"),
        (("--to", "out.h5", "--limit", "2"), "an HDF5 file holds one model; give --store"),
        (("--to", "out.h5", "--store", "out.zarr"), "give one of them"),
        (("--set", "params.keep=[rate]"), "keep"),
    ],
)  # fmt: skip
def test_posterior_refuses(ctd, trained, monkeypatch, args, said):
    monkeypatch.chdir(trained.parent)
    before = sorted(trained.parent.iterdir())
    answer = ctd("posterior", trained, *args)
    refused(answer, said)
    assert len(answer[2].splitlines()) <= 2
    assert sorted(trained.parent.iterdir()) == before, "nothing is half-written"


def test_posterior_refuses_stores_of_other_kernels(ctd, job_file):
    path = job_file("kernel: toy\nparams: {n_steps: 5}\n")
    assert ctd("run", path, "--executor", "serial")[0] == 0
    answer = ctd("posterior", path.with_suffix(".zarr"))
    refused(answer, "holds toy; a store of lfads expected")
