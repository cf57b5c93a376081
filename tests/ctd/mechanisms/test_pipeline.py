"""The job files of examples/mechanisms, tiny: an atlas of three mechanisms, and one of its recordings placed as a file of one's own."""

import numpy as np
import xarray as xr
from places import EXAMPLES
from small import SMALL

from ctd.mechanisms.families import NAMES

FITS = ("fits.params.n_batches=200", "fits.params.report_every=100", "fits.params.length=15", "fits.params.hidden=10")  # fmt: skip
# Recordings and evidence have the shapes and the layout of the kernels' smallest cases: programs that their contract compiles, too.
BINS = f"params.n_bins={SMALL['mechanisms']['n_bins']}"
ATLAS = (
    "recordings.sweep.grid.mechanism=[0,4,7]", "recordings.sweep.zip.n_neurons=[15]", "recordings.sweep.zip.n_trials=[30]",
    "recordings.sweep.seeds=3", f"recordings.{BINS}", "evidence.sweep.grid.recording.range=11", *FITS,
    *(f"{stage}.run.{field}" for stage in ("recordings", "evidence") for field in ("slots=4", "microbatch=2")),
)  # fmt: skip


def overrides(*words):
    return [f"stages.{word}" for word in words]


def test_an_atlas_and_a_place_in_it(command_line, tmp_path):
    for name in ("atlas", "place"):
        (tmp_path / f"{name}.yaml").write_text(
            (EXAMPLES / "mechanisms" / f"{name}.yaml").read_text()
        )
    code, _, err = command_line("run", tmp_path / "atlas.yaml", *overrides(*ATLAS), "--executor", "serial")  # fmt: skip
    assert code == 0, err
    with xr.open_datatree(tmp_path / "atlas.evidence.zarr", engine="zarr") as tree:
        found = tree["gathered/0"].load()
    assert found.mechanism.values.tolist() == np.repeat([0, 4, 7], 3).tolist()
    p = np.stack([found[f"p_{name}"].values for name in (*NAMES, "none")])
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
    # Read off the equations, these three cannot be mistaken; fits of 200 steps are better than chance, 1/3.
    assert found.accuracy_truth.values == 1
    assert found.accuracy.values > 0.5
    assert found.confusion.values.sum() == 9
    code, out, err = command_line("query", tmp_path / "atlas.evidence.zarr", "--table", "left_out")
    assert code == 0, err
    assert all(NAMES[k] in out for k in (0, 4, 7))
    # A limit cycle of the atlas as a file of one's own: the same counts, hence the same factors.
    with xr.open_datatree(tmp_path / "atlas.recordings.zarr", engine="zarr") as tree:
        counts = tree["results/0"].train.values[4]
    np.savez(tmp_path / "my_spikes.npz", train=counts)
    own = overrides(f"recording.{BINS}", *FITS)
    code, _, err = command_line("run", tmp_path / "place.yaml", *own, "--executor", "serial")
    assert code == 0, err
    assert "NaN" not in err
    with xr.open_datatree(tmp_path / "place.place.zarr", engine="zarr") as tree:
        placed = tree["gathered/0"].load()
    assert placed.mechanism.values.tolist() == [-1]
    np.testing.assert_allclose(placed.plain_evidence[0], found.plain_evidence[4], atol=1e-4)
    assert placed.p_limit_cycle.values[0] > placed.p_two_attractors.values[0]
