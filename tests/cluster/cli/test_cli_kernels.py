"""ctd kernels, new and schema: what a kernel computes, and the starter of a job."""

import json
import re

import pytest

from ctd.catalogue import load_kernel


def test_kernels_new_schema(ctd, job_file):
    listed = [line.split()[0] for line in ctd("kernels")[1].splitlines() if line[0] != " "]
    assert listed == [
        "curbd", "esn", "esn.nvar", "fixed_points", "fixed_points.ablation", "fixed_points.connections",
        "fixed_points.continuation", "fixed_points.exponents", "fixed_points.limit_cycles", "fixed_points.trials", "full_force",
        "latent_circuit", "lfads", "lfads.posterior", "mechanisms", "mechanisms.evidence", "reconstruct", "similarity", "spikes", "train_rnn",
    ]  # fmt: skip
    assert [*json.loads(ctd("kernels", "--json")[1])] == listed
    code, text, err = ctd("new", "fixed_points")
    assert code == 0, err
    assert "# weights:" in text
    # The starter is a job as it stands, but for what it must be told.
    code, _, err = ctd("plan", job_file(text))
    assert (code, "weights" in err) == (2, True)
    assert ctd("plan", job_file(ctd("new", "toy")[1]))[0] == 0
    assert "params" in json.loads(ctd("schema", "fixed_points")[1])["properties"]
    assert json.loads(ctd("schema")[1])["title"] == "JobSpec"


@pytest.mark.parametrize("name", ["esn", "fixed_points", "lfads", "spikes", "train_rnn", "toy"])
def test_kernels_tells_what_one_computes(ctd, name):
    code, out, err = ctd("kernels", name, "--all")
    assert code == 0, err
    kernel = load_kernel(name)
    short = ctd("kernels", name)[1]
    assert len(short.splitlines()) <= 50
    words = re.findall(r"[\w.]+", short)
    singles = [result for result, var in kernel.dims.items() if not var.axes]
    assert {*kernel.Params.model_fields, *singles} <= {*words}
    found = json.loads(ctd("kernels", name, "--json")[1])
    for title, names in (("results/G", kernel.dims), ("gathered/G", kernel.tables.dims)):
        assert [row["name"] for row in found.get(title, [])] == list(names)
        assert all(var.long_name in out for var in names.values())
    ends = [row["name"] for row in found.get("outcome", [])]
    assert ends == [end.name for end in kernel.outcomes]


def test_kernels_of_a_module_without_docstring_begins_with_the_fields(ctd, tmp_path):
    (tmp_path / "undocumented.py").write_text("from toy import kernel\n")
    code, out, err = ctd("kernels", "undocumented")
    assert code == 0, err
    assert out.startswith("compiled in")
