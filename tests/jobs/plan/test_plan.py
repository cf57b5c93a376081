"""jobs.plan.layout: items, groups and shards are exact partitions; bad values are refused by name."""

import subprocess
import sys

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from messages import refused
from places import SUPPORT
from pydantic import Field
from stores import make

from ctd.batch import DeviceSlots, program
from ctd.catalogue import load_kernel
from ctd.kernel import Data, Params, Traced, Var, one_shot
from jobs.errors import JobError
from jobs.inputs import measure
from jobs.inputs.measure import evaluate_group, outputs_of
from jobs.plan.items import expand
from jobs.plan.layout import CHUNK_BYTES, GroupLayout, Machines, Sizes, chunk_shape, lay_out
from jobs.plan.params import CHECKED
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings

SIZES = Sizes(state=100, work=100, result=100, shared=1000)


def items_of(sweep, params=None):
    return expand(
        parse_job({"kernel": "toy", "params": params or {}, "sweep": sweep}, "job"), toy.kernel
    )


def test_expand_groups_by_static_and_data():
    sweep = {"grid": {"n": [2, 3], "rate": [0.1, 0.2, 0.3], "offset": [0.0, 1.0]}, "seeds": 2}
    items = items_of(sweep)
    assert items.n == 24
    assert [g.labels for g in items.groups] == [
        {"n": n, "offset": o} for n in (2, 3) for o in (0.0, 1.0)
    ]
    together = np.concatenate([g.items for g in items.groups])
    assert sorted(together) == list(range(24))
    for group in items.groups:
        assert (np.diff(group.items) > 0).all()
        assert set(items.values("rate", group.items)) == {0.1, 0.2, 0.3}
        assert group.params.n == group.labels["n"]


def test_expand_tuple_columns():
    items = items_of({"grid": {"push": [[0, 1], [2, 3]]}})
    np.testing.assert_array_equal(items.values("push", np.arange(2)), [[0, 1], [2, 3]])


def test_expand_files_and_lists_of_files():
    """A field whose values are a file or several: each is a group, and a text in the column."""
    sweep = {"grid": {"data": ["a.h5", ["a.h5", "b.h5"]]}}
    kernel = load_kernel("lfads")
    items = expand(parse_job({"kernel": "lfads", "sweep": sweep}, "job"), kernel)
    assert [group.params.data for group in items.groups] == ["a.h5", ("a.h5", "b.h5")]
    assert items.values("data", np.arange(2)).tolist() == ["a.h5", "a.h5, b.h5"]


def test_expand_sweep_list_appends():
    one = items_of({"grid": {"rate": [0.1, 0.2]}})
    two = items_of([{"grid": {"rate": [0.1, 0.2]}}, {"grid": {"n_steps": [1, 2, 3]}}])
    assert two.n == 5
    np.testing.assert_allclose(two.values("rate", np.arange(2)), one.values("rate", np.arange(2)))
    np.testing.assert_allclose(two.values("rate", np.arange(2, 5)), 0.5)
    np.testing.assert_array_equal(two.values("n_steps", np.arange(5)), [10, 10, 1, 2, 3])


def test_texts_of_numbers_are_numbers_behind_long_lists_too():
    items = items_of([{"zip": {"rate": [0.25] * (CHECKED + 1)}}, {"grid": {"rate": ["0.5"]}}])
    assert items.values("rate", np.arange(items.n)).tolist() == [0.25] * (CHECKED + 1) + [0.5]


