"""Results that share an array: what is packed, what every way to read them says, what a failed item leaves."""

import pickle
import re

import jax
import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refused
from places import EXAMPLES

from jobs import open_store
from jobs.gather.check import check
from jobs.inputs.measure import outputs_of
from jobs.plan.items import expand
from jobs.plan.packing import (
    MOST_OBJECTS,
    SMALL,
    Part,
    Place,
    as_attribute,
    by_pack,
    pack_values,
    place,
    places_of,
)
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.search.method import shapes as search_shapes
from jobs.spec.job import find_kernel, parse_job
from jobs.store.arrays import attributes
from jobs.store.store import Store
from jobs.store.writer import write_shard

SHAPE = lambda shape, dtype: jax.ShapeDtypeStruct(shape, np.dtype(dtype))


# --- what is packed ---------------------------------------------------------------------------------


def test_place_packs_families_by_dtype_and_leaves_single_results():
    found = place(
        {
            "w.b": SHAPE((3,), "float32"),
            "w.a": SHAPE((2, 2), "float32"),
            "w.n": SHAPE((), "int32"),
            "curve.one": SHAPE((5,), "float32"),
            "loss": SHAPE((), "float32"),
            "r2": SHAPE((), "float32"),
            "x": SHAPE((7,), "float32"),
        }
    )
    assert found == {"w.a": Place("packed.w", 0, (2, 2)), "w.b": Place("packed.w", 4, (3,))}


