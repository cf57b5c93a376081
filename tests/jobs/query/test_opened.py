"""jobs.query.tree: the tree of a store and what can be asked of it, and a store read without ctd."""

import ast
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from messages import refused
from page_stores import finished
from places import EXAMPLES
from stores import SMALL_RNN, copied_run, make

import jobs
from ctd.cells import get_cell
from ctd.cells import run as run_cell
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.query.tree import spelt
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job

EXAMPLE = EXAMPLES / "plot_store.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path = tmp_path_factory.mktemp("opened") / "o.zarr"
    store = copied_run(path)
    gather(store)
    return jobs.open_store(path)


def test_open_is_xarrays_own_tree_with_texts_for_codes(tree):
    plain = xr.open_datatree(tree.store.address, engine="zarr")
    assert isinstance(tree, xr.DataTree)
    assert tree.groups == plain.groups
    decoded = set()
    for node in plain.subtree:
        node.attrs.pop("packed", None)  # nothing is, in the opened tree
        structured = {k: v for k, v in node.attrs.items() if isinstance(v, dict | list)}
        node.attrs |= {name: json.dumps(value) for name, value in structured.items()}
        for name, variable in node.to_dataset(inherit=False).variables.items():
            if labels := variable.attrs.pop("labels", None):
                del variable.attrs["flag_values"]
                variable.attrs.pop("flag_meanings", None)
                variable.values = np.array(labels)[variable.to_numpy()]
                decoded.add(name)
    assert "source" in decoded
    xr.testing.assert_identical(xr.DataTree(tree.to_dataset(), dict(tree.children)), plain)
    assert (tree["shards"].host == tree.table("shards").host[0]).any()
    with refused(JobError):
        tree.isel(item=0).query("n == 3")


