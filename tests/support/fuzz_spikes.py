"""Damaged files of spikes, for tests/test_fuzz.py."""

import io
import json
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from fuzz_containers import archive, hdf5, npy
from fuzzing import HUGE, of_bytes

N_TIMES, N_UNITS = 6, 3
MODEL = {
    "encoder": 2, "controller": 0, "generator": 2, "n_factors": 1, "n_inputs": 1, "batch_size": 2, "n_batches": 2,
    "report_every": 1, "n_samples": 1, "n_metric": 2, "n_saved": 1, "kl_ramp": 1, "warm_up": 0,
}  # fmt: skip
NWB = {"bin_s": 0.05, "window": [0.0, 0.3], "align_to": "start_time", "eval_every": 3}


def counts(n):
    return np.random.default_rng(n).poisson(1.0, (n, N_TIMES, N_UNITS))


@cache
def nwb():
    """The bytes of a recording of three units, with six trials."""
    from pynwb import NWBHDF5IO, NWBFile

    draw = np.random.default_rng(0)
    made = NWBFile("a recording", "1", datetime(2020, 1, 1, tzinfo=UTC))
    for _ in range(N_UNITS):
        made.add_unit(spike_times=np.sort(draw.uniform(0, 12, 90)), obs_intervals=[[0.0, 12.0]])
    for k in range(6):
        made.add_trial(start_time=2.0 * k, stop_time=2.0 * k + 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spikes.nwb"
        with NWBHDF5IO(path, "w") as file:
            file.write(made)
        return path.read_bytes()


def _nwb(rng, path):
    data = bytearray(nwb())
    if rng.random() < 0.5:
        path.write_bytes(of_bytes(rng, bytes(data)))
        return
    for _ in range(rng.choice([1, 4, 40])):
        at = rng.randrange(len(data) // 8) * 8
        data[at : at + 8] = rng.choice([*HUGE, 0, 1, 3]).to_bytes(8, "little")
    path.write_bytes(data)


def _hdf5(rng, path):
    hdf5(rng, path, rng.choice([
        {"train": counts(4), "eval": counts(2)},
        {"train_encod_data": counts(4), "train_recon_data": counts(4), "valid_encod_data": counts(2), "valid_recon_data": counts(2)},
        {"train": counts(4), "eval": counts(2), "train_rates": 1.0 * counts(4), "eval_rates": 1.0 * counts(2)},
    ]))  # fmt: skip


def _npy(rng, path):
    path.write_bytes(npy(rng, counts(6)))


def _npz(rng, path):
    arrays = {"train": counts(4), "eval": counts(2)} if rng.random() < 0.5 else {"arr_0": counts(6)}
    odd, members = rng.choice(list(arrays)), {}
    for name, value in arrays.items():
        file = io.BytesIO()
        np.save(file, value)
        members[f"{name}.npy"] = npy(rng, value) if name == odd else file.getvalue()
    path.write_bytes(archive(rng, members))


MAKERS = {".h5": _hdf5, ".npy": _npy, ".npz": _npz, ".nwb": _nwb}


def spikes_file(rng, folder):
    """A damaged file of spikes of any kind, and a job that reads it."""
    ending = rng.choice(list(MAKERS))
    MAKERS[ending](rng, folder / f"spikes{ending}")
    params = (
        MODEL | {"data": f"spikes{ending}", "eval_every": 3} | (NWB if ending == ".nwb" else {})
    )
    (folder / "job.yaml").write_text(json.dumps({"kernel": "lfads", "params": params}))
    return ["plan", "job.yaml"]