def test_values_are_checked_in_combinations_that_occur():
    """Of fields that depend on each other: side by side, in sweeps of a list; with all others in a grid."""
    kernel, pairs = load_kernel("esn"), {"target": ["lorenz", "mackey-glass-17"], "m": [3, 1]}
    apart = [{"grid": {name: [v[k]] for name, v in pairs.items()}} for k in range(2)]
    expanded = lambda sweep: expand(parse_job({"kernel": "esn", "sweep": sweep}, "job"), kernel)
    for sweep in ({"zip": pairs}, {"zip": pairs, "grid": {"g": [1.1, 1.2]}, "seeds": 2}, apart):
        groups = expanded(sweep).groups
        assert [(g.params.target, g.params.m) for g in groups] == [("lorenz", 3), ("mackey-glass-17", 1)]  # fmt: skip
    said = "job: params: m: 1 given, but target lorenz has 3 output(s); give m: 3"
    for sweep in ({"grid": pairs}, {"zip": pairs | {"m": [1, 1]}}):
        with pytest.raises(JobError) as error:
            expanded(sweep)
        assert said in str(error.value).splitlines()


class Seeded(Params):
    seed: Traced[int] = 42
    pair: Traced[tuple[int, int]] = (1, 2)
    box: Data[dict[str, int]] = Field({})


class Required(Params):
    gain: Traced[float]


REQUIRED = one_shot(
    "required", Required, {"y": Var()}, lambda static, shared, traced, key: {"y": traced.gain}
)

SEEDED = one_shot(
    "seeded", Seeded, {"y": Var()}, lambda static, shared, traced, key: {"y": traced.seed}
)


def seeded(sweep):
    return expand(parse_job({"kernel": "seeded", "sweep": sweep}, "job"), SEEDED)


def test_a_sweep_without_a_field_has_its_default():
    items = seeded([{"grid": {"pair": [[1, 2]]}}, {"seeds": 2}])
    assert items.values("seed", np.arange(3)).tolist() == [42, 0, 1]


def test_a_sweep_without_a_required_field_is_refused():
    spec = parse_job(
        {"kernel": "required", "sweep": [{"seeds": 2}, {"grid": {"gain": [1]}}]}, "job"
    )
    with pytest.raises(JobError) as error:
        expand(spec, REQUIRED)
    said = (
        "job: sweep: 'gain' is missing in a sweep of the list, and has no default; give it in each"
    )
    assert str(error.value) == said


def test_tuples_of_whole_numbers_stay_whole():
    found = seeded({"grid": {"pair": [[4, 2], [16777217, 3]]}}).values("pair", np.arange(2))
    assert (found.dtype.kind, found.tolist()) == ("i", [[4, 2], [16777217, 3]])


def test_inner_fields_of_a_list_of_sweeps():
    items = seeded([{"grid": {"box.a": [1, 2]}}, {"grid": {"box.a": [3]}}])
    assert items.values("box.a", np.arange(3)).tolist() == [1, 2, 3]
    assert [group.params.box for group in items.groups] == [{"a": 1}, {"a": 2}, {"a": 3}]
    for sweep in (
        {"grid": {"box.a": [5, 10]}, "zip": {"box": [{"b": 1}, {"b": 2}]}},
        [{"grid": {"box.a": [1]}}, {"seeds": 2}],
    ):  # fmt: skip
        with refused(JobError):
            seeded(sweep)


def test_values_have_the_kind_of_their_field():
    """Whatever draws them: whole numbers of a real field, and long lists, of which the first ones alone are validated."""
    long = [*range(CHECKED, 0, -1), CHECKED + 2, CHECKED + 1]
    for sweep, name, expected, kind in (
        ({"grid": {"rate": {"range": [1, 4]}}}, "rate", [1, 2, 3], "f"),
        ({"grid": {"n_steps": {"linspace": [0, 4, 3]}}}, "n_steps", [0, 2, 4], "i"),
        ([{"seeds": 12}, {"seeds": 12}], "seed", [*range(12)] * 2, "i"),
        ({"zip": {"n_steps": long}}, "n_steps", long, "i"),
        (
            [{"grid": {"n_steps": {"range": 11}}}, {"zip": {"n_steps": long}}],
            "n_steps",
            [*range(11), *long],
            "i",
        ),
    ):
        items = items_of(sweep)
        found = items.values(name, np.arange(items.n))
        assert found.dtype.kind == kind
        np.testing.assert_array_equal(found, expected)
    with refused(JobError):
        items_of({"grid": {"n_steps": {"linspace": [0, 5, 3]}}})


