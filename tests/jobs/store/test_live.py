"""jobs.store.live: curves of a running shard grow towards what is stored in the end, and are gone then."""

import numpy as np
import pytest
from page_stores import create, finished

from jobs import keys
from jobs.gather.check import check
from jobs.query.query import table
from jobs.report.page.encode import table_json
from jobs.report.page.groups import live
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.storage.checksums import checksummed
from jobs.store import live as live_module
from jobs.store.live import LiveCurves, read_live


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """(the store once it is finished; what a reader saw after each advance; the page's part of it; and, heard by the
    driver, advances made and the most there may be)."""
    store = create(tmp_path_factory.mktemp("live"), "train_rnn")
    seen, pages, heard = [], [], []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EVERY_S", "SHARE"):
            patch.setattr(live_module, name, 0.0)
        patch.setattr(live_module, "COST", np.inf)
        patch.setattr("jobs.run.worker.EVERY_S", 0.0)
        patch.setattr("jobs.run.task.TICK_S", -1.0)
        show = LiveCurves.show

        def and_look(self, run):
            show(self, run)
            seen.append(list(read_live(store)))
            pages.append(live(store))

        patch.setattr(LiveCurves, "show", and_look)
        run_shards(store, SerialExecutor(1), lambda p: heard.append((p.advances, p.most_advances)))
    return store, seen, pages, heard


def test_curves_grow_into_the_stored_ones(watched):
    store, seen, _, _ = watched
    stored = np.asarray(store.array(0, "curve")[:], float)
    assert [[g.advances for *_, g in some] for some in seen] == [[1], [2], [3]]
    for n, [(group, shard, growing)] in enumerate(seen, start=1):
        assert (group, shard, growing.rows) == (0, 0, list(range(10)))
        curve = np.array(growing.curves["curve"], float)
        assert curve[:, :n] == pytest.approx(stored[:, :n], rel=1e-4)  # written with 5 digits
        assert np.isnan(curve[:, n:]).all()


def test_driver_hears_how_many_advances_there_may_be(watched):
    *_, heard = watched
    assert [((n,), 4) for n in range(1, 5)] == [(n, most) for n, most in heard if any(n)]


def test_page_shows_them_over_training_steps_with_what_was_swept(watched):
    store, _, pages, _ = watched
    assert pages[0]["plots"] == [], "a point makes no line"
    [plot] = pages[-1]["plots"]
    assert plot["layers"][0]["x"] == [10, 20, 30, 40]
    assert plot["x"]["label"] == "training steps taken"
    assert plot["layers"][0]["item"] == list(range(10))
    columns = {c["name"]: c["values"] for c in pages[-1]["table"]["columns"]}
    assert columns["learning_rate"] == pytest.approx(
        store.rows(0, "learning_rate", 0, 10), rel=1e-5
    )
    assert plot["note"].startswith("Running items")


def test_nothing_is_left_once_the_shard_is_committed(watched):
    store, *_ = watched
    assert not list(objects.list_keys(store.objects, keys.LIVE))
    assert live(store) is None


class Slow:
    """A run whose advances take `advance_s` and whose first look compiles for 0.4 s, by a clock of its own."""

    def __init__(self, advance_s):
        self.clock, self.advance_s, self.rounds, self.looks = 0.0, advance_s, 0, []
        self.going = np.arange(2)  # rows that have not finished
        self.length = 200  # of the curve

    def advance(self):
        self.clock, self.rounds = self.clock + self.advance_s, self.rounds + 1

    def peek(self, names):
        if names == ("outcome",):
            return np.arange(2), {"outcome": np.array([0, 1])}
        self.looks.append(self.clock)
        self.clock += 0.004 if len(self.looks) > 1 else 0.4
        at = np.arange(self.length)
        curve = np.where(at < self.rounds, 5.0 - at + self.clock, np.nan)
        return np.arange(2), {names[0]: np.stack([curve, curve + 2])}


@pytest.mark.parametrize(("advance_s", "first"), [(0.5, 4.5), (4.0, 4.0), (60.0, 60.0)])
def test_first_look_comes_early_and_its_compilation_puts_off_no_second_one(
    tmp_path, monkeypatch, advance_s, first
):
    """Charged to 1 % of the time, 0.4 s put off the second look by 40 s."""
    store, run = create(tmp_path, "train_rnn"), Slow(advance_s)
    monkeypatch.setattr(live_module.time, "monotonic", lambda: run.clock)
    curves = LiveCurves(store, store.job.plan.shard(0), np.arange(10), ("curve",))
    while len(run.looks) < 2:
        run.advance()
        curves.show(run)
    assert run.looks[0] == first
    assert run.looks[1] - run.looks[0] <= 0.4 + max(5.0 + advance_s, advance_s)
    name, now, best, more, advances = curves.value
    assert (name, more, advances) == ("loss in training", False, run.rounds)
    assert best <= now


