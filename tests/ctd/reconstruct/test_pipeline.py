"""The pipelines of docs/reconstruction.md: what they hand from stage to stage."""

import re

import numpy as np
import pytest
import yaml
from places import ROOT
from small import SMALL, spikes

from ctd.catalogue import load_kernel
from ctd.lfads.torch_file import name_of
from jobs.pipeline import read_stages
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor

PAGE = (ROOT / "docs" / "reconstruction.md").read_text()
SPIKES = next(j for j in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "lfads" in j)
FIT = {
    "smoothing": 2.0,
    "hidden": 6,
    "n_batches": 20,
    "report_every": 10,
    "bins": 5,
    "length": 8,
    "ahead": 4,
}
# The smallest LFADS in the layout of all small runs: a program that the kernel's contract compiles, too.
GIVEN = {
    "lfads": {"sweep.seeds": 4, "run.slots": 4, "run.microbatch": 2}
    | {f"params.{field}": value for field, value in SMALL["lfads"].items()},
    "fit": {"sweep.seeds": 2, "params.data.limit": 1}
    | {f"params.{field}": value for field, value in FIT.items()},
    "points": {"sweep.grid.candidate.range": 2},
}


def test_stages_read_what_the_stages_before_them_store():
    stages = yaml.safe_load(SPIKES)["stages"]
    handed = []
    for stage in stages.values():
        params = stage["params"]
        load_kernel(stage["kernel"]).Params.model_validate(
            {k: "a file" if isinstance(v, dict) else v for k, v in params.items()}
        )
        for field in {"data", "candidates"} & params.keys():
            if isinstance(source := params[field], dict):
                before = load_kernel(stages[source["stage"]]["kernel"])
                assert params["dataset"] in before.dims
                handed.append((before.name, params["dataset"]))
    assert handed == [("lfads", "factors"), ("reconstruct", "states")]


def test_a_posterior_file_has_the_factors_and_inputs_that_the_page_names():
    results = ("factors", "inferred_inputs")
    assert {*results} <= {*load_kernel("lfads.posterior").display.trained.keep}
    named = " | ".join(f"`valid_{name_of(result)}`" for result in results)
    assert f"| `lfads-posterior.h5` | {named} |" in PAGE


@pytest.mark.endurance
def test_from_spikes_to_points(tmp_path):
    """Every stage takes what the one before it stored; the fit sees LFADS' factors."""
    (tmp_path / "lorenz_spikes.h5").symlink_to(spikes())
    (tmp_path / "job.yaml").write_text(SPIKES)
    given = [f"stages.{stage}.{k}={v}" for stage, of in GIVEN.items() for k, v in of.items()]
    stores, found = {}, {}
    for stage in read_stages(tmp_path / "job.yaml", given):
        one, executor = stage.spec(stores), SerialExecutor(1)
        found[stage.name] = open_or_create(one, str(tmp_path), "job", stage.address, executor)
        run_shards(found[stage.name], executor)
        stores[stage.name] = stage.address
    read = lambda stage, name: np.asarray(found[stage].array(0, name)[:])
    factors = read("lfads", "factors")[0]
    assert factors.shape == (2, 25, 3)
    wO, bO, h0 = (read("fit", f"weights.{k}")[0] for k in ("wO", "bO", "h0"))
    first = (factors[0, 0] - factors.mean((0, 1))) / factors.std((0, 1))
    np.testing.assert_allclose(wO @ h0 + bO, first, atol=1e-4)
    assert len(read("points", "point")) == 2