@pytest.mark.parametrize("n", [127, 128, 129, 40_000])
def test_codes_hold_every_value_of_an_axis_and_of_sweeps_end_to_end(n):
    """Codes take the smallest integers that hold an axis; two axes end to end take larger ones."""
    rates = np.linspace(0, 0.5, n)
    one, two = ({"grid": {"rate": {"linspace": [a, a + 0.5, n]}}, "seeds": 2} for a in (0, 1))
    items = items_of([one, two])
    found = items.values("rate", np.arange(items.n))
    np.testing.assert_array_equal(found, np.repeat([*rates, *np.linspace(1, 1.5, n)], 2))


@pytest.mark.parametrize(
    ("sweep", "params", "said"),
    [
        ({"grid": {"rat": [1]}}, {}, "sweep: unknown field 'rat'; did you mean 'rate'?"),
        ({"grid": {"rat": [1, [2]]}}, {}, "sweep: unknown field 'rat'; did you mean 'rate'?"),
        ({}, {"rat": 1}, "params: rat: unknown field; did you mean 'rate'?"),
        ({"grid": {"rate": [0.1]}}, {"rate": 1}, "'rate' is given in params and in sweep"),
        ({"seeds": 2}, {"seed": 3}, "job: params: seed: unknown field; write seed: 3 beside params"),
        ({"grid": {"n": [2, 0]}}, {}, "sweep: n: must be greater than 0 (given: 0)"),
        (
            {"grid": {"n": {"range": 5000}}},
            {"offset": 1},
            "sweep: n: must be greater than 0",
        ),
        ({"grid": {"n": [2, "many"]}}, {}, "a whole number"),
        ({"grid": {"rate": [0.1, [1, 2]]}}, {}, "rate: must be a number"),
        ({"grid": {"rate.x": [1]}}, {}, "'rate' is a number"),
        ({"grid": {"rate": [0.1, True]}}, {}, "sweep: rate: must be a number (given: true)"),
        ({}, {"n": True}, "params: n: must be a number (given: true)"),
        ({}, {"push": [1, False]}, "params: push.1: must be a number (given: false)"),
        (
            {"grid": {"rate": {"range": 100000}, "n_steps": {"range": 10000}}},
            {},
            "1,000,000,000 items",
        ),
        ({"grid": {"rate": {"range": 0}}}, {}, "0 items"),
        ([{"grid": {"rate": {"range": 0}}}, {"seeds": 2}], {}, "0 items"),
        ([], {}, "0 items"),
        ({"grid": {"push": [[0, 1], [1, 2, 3]]}}, {}, "push: tuples of the lengths"),
        ([{"grid": {"zz": [1]}}, {"grid": {"zz": [2]}}], {}, "unknown field 'zz'"),
        ({"grid": {"n_steps": [2**31]}}, {}, "n_steps: 2147483648 given; a traced whole number has 32 bits"),
        ({"grid": {"push": [[0, 1], [0, 1e39]]}}, {}, "push: (0.0, 1e+39) given; float32 has numbers up to 3.4e38"),
        ({"grid": {"rate": {"geomspace": [1, 1e39, 5]}}}, {}, "rate: 1e+39 given; float32 has numbers up to 3.4e38"),
        # Behind the values that are validated one by one.
        ([{"grid": {"rate": {"linspace": [0, 1, CHECKED + 1]}}}, {"grid": {"rate": [-5.0]}}], {}, "greater than -1"),
        ([{"grid": {"n_steps": {"range": CHECKED + 1}}}, {"grid": {"n_steps": [0.5]}}], {}, "(given: 0.5)"),
    ],
)  # fmt: skip
def test_expand_refuses(sweep, params, said):
    with pytest.raises(JobError) as caught:
        items_of(sweep, params)
    assert said in str(caught.value)
    # One fault, one line.
    assert "\n" not in str(caught.value)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(1, 10**7),
    st.sampled_from([None, 1, 7, 100]),
)
def test_lay_out_partitions(sizes, workers, result, shard_items):
    """Every row in exactly one shard; shards of a group are whole multiples but for the last."""
    size = SIZES._replace(result=result)
    settings = RunSettings(shard_items=shard_items)
    plan = lay_out([(n, size) for n in sizes], toy.kernel, settings, Machines(workers, 10**9))
    seen = [np.zeros(n, int) for n in sizes]
    for number, shard in enumerate(plan.shards()):
        assert shard.number == number
        seen[shard.group][shard.start : shard.stop] += 1
        assert shard.start % plan.layouts[shard.group].shard_items == 0
    assert all((s == 1).all() for s in seen)
    assert plan.n_shards == number + 1
    for layout in plan.layouts:
        assert 1 <= layout.slots <= layout.shard_items
        if shard_items is None and layout.shard_items * result > CHUNK_BYTES[1]:
            (chunk,) = chunk_shape((layout.shard_items,), result)
            assert layout.shard_items % chunk == 0
            assert chunk == 1 or CHUNK_BYTES[0] <= chunk * result <= CHUNK_BYTES[1]


