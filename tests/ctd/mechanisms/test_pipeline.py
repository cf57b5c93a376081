"""Evidence that is judged and that places a recording: of files as stages leave them, and by the job files of examples/mechanisms."""

import numpy as np
import pytest
import xarray as xr
from places import EXAMPLES
from small import FOUR, SMALL, fitted_recordings

from ctd.batch import precision, run_items
from ctd.data import write_hdf5
from ctd.kernel import inputs_of
from ctd.mechanisms.evidence import kernel
from ctd.mechanisms.families import NAMES
from ctd.mechanisms.fits import Evidence
from ctd.mechanisms.summary import _atlas_counts
from ctd.plots import Points


def evidence(columns, about=None, **given):
    """The table of recordings, whose program is that of the kernel's smallest case. about: what is said of them instead."""
    params = Evidence(**given)
    inputs = inputs_of(params)
    with precision(params):
        shared = kernel.load(inputs)
    results = run_items(kernel, params, columns, layout=FOUR)
    shared = shared._replace(about=shared.about | (about or {}))
    return kernel.tables.reduce(inputs, shared, columns, results, kernel.tables.Options(folds=3))


def test_what_is_read_off_fits_is_judged_and_places_a_recording(tmp_path):
    """Three members of each of three mechanisms, whose true systems differ and whose fits are random."""
    files, made = fitted_recordings(9, (30, 20), 10), np.repeat([0, 4, 7], 3)
    about = {"mechanism": made, "member": np.tile(np.arange(3), 3), "truth": np.eye(22)[made]}
    columns = {"recording": np.arange(9)}
    table = evidence(columns, about, **files)
    assert table["accuracy_truth"] == [1]
    assert table["confusion"].sum() == 9
    _, *by_size, _ = kernel.display.plots(None, None, {}, {}, table)
    kinds = {type(layer) for plot in by_size for layer in plot.layers}
    assert kinds == {Points}, "one size makes no line"
    rows = [np.asarray(layer.y).tolist() for plot in by_size for layer in plot.layers]
    assert rows == [[0, 1, 2, 3], [0, 1]], "equal shares do not hide one another"
    assert {plot.x.label for plot in by_size} == {"share, 6 neurons, 30 trials"}
    p = np.stack([table[f"p_{name}"] for name in (*NAMES, "none")])
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
    # The same files once more, as of one who does not know what made them.
    numbers = {name: v for name, v in table.items() if np.asarray(v).dtype.kind in "if"}
    write_hdf5(tmp_path / "atlas.h5", numbers)
    unknown = {"mechanism": np.full(9, -1)}
    placed = evidence(columns, unknown, **files, atlas=str(tmp_path / "atlas.h5"))
    np.testing.assert_array_equal(placed["evidence"], table["evidence"])
    assert set(placed["true"]) == {"unknown"}
    assert set(placed["verdict"]) <= {
        NAMES[0],
        NAMES[4],
        NAMES[7],
        "none of these",
        "cannot be told",
    }
    np.testing.assert_allclose(placed["place"], table["place"], atol=1e-9)
    named = placed["likeliest"]
    for k, verdict in enumerate(placed["verdict"]):
        own = placed["p_none" if named[k] == "none of these" else f"p_{named[k]}"][k]
        assert own == placed["probability"][k]
        assert verdict == (named[k] if own >= 0.5 else "cannot be told")
    # How far to trust it: what else it may be, and how the atlas does at this size.
    p = np.sort([placed[f"p_{name}"] for name in (*NAMES, "none")], axis=0)
    np.testing.assert_allclose(placed["runner_up_probability"], p[-2])
    assert placed["atlas_recordings"].tolist() == [9] * 9
    for name in ("none_found", "accuracy", "accuracy_plain", "calibration"):
        assert set(placed[f"atlas_{name}"]) == set(table[name])


def test_verdict_qualified():
    """Of nine unseen recordings called planes, six are planes and three rings: that stands beside the verdict, wherever it is."""
    plane, ring = NAMES.index("plane"), NAMES.index("ring")
    p = {f"p_{name}": np.zeros(9) for name in (*NAMES, "none")} | {"p_plane": np.full(9, 0.9)}
    atlas = p | {"mechanism": np.repeat([plane, ring], [6, 3]), "n_neurons": np.full(9, 40)}
    atlas |= {"n_trials": np.full(9, 200), "noise": np.full(9, 0.02), "size_noise": [0.02]}
    atlas |= {"size_n_neurons": [40], "size_n_trials": [200]}
    placed = np.array(["plane", "line", "none of these"])
    counts = _atlas_counts(atlas, placed, np.zeros(3, int), kernel.tables.Options())
    assert counts.tolist() == ["6 of 9", "0 of 0", ""]
    beside = kernel.display.summary.index("verdict") + 1
    qualified = {"verdict_right", "fit_agreement", "atlas_none_found"}
    assert {*kernel.display.summary[beside : beside + 3]} == qualified
    assert qualified <= {*kernel.tables.dims}


FITS = ("fits.params.n_batches=1500", "fits.params.report_every=500", "fits.params.length=15", "fits.params.hidden=10", "fits.params.smoothing=1")  # fmt: skip
# Recordings and evidence have the shapes and the layout of the kernels' smallest cases: programs that their contract compiles, too.
BINS = f"params.n_bins={SMALL['mechanisms']['n_bins']}"
ATLAS = (
    "recordings.sweep.grid.mechanism=[0,4,7]", "recordings.sweep.zip.n_neurons=[15]", "recordings.sweep.zip.n_trials=[30]",
    "recordings.sweep.seeds=3", f"recordings.{BINS}", "evidence.sweep.grid.recording.range=11", *FITS,
    *(f"{stage}.run.{field}" for stage in ("recordings", "evidence") for field in ("slots=4", "microbatch=2")),
)  # fmt: skip


def overrides(*words):
    return [f"stages.{word}" for word in words]


@pytest.mark.endurance
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
    # Read off the equations, these three cannot be mistaken; fits of 1,500 steps are better than chance, 1/3.
    assert found.accuracy_truth.values == 1
    assert found.accuracy.values > 0.5
    assert found.confusion.values.sum() == 9
    code, out, err = command_line("query", tmp_path / "atlas.evidence.zarr", "--table", "left_out")
    assert code == 0, err
    assert all(NAMES[k] in out for k in (0, 4, 7))
    # A limit cycle of the atlas as a file of one's own: the same counts, hence the same factors.
    with xr.open_datatree(tmp_path / "atlas.recordings.zarr", engine="zarr") as tree:
        counts = [tree["results/0"][part].values[4] for part in ("train", "eval")]
    np.savez(tmp_path / "my_spikes.npz", train=np.concatenate(counts))
    own = overrides(f"recording.{BINS}", *FITS)
    code, _, err = command_line("run", tmp_path / "place.yaml", *own, "--executor", "serial")
    assert code == 0, err
    assert "NaN" not in err
    with xr.open_datatree(tmp_path / "place.place.zarr", engine="zarr") as tree:
        placed = tree["gathered/0"].load()
    assert placed.mechanism.values.tolist() == [-1]
    np.testing.assert_allclose(placed.plain_evidence[0], found.plain_evidence[4], atol=1e-4)
    assert placed.p_limit_cycle.values[0] > placed.p_two_attractors.values[0]