def test_items_that_ended_badly_are_counted_at_the_next_look(tmp_path, monkeypatch):
    store, run = create(tmp_path, "train_rnn"), Slow(60.0)
    monkeypatch.setattr(live_module.time, "monotonic", lambda: run.clock)
    curves = LiveCurves(store, store.job.plan.shard(0), np.arange(10), ("curve",))
    told = []
    for going in ([0, 1], [1], []):  # row 0 was trained, row 1 diverged
        run.going = np.array(going, int)
        run.advance()
        curves.show(run)
        told.append(dict(curves.failed))
    assert told == [{}, {}, {"diverged": 1}]


def test_running_items_have_their_values_as_the_table_of_items_has_them(tmp_path):
    """Whole numbers and lists, too: the page gives equal values one colour."""
    store = create(tmp_path, "toy")
    growing = {"rows": [0, 3], "advances": 1, "places": {"x": [0, 1]}, "curves": {"x": [[1.0, 2.0]] * 2}}  # fmt: skip
    objects.write(store.objects, keys.live(0, 0), checksummed(growing))
    found = {column.pop("name"): column for column in live(store)["table"]["columns"]}
    of_items = table_json("items", table(finished("toy"), "items").iloc[[0, 3]], {})
    expected = {column.pop("name"): column for column in of_items["columns"]}
    assert found == {name: expected[name] for name in ("item", "rate", "push", "n")}


HURT = {
    "no such row": {"rows": [99]},
    "no such group": None,
    "other lengths": {"curves": {"curve": [[1.0]]}},
    "no numbers": {"curves": {"curve": [["<b>"] * 4]}},
    "another field": {"onclick": "hacked()"},
}


@pytest.mark.parametrize("name", HURT)
def test_what_does_not_fit_is_passed_over(tmp_path, name):
    store = create(tmp_path, "train_rnn")
    good = {"rows": [0], "advances": 1, "places": {"curve": [0, 1, 2, 3]}, "curves": {"curve": [[1.0] * 4]}}  # fmt: skip
    objects.write(store.objects, keys.live(0, 0), checksummed(good))
    assert len(list(read_live(store))) == 1
    assert live(store)["plots"][0]["note"] == "As they were when the run stopped."
    objects.delete(store.objects, keys.live(0, 0))
    hurt = good | (HURT[name] or {})
    objects.write(store.objects, keys.live(7 if HURT[name] is None else 0, 0), checksummed(hurt))
    assert not list(read_live(store))


def test_check_removes_what_a_killed_process_left(watched):
    store, *_ = watched
    objects.write(store.objects, keys.live(0, 0), checksummed({"rows": [0]}))
    assert keys.live(0, 0) in [finding.key for finding in check(store.address)]
    check(store.address, repair=True)
    assert objects.read(store.objects, keys.live(0, 0)) is None


@pytest.mark.parametrize(("metric", "has_best"), [("eval_loss", True), ("accuracy", False)])
def test_a_curve_has_a_best_if_the_metric_says_which_way_is_better(tmp_path, metric, has_best):
    """Less of an accuracy is worse; of a kernel's own curve, such as a rate, nobody says."""
    store, run = create(tmp_path, "train_rnn"), Slow(60.0)
    store.description = store.description.model_copy(update={"metric": metric})
    curves = LiveCurves(store, store.job.plan.shard(0), np.arange(10), ("curve",))
    run.advance()
    curves._look(run.peek(("curve",))[1], 1, np.ones(2, bool))
    assert np.isfinite(curves.value.best) == has_best


def test_a_curve_that_is_full_before_the_end_is_told_no_more(tmp_path, monkeypatch):
    """Its last point was told as the value of an advance long after it."""
    store, run = create(tmp_path, "train_rnn"), Slow(60.0)
    monkeypatch.setattr(live_module.time, "monotonic", lambda: run.clock)
    curves, run.length, told = (
        LiveCurves(store, store.job.plan.shard(0), np.arange(10), ("curve",)),
        2,
        [],
    )
    for _ in range(3):
        run.advance()
        curves.show(run)
        told.append(curves.value is not None)
    assert told == [True, False, False]