@pytest.mark.parametrize(
    ("shard", "itemsize", "chunk"),
    [
        ((4096, 100), 8, (4096, 100)),  # 3.3 MB: whole
        ((4096, 5000), 4, (512, 5000)),  # 82 MB: eight, of 10 MB
        ((64, 300, 200, 50), 4, (1, 300, 200, 50)),  # items of 12 MB: one each
        ((8, 400, 1000, 100), 4, (1, 40, 1000, 100)),  # items of 160 MB: parts of one
        ((4877, 1000), 4, (4877, 1000)),  # a prime number of rows, 19.5 MB: rather that than 4 kB
        ((10, 0), 8, (10, 1)),
    ],
)
def test_chunk_shape_is_of_whole_items_within_bounds(shard, itemsize, chunk):
    assert chunk_shape(shard, itemsize) == chunk
    assert all(max(1, n) % k == 0 for n, k in zip(shard, chunk, strict=True))


def test_lay_out_gives_every_worker_a_shard():
    plan = lay_out([(16, SIZES)], toy.kernel, RunSettings(), Machines(2, 10**9))
    assert plan.n_shards == 2
    plan = lay_out([(10**4, SIZES)], toy.kernel, RunSettings(), Machines(2, 10**9))
    assert plan.n_shards == 8


@pytest.mark.parametrize(
    ("settings", "memory"),
    [
        ({}, 1100),
        ({"slots": 9}, 2000),
    ],
)
def test_lay_out_refuses_what_cannot_fit(settings, memory):
    with refused(JobError):
        lay_out([(10, SIZES)], toy.kernel, RunSettings(**settings), Machines(1, memory))


def test_lay_out_leaves_devices_without_an_item_out():
    """Four devices of a worker share 1,200 B beside data of 1,000 B each: two items are too much for two of them, one is not for one."""
    machines = Machines(1, 300, devices=4)
    (layout,) = lay_out([(1, SIZES)], toy.kernel, RunSettings(), machines).layouts
    assert layout.of_devices(4) == (1, 1)
    with refused(JobError):
        lay_out([(2, SIZES)], toy.kernel, RunSettings(), machines)
    assert GroupLayout(slots=8, microbatch=0, shard_items=6).of_devices(4) == (2, 4)
    assert GroupLayout(slots=8, microbatch=0, shard_items=6).of_devices(4, narrowed=1) == (1, 4)


def test_lay_out_slots_shrink_to_memory():
    plan = lay_out([(10, SIZES)], toy.kernel, RunSettings(), Machines(1, 1000 + 3 * 200))
    assert plan.layouts[0].slots == 3


