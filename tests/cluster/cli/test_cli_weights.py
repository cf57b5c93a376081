"""`ctd weights` and `ctd export`: what a file holds, converted; a trained network for other frameworks."""

import json
from pathlib import Path

import numpy as np
from messages import usage_error
from networks import drawn
from places import DATA
from stores import FOUR_SLOTS, SMALL_RNN

from cluster import Job
from ctd.weights import read_tensors, read_weights, write_weights

NETS = DATA / "torch_nets"


def test_weights_tells_what_a_file_holds_and_converts_it(ctd):
    code, out, err = ctd("weights", NETS / "gru.pt", "--to", "net.h5")
    assert code == 0, err
    for said in (
        "rnn.weight_ih_l0",
        "18 x 3",
        "cell gru_torch: 6 units, 3 inputs, 2 outputs",
        "nn.GRU",
        "readout: fc",
    ):
        assert said in out
    expected, found = read_weights(NETS / "gru.pt"), read_weights("net.h5")
    assert found.cell == expected.cell
    for name, value in expected.params.items():
        np.testing.assert_array_equal(found.params[name], value)
    told = json.loads(ctd("weights", "net.h5", "--json")[1])
    assert told["cell"] == "gru_torch"
    assert told["tensors"]["weight_hh"] == [18, 6]


def test_weights_of_a_part(ctd):
    assert ctd("weights", NETS / "gru.pt", "--only", "rnn", "--to", "net.npz")[0] == 0
    assert "wO" not in read_weights("net.npz").params


def test_weights_warns_that_pytorch_lacks_the_cell(ctd):
    write_weights("gru.h5", drawn("gru", 1, 4, 3, 2), "gru")
    code, out, err = ctd("weights", "gru.h5", "--to", "gru.pt")
    assert code == 0
    assert "wrote gru.pt" in out
    assert "warning: the file, of cell gru, has ctd's names" in err


def test_weights_refuses_in_one_line(ctd):
    for args in (
        (NETS / "two_layers.pt",),
        (NETS / "whole.pt",),
        (NETS / "gru.pt", "--to", "net.mat"),
        (NETS / "gru.pt", "--only", "core"),
        ("none.pt",),
    ):
        usage_error(ctd("weights", *args))


def test_export_writes_a_trained_network_for_pytorch(ctd):
    job = Job(
        "train_rnn",
        name="train",
        params=SMALL_RNN,
        sweep={"grid": {"learning_rate": [0.01, 0.02]}},
        run=FOUR_SLOTS,
    )
    job.run("train.zarr", executor="serial")
    usage_error(ctd("weights", "train.zarr"), "train.zarr: is a store; name an item: train.zarr::0")
    networks = []
    for name in ("net.h5", "net.pt", "net.safetensors", "net.npz"):
        code, out, err = ctd("export", "train.zarr", 0, name)
        assert code == 0, err
        assert f"wrote {name}" in out
        before = Path(name).read_bytes()
        for again in (
            ("export", "train.zarr", 1, name),
            ("weights", "train.zarr::1", "--to", name),
        ):
            usage_error(ctd(*again), f"{name}: exists already; delete it, or give another name")
        assert Path(name).read_bytes() == before
        networks.append(read_weights(name))
    assert "rnn.weight_hh_l0" in read_tensors("net.pt").arrays
    for found in networks:
        assert found.cell == "gru_torch"
        for key, value in networks[0].params.items():
            np.testing.assert_array_equal(found.params[key], value)
    code, out, err = ctd("weights", "train.zarr::0")
    assert code == 0, err
    assert "cell gru_torch: 4 units" in out