def test_group_as_netcdf(tree, tmp_path):
    """Its attributes are texts, which NetCDF knows."""
    group = tree["results/0"].to_dataset()
    group.to_netcdf(tmp_path / "group.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "group.nc", engine="scipy") as found:
        np.testing.assert_array_equal(found.x, group.x)
        assert json.loads(found.attrs["swept"]) == {"n": 3}
    assert tree.select("n == 3", limit=1)["results/0"].attrs == group.attrs


def test_texts_of_a_table_without_rows_are_none():
    """A network without unstable points, or a distance without its like, leaves such tables."""
    empty = xr.Dataset({"name": ("row", np.zeros(0, int), {"flag_values": [], "labels": []})})
    assert spelt(empty)["name"].shape == (0,)


def test_a_store_may_be_given_as_a_path_or_at_home(tree, monkeypatch):
    """As to `Job.run`."""
    path = Path(tree.store.address)
    monkeypatch.setenv("HOME", str(path.parent))
    for address in (path, f"~/{path.name}", Path("~", path.name)):
        assert jobs.open_store(address).store.address == str(path)
        assert jobs.open_stores(address).stores[0].address == str(path)
        assert jobs.open_stores([address]).stores[0].address == str(path)
        assert jobs.figure(address).axes


@pytest.mark.parametrize(
    "ask",
    [
        lambda tree: tree.query(sort="norm", limit=-1),
        lambda tree: tree.select("norm > 0", limit=-1),
        lambda tree: tree.best("norm", "maximum"),
        lambda tree: jobs.figure(tree, 2),
        lambda tree: jobs.figure(tree, -1),
        lambda _: jobs.open_stores([]),
    ],
)
def test_arguments_without_a_meaning_are_refused(tree, ask):
    with refused(JobError):
        ask(tree)


def test_query_misspelt_keyword(tree):
    with pytest.raises(ValueError, match="limt; did you mean 'limit'"):
        tree.query(limt=3)


def test_open_reads_no_results(tree):
    for node in jobs.open_store(tree.store.address).subtree:
        for name, variable in node.data_vars.items():
            assert not variable.variable._in_memory, f"{node.path}/{name}"


def test_select_has_the_matching_items_with_all_results(tree):
    chosen = tree.select("norm > 2 and push[0] == 1")
    items = tree.table()
    expected = items[(items.norm > 2) & (items.push == "[1, -1]")]
    assert not chosen["results/0"].x.variable._in_memory
    np.testing.assert_array_equal(chosen["items"].item, expected.item)
    for group, part in expected.groupby("group"):
        here, whole = chosen[f"results/{group}"], tree[f"results/{group}"]
        np.testing.assert_array_equal(here.item, part.item)
        np.testing.assert_array_equal(here.x, whole.x.sel(item=part.item.to_numpy()))
        assert here.x.attrs["units"] == "m"


def test_select_sorts_limits_and_leaves_empty_groups_out(tree):
    chosen = tree.select("n == 5", sort="-norm", limit=3)
    best = tree.table().query("n == 5").sort_values("norm", ascending=False).item[:3]
    assert chosen["items"].item.values.tolist() == best.tolist()
    assert chosen["results/1"].item.values.tolist() == best.tolist()
    assert "results/0" not in chosen
    assert "results" not in tree.select("norm < 0")
    with refused(JobError):
        tree.select("nrm > 1")


def test_a_selection_stays_as_it_was_when_more_items_come(tmp_path):
    """They may stand before it in the table of items."""
    store = make(tmp_path / "s.zarr")
    executor, shards = SerialExecutor(1), list(store.job.plan.shards())
    executor.start(store.address)
    run = lambda shard: (executor.submit(Task(shard)), executor.wait(0), gather(store))
    run(shards[1])
    chosen = jobs.open_store(store.address).select("norm > 0", sort="-norm", limit=3)
    run(shards[0])
    norms = chosen["items"].norm.values
    np.testing.assert_array_equal(norms, chosen["results/0"].norm.values)
    assert (norms == np.sort(store.rows(0, "norm", 6, 12))[:-4:-1]).all()


def test_query_has_the_words_of_the_command(tree):
    found = tree.query("n == 3", group_by=["push"], agg="count", sort="-push")
    assert found.to_numpy().tolist() == [["[1, -1]", 11], ["[0, 0]", 11]]
    assert len(tree.table("place")) == 6


NETWORKS = """
import jax
from ctd.cells import Scales, get_cell
from ctd.kernel import Params, Traced, Var, one_shot

class Network(Params):
    scale: Traced[float] = 1.0

def run(static, shared, traced, key):
    cell = get_cell("vanilla")
    drawn = cell.init(key, 6, 2, 1, Scales(traced.scale), dtype=static.dtype)
    return {f"weights.{name}": value for name, value in drawn.items()} | {"size": traced.scale}

axes = get_cell("vanilla").axes
kernel = one_shot("networks", Network, {f"weights.{n}": Var(a) for n, a in axes.items()} | {"size": Var()}, run)
"""


def test_weights_go_on_in_jax(tmp_path):
    """A stored network goes into the cell's own functions as it comes, and can be differentiated."""
    (tmp_path / "networks_kernel.py").write_text(NETWORKS)
    content = {
        "kernel": "networks_kernel",
        "params": {"dtype": "float64"},
        "sweep": {"grid": {"scale": [0.5, 1.5]}},
    }
    executor = SerialExecutor(1)
    address = str(tmp_path / "t.zarr")
    store = open_or_create(parse_job(content, "t"), str(tmp_path), "t", address, executor)
    assert run_shards(store, executor).shards_done == 1
    tree = jobs.open_store(store.address)
    weights = tree.weights(1)
    assert set(weights) == {"wI", "wR", "bR", "wO", "bO", "h0"}
    assert all(isinstance(value, jax.Array) for value in weights.values())
    cell, x = get_cell("vanilla"), np.arange(8.0).reshape(4, 2) / 8
    with jax.enable_x64(True):
        states, _ = jax.jit(partial(run_cell, cell))(weights, x)
        gradient = jax.jit(jax.grad(lambda w: jnp.sum(run_cell(cell, w, x)[1])))(weights)
    stored = {name: tree["results/0"].sel(item=1)[f"weights.{name}"].values for name in weights}
    h = stored["h0"]
    for k in range(4):
        h = np.tanh(stored["wR"] @ h + stored["wI"] @ x[k] + stored["bR"])
        # float64 sums of six terms.
        np.testing.assert_allclose(np.asarray(states)[k], h, rtol=1e-12, atol=1e-15)
    assert states.dtype == np.float64
    assert gradient["wR"].shape == (6, 6)
    with refused(JobError):
        tree.weights(7)


def test_the_networks_page_shows_how_a_network_goes_on():
    store = finished("swept")
    page = (EXAMPLE.parent.parent / "docs" / "networks.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert code.count('get_cell("gru")') == 1
    code = code.replace('"gru"', f'"{SMALL_RNN["cell"]}"').replace("train.zarr", store.address)
    found = {}
    exec(code, found)
    trials, states, outputs = (found[name] for name in ("trials", "states", "outputs"))
    assert states.shape == (*trials.mask.shape, 4)
    assert outputs.shape == trials.targets.shape
    wO, bO = (store.rows(0, f"weights.{name}", 3, 4)[0] for name in ("wO", "bO"))
    # float32 sums of four terms.
    np.testing.assert_allclose(outputs, states @ wO.T + bO, atol=1e-5)


def test_weights_where_none_are_stored(tree):
    with refused(JobError):
        tree.weights(0)
    reservoirs = jobs.open_store(finished("esn").address)
    with refused(JobError):
        reservoirs.weights(0)


@pytest.mark.slow
def test_example_plots_a_store_with_xarray_and_matplotlib_alone(tmp_path):
    address = finished("fixed_points").address
    tree = ast.parse(EXAMPLE.read_text())
    imported = {
        a.name.partition(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.Import)
        for a in n.names
    }
    assert imported == {"sys", "xarray", "matplotlib"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    # In an interpreter in which our packages cannot be imported at all.
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(('ctd', 'jobs', 'cluster'))); "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    line = [sys.executable, "-W", "error", "-c", code, str(EXAMPLE), address, "plot.png"]
    found = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    data = (tmp_path / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000