@pytest.mark.parametrize(("n", "packed"), [(MOST_OBJECTS - 2, False), (MOST_OBJECTS - 1, True)])
def test_place_packs_numbers_where_a_shard_would_have_too_many_objects(n, packed):
    numbers = {f"number{k}": SHAPE((), "float32") for k in range(n - 3)}
    others = {
        "steps": SHAPE((), "int32"),
        "many": SHAPE((SMALL + 1,), "float32"),
        "few": SHAPE((2, SMALL // 2), "float32"),
    }
    found = place(numbers | others)
    assert set(found) == ({*numbers, "few"} if packed else set())
    assert {where.pack for where in found.values()} <= {"numbers.float32"}


SHAPES = st.dictionaries(
    st.sampled_from(
        [f"{stem}{k}" for stem in ("a.", "b.", "c", "numbers.") for k in range(8)] + ["float32.x"]
    ),
    st.builds(
        SHAPE,
        st.lists(st.integers(0, 3), max_size=3).map(tuple),
        st.sampled_from(["float32", "float64", "int32", "bool", "complex64"]),
    ),
    min_size=1,
)


@settings(max_examples=40)
@given(SHAPES)
def test_place_fills_every_pack_without_gap_or_overlap(shapes):
    places = place(shapes)
    for pack, names in by_pack(places).items():
        assert len(names) > 1
        assert len({shapes[name].dtype for name in names}) == 1
        at = 0
        for name in names:
            assert places[name] == Place(pack, at, shapes[name].shape)
            at += int(np.prod(shapes[name].shape))
    kept = as_attribute(places, lambda name: {"units": "m"})
    assert places_of({"packed": kept}) == places
    assert places_of({}) == {}


# --- how it is read ---------------------------------------------------------------------------------

ROWS = [3, slice(1, 6), slice(None), slice(0, 7, 3), np.array([5, 0, 5]), [2, 6]]
INNER = [(), (1,), (slice(None), 2), ([1, 0],), (slice(None, None, -1), np.array([3, 1]))]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_part_reads_a_number_and_nothing(rows):
    packed = np.arange(21.0).reshape(7, 3)
    array = zarr.create_array({}, shape=packed.shape, chunks=(3, 3), dtype="float64")
    array[...] = packed
    np.testing.assert_array_equal(Part(array, Place("packed.w", 1, ()))[rows], packed[rows, 1])
    empty = Part(array, Place("packed.w", 1, (2, 0)))[rows]
    assert empty.shape == (*packed[rows, 1].shape, 2, 0)


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("inner", INNER, ids=str)
def test_part_reads_what_numpy_reads(rows, inner):
    whole = np.random.default_rng(0).normal(size=(7, 2, 4)).astype(np.float32)
    others = np.zeros((7, 3)), np.ones((7, 5))
    packed = pack_values([others[0], whole, others[1]], np.dtype(np.float32))
    array = zarr.create_array({}, shape=packed.shape, chunks=(3, 6), dtype="float32")
    array[...] = packed
    part = Part(array, Place("packed.w", 3, (2, 4)))
    assert (part.shape, part.dtype, part.chunks) == (whole.shape, whole.dtype, (3, 2, 4))
    # The choices of different axes are independent of one another: one axis after the other.
    expected, axis = whole, 0
    for index in (rows, *inner):
        expected = expected[(*[slice(None)] * axis, index)]
        axis += not isinstance(index, int)
    np.testing.assert_array_equal(part[(rows, *inner)], expected)
    np.testing.assert_array_equal(part.oindex[rows], whole[rows])


# --- in a store -------------------------------------------------------------------------------------

MANY = """
import jax.numpy as jnp
from ctd.kernel import Outcome, Params, Traced, Var, one_shot

class Many(Params):
    scale: Traced[float] = 1.0

def run(static, shared, traced, key):
    s = traced.scale
    numbers = {f"number{k}": k + s for k in range(8)}
    counts = {f"count{k}": jnp.int32(k + 10 * s) for k in range(2)}
    matrix = s * jnp.arange(6.0).reshape(2, 3)
    return {**numbers, **counts, "big": s > 1, "small": s < 1, "outcome": jnp.int32(s > 2),
            "map.wide": matrix, "map.line": matrix[1], "x": matrix[0], "map.count": jnp.int32(s)}

dims = {f"number{k}": Var((), "m", f"number {k}") for k in range(8)}
dims |= {f"count{k}": Var() for k in range(2)} | {name: Var() for name in ("big", "small", "outcome")}
dims |= {"map.wide": Var(("row", "column"), "s"), "map.line": Var(("column",)), "x": Var(("column",)), "map.count": Var()}
kernel = one_shot("many", Many, dims, run, outcomes=(Outcome("low", "s <= 2"), Outcome("high", "s > 2", failed=True)))
"""

JOB = {
    "kernel": "many_kernel",
    "sweep": {"grid": {"scale": [0.3, 1.0, 1.7, 2.4, 3.1]}},
    "run": {"shard_items": 2},
    "keep_bits": {"map.wide": 4, "number3": 6},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    (folder / "many_kernel.py").write_text(MANY)
    address, executor = str(folder / "m.zarr"), SerialExecutor(1)
    store = open_or_create(parse_job(JOB, "m"), str(folder), "m", address, executor)
    assert not run_shards(store, executor).failed
    return store


def test_a_shard_of_many_results_is_few_objects(made):
    assert by_pack(places_of(attributes(made.results(0)))) == {
        "packed.map": ["map.line", "map.wide"],
        "numbers.float32": [*(f"number{k}" for k in range(8)), "x"],
        "numbers.int32": ["count0", "count1", "map.count", "outcome"],
        "numbers.bool": ["big", "small"],
    }
    for marker in made.committed.markers():
        # Four packs and the status.
        assert len(marker.sha256) == 5
    assert check(made.address) == []


def test_packed_results_are_those_that_the_kernel_returned(made):
    scale = np.array([0.3, 1.0, 1.7, 2.4, 3.1], np.float32)
    read = lambda name: made.rows(0, name, 0, 5)
    for k in range(8):
        expected = np.float32(k) + scale
        if k == 3:  # rounded to 6 bits of mantissa
            np.testing.assert_allclose(read("number3"), expected, rtol=2.0**-7)
            assert not np.array_equal(read("number3"), expected)
        else:
            np.testing.assert_array_equal(read(f"number{k}"), expected)
    matrix = scale[:, None, None] * np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(read("map.line"), matrix[:, 1])
    np.testing.assert_allclose(read("map.wide"), matrix, rtol=2.0**-5)
    assert read("big").tolist() == [False, False, True, True, True]
    assert read("map.count").tolist() == [0, 1, 1, 2, 3]
    assert read("map.count").dtype == np.int32


def test_an_opened_store_has_a_variable_for_each_packed_result(made):
    tree = open_store(made.address)
    found = tree["results/0"].to_dataset()
    assert set(made.names(0)) <= set(found.data_vars)
    assert not [name for name in found if str(name).startswith(("packed.", "numbers."))]
    assert found["number2"].attrs == {"units": "m", "long_name": "number 2"}
    assert found["map.wide"].attrs["keep_bits"] == 4
    assert found["map.wide"].dims == ("item", "row", "column")
    assert not found["map.wide"].variable._in_memory
    for name in made.names(0):
        np.testing.assert_array_equal(found[name], made.rows(0, name, 0, 5))
    wide = made.rows(0, "map.wide", 0, 5)
    some = found["map.wide"].isel(item=[4, 1], column=slice(None, None, -1), row=1)
    np.testing.assert_array_equal(some, wide[[4, 1], 1, ::-1])
    for name in made.names(0):
        np.testing.assert_array_equal(found.isel(item=3)[name], made.rows(0, name, 3, 4)[0])
    np.testing.assert_array_equal(found["number2"][found["big"]], made.rows(0, "number2", 2, 5))
    assert found["number2"].variable._in_memory  # kept, as xarray keeps what it opens
    found["map.wide"][0] = 5.0
    assert (found["map.wide"][0] == 5.0).all()
    np.testing.assert_array_equal(open_store(made.address)["results/0"]["map.wide"], wide)
    chosen = tree.select("big", sort="-number1")["results/0"]
    np.testing.assert_array_equal(chosen["map.wide"], wide[[4, 3, 2]])


def test_a_variable_that_is_not_read_yet_goes_to_other_processes(made):
    tree = open_store(made.address)
    assert tree.store.kernel.name == "many"  # has functions without a name, which cannot be pickled
    copy = pickle.loads(pickle.dumps(tree["results/0"]["map.wide"].isel(item=[2, 0])))
    assert not copy.variable._in_memory
    np.testing.assert_array_equal(copy, made.rows(0, "map.wide", 0, 3)[[2, 0]])


def test_opening_reads_the_metadata_once_however_many_groups(made, monkeypatch, tmp_path):
    (tmp_path / "many_kernel.py").write_text(MANY)
    grid = {"scale": [0.5], "dtype": ["float32", "float64"]}
    spec = parse_job(JOB | {"sweep": {"grid": grid}, "keep_bits": {}}, "g")
    executor = SerialExecutor(1)
    store = open_or_create(spec, str(tmp_path), "g", str(tmp_path / "g.zarr"), executor)
    run_shards(store, executor)
    asked = []
    monkeypatch.setattr(Store, "results", lambda self, group: asked.append(group))
    tree = open_store(store.address)
    assert tree["results/1"]["number1"].dtype == np.float64
    assert asked == []


def test_packed_results_without_ctd(made):
    """What docs/store-format.md says of them is enough to read them."""
    open_store(made.address).table()  # gathers
    tree = xr.open_datatree(made.address, engine="zarr")
    group = tree["results/0"]
    for pack, members in group.attrs["packed"].items():
        for name, about in members.items():
            a, shape = about["at"], about["shape"]
            entries = group[pack].values[:, a : a + int(np.prod(shape))]
            np.testing.assert_array_equal(entries.reshape(5, *shape), made.rows(0, name, 0, 5))
            if not shape:
                np.testing.assert_array_equal(tree["items"][name], entries[:, 0])


def test_the_format_page_shows_how_to_read_them(made):
    page = (EXAMPLES.parent / "docs" / "store-format.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for name in ("map.wide", "number4"):
        found = {}
        exec(code.replace("lfads.zarr", made.address).replace("curve.eval.loss", name), found)
        np.testing.assert_array_equal(found["curves"], made.rows(0, name, 0, 5))


def test_an_item_that_failed_with_an_error_leaves_fill_values(tmp_path):
    (tmp_path / "many_kernel.py").write_text(MANY)
    address, executor = str(tmp_path / "f.zarr"), SerialExecutor(1)
    spec = parse_job(JOB | {"keep_bits": {}}, "f")
    store = open_or_create(spec, str(tmp_path), "f", address, executor)
    run_shards(store, executor)
    whole = {name: store.rows(0, name, 0, 2) for name in store.names(0)}
    marker = store.committed.markers()[0]
    rest = {name: values[1:] for name, values in whole.items()} | {"status": np.ones(1, np.int8)}
    write_shard(store, marker.model_copy(update={"without": (0,)}), rest, np.array([1]))
    again = Store.open(address)
    assert again.rows(0, "status", 0, 2).tolist() == [2, 1]
    for name, values in whole.items():
        found = again.rows(0, name, 0, 2)
        np.testing.assert_array_equal(found[1], values[1], err_msg=name)
        fill = -1 if name == "outcome" else np.nan if found.dtype.kind == "f" else 0
        np.testing.assert_array_equal(found[0], np.full_like(found[0], fill), err_msg=name)
    missing = {name: values for name, values in rest.items() if name != "number5"}
    with refused(ValueError):
        write_shard(store, marker, missing, np.array([1]))


OBJECTS = {
    "decision_fixed_points": ({}, 10),
    "force_map": ({"record": ["readout", "weights", "traces"]}, 9),
    "lfads_sweep": ({}, 12),
    "rnn_search": ({}, 6),
    "kuramoto": ({}, 3),
}
"""Example -> (params beside its own, objects that one of its shards is, marker included)."""


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(name, marks=pytest.mark.endurance if name == "decision_fixed_points" else ())
        for name in OBJECTS
    ],
)
def test_objects_of_a_shard_of_the_examples(example):
    params, n = OBJECTS[example]
    job = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text())
    spec = parse_job(job | {"params": job.get("params", {}) | params}, example)
    kernel = find_kernel(spec.kernel, str(EXAMPLES))
    first = expand(spec, kernel).groups[0]
    shapes = outputs_of(kernel, first.params, str(EXAMPLES)).shapes
    shapes |= search_shapes(spec.search, kernel, len(first.items))
    places = place(shapes)
    arrays = {places[name].pack if name in places else name for name in shapes}
    assert len(arrays) + len(("status", "marker")) == n
