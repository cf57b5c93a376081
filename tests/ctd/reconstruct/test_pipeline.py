"""The pipelines of docs/reconstruction.md: what they hand from stage to stage."""

import re

import numpy as np
import pytest
from places import EXAMPLES, ROOT

from jobs.pipeline import read_stages
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor

PAGE = (ROOT / "docs" / "reconstruction.md").read_text()
SPIKES = next(j for j in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "lfads" in j)
SMALL = {
    "lfads": "encoder=8 generator=8 warm_up=2 n_batches=4 report_every=2 kl_ramp=2 n_samples=2 n_saved=5",
    "fit": "hidden=6 n_batches=20 report_every=10 bins=5",
}


@pytest.mark.slow
def test_from_spikes_to_points(tmp_path):
    """Every stage takes what the one before it stored; the fit sees LFADS' factors."""
    (tmp_path / "lorenz_spikes.h5").symlink_to(EXAMPLES / "lorenz_spikes.h5")
    (tmp_path / "job.yaml").write_text(SPIKES)
    small = [f"stages.{s}.params.{field}" for s, text in SMALL.items() for field in text.split()]
    counts = ["stages.fit.sweep.seeds=2", "stages.points.sweep.grid.candidate.range=5"]
    stores, found = {}, {}
    for stage in read_stages(tmp_path / "job.yaml", small + counts):
        one, executor = stage.spec(stores), SerialExecutor(1)
        found[stage.name] = open_or_create(one, str(tmp_path), "job", stage.address, executor)
        run_shards(found[stage.name], executor)
        stores[stage.name] = stage.address
    read = lambda stage, name: np.asarray(found[stage].array(0, name)[:])
    factors = read("lfads", "factors")[0]
    assert factors.shape == (5, 100, 3)
    wO, bO, h0 = (read("fit", f"weights.{k}")[0] for k in ("wO", "bO", "h0"))
    first = (factors[0, 0] - factors.mean((0, 1))) / factors.std((0, 1))
    np.testing.assert_allclose(wO @ h0 + bO, first, atol=1e-4)
    assert len(read("points", "point")) == 5