MILLION = """
import sys, time, resource; sys.path.insert(0, {path!r})
import toy
from jobs.plan.items import expand
from jobs.plan.layout import Machines, Sizes, lay_out
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
sweep = {{"grid": {{"rate": {{"linspace": [0, 0.9, 1000]}}, "n_steps": {{"range": 100}}}}, "seeds": 10}}
items = expand(parse_job({{"kernel": "toy", "sweep": sweep}}, "job"), toy.kernel)
plan = lay_out([(items.n, Sizes(8, 8, 8, 8))], toy.kernel, RunSettings(shard_items=100), Machines(1000, 10**9))
shards = list(plan.shards())
assert items.n == 10**6 and len(shards) == 10**4
print(time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""


def test_plan_of_a_million_items_is_small():
    """10^6 items in 10^4 shards: under 500 MB. (benchmarks/plan.py times it: no timing in tests.)"""
    code = MILLION.format(path=str(SUPPORT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    _, megabytes = map(float, done.stdout.split())
    assert megabytes < 500


@pytest.mark.parametrize("name", ["gain", "status"])
def test_result_with_the_name_of_a_column_is_refused(name):
    class Gain(Params):
        gain: Traced[float] = 1.0

    run = lambda static, shared, traced, key: {name: traced.gain}
    kernel = one_shot("gain", Gain, {name: Var()}, run)
    with refused(JobError):
        outputs_of(kernel, Gain(), ".")


def test_a_program_is_compiled_for_its_memory_once_however_often_it_is_planned(monkeypatch):
    """Groups that differ in data, in traced values or in their size share it."""
    temporaries, asked = DeviceSlots.temporaries, []
    monkeypatch.setattr(
        DeviceSlots, "temporaries", lambda self: asked.append(1) or temporaries(self)
    )
    tables = (({}, 4, 1), ({"offset": 2.0}, 4, 1), ({"n_steps": 3}, 6, 1), ({"n": 47}, 4, 2))
    for params, slots, n in tables:
        values = toy.Walk.model_validate({"n": 46} | params)
        group = evaluate_group(toy.kernel, values, str(SUPPORT))
        first, again = (
            group.measured(GroupLayout(slots=slots, microbatch=2, shard_items=8), 1)
            for _ in range(2)
        )
        assert first == again
        assert (len(asked), first.work > 0) == (n, True), params


@pytest.mark.parametrize(
    ("n_groups", "memory", "compiled"),
    [(8, 10**9, 8), (30, 10**9, measure.MEASURED), (30, 4 * 4 * 60, 30)],
)
def test_measured_programs(n_groups, memory, compiled, monkeypatch):
    """Of many some, unless the memory may be too small for the others."""
    asked = []
    monkeypatch.setattr(
        DeviceSlots, "temporaries", lambda self: asked.append(1) or 2 * self.program.static.n
    )
    measure._works.cache_clear()
    sizes = [50 + 7 * k % n_groups for k in range(n_groups)]
    groups = [evaluate_group(toy.kernel, toy.Walk(n=n), str(SUPPORT)) for n in sizes]
    layouts = [GroupLayout(slots=4, microbatch=1, shard_items=4)] * n_groups
    works = [size.work for size in measure.measured(groups, layouts, Machines(1, memory))]
    assert len(asked) == compiled
    assert works == pytest.approx([2 * n for n in sizes], abs=1)  # rounded to bytes
    measure._works.cache_clear()


@pytest.mark.parametrize(
    ("sizes", "given"),
    [
        ([3, 5], {"slots": 4, "microbatch": 2}),
        ([3], {"shard_items": 5, "microbatch": 2}),
        ([3], {"microbatch": 4}),
    ],
)
def test_a_run_has_the_programs_that_its_plan_was_measured_with(tmp_path, sizes, given):
    """So that each is compiled once: the workers', too, where they keep what is compiled."""
    sweep = {"grid": {"n": sizes, "rate": {"linspace": [0, 0.5, 6]}}}
    program.cache_clear()
    measure._works.cache_clear()  # what another test has measured
    store = make(tmp_path / "t.zarr", {"kernel": "toy", "sweep": sweep, "run": given})
    assert program.cache_info().misses == len(sizes)
    run_shards(store, SerialExecutor(1))
    assert program.cache_info().misses == len(sizes)
