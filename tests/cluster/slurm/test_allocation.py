"""Whole allocations on a real Slurm: nodes with their own network, processes and /tmp (tests/support/slurm_lab).

Slurm's clocks count in minutes. The stories (tests/support/slurm_stories.py) are therefore played side by side, by threads that
only wait, and the tests look at how they ended. The suite plays one of each kind: an allocation that ends, one that goes on in a
second one, one that is cancelled; and those that need no Ray. The others, and Slurm's own clocks, are for -m endurance.
"""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pytest
from slurm_lab import ONE_AT_A_TIME, job, profile
from slurm_stories import STORIES

from cluster.submit import read_order, text_of
from jobs import Store, open_store
from jobs.store.events import read_events

pytestmark = pytest.mark.slow

AT_ONCE = 4
"""Stories at a time: each starts a Ray or two, which takes both cores for a while."""


@pytest.fixture(scope="module")
def n_nodes(request):
    """Those that the stories name: three, and six more for the long ones."""
    asked = (item for item in request.session.items if item.path == request.path)
    return 9 if any(item.get_closest_marker("endurance") for item in asked) else 3


@pytest.fixture(scope="module")
def played(lab, request):
    """The stories of the tests that were asked for."""
    names = {item.name for item in request.session.items if item.path == request.path}
    wanted = [play for name, play in STORIES.items() if name in names]
    # The threads find imported what all of them need: two that import at once may wait for each other for ever.
    text_of(read_order(job(lab, "imported"), profile(lab)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {play: pool.submit(play, lab) for play in dict.fromkeys(wanted)}
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def end(played, request):
    """What the test's story returned, once it is over."""
    return played[STORIES[request.node.name]].result()


@pytest.fixture
def ctd(command_line):
    """What `ctd COMMAND` prints of its store, once a story has ended."""

    def show(command, end):
        with ONE_AT_A_TIME:
            code, out, err = command_line(command, end.sent.address)
        assert code == 0, err
        return out

    return show


@pytest.mark.parametrize("ray", ["no ray", pytest.param("ray", marks=pytest.mark.endurance)])
def test_scancel_leaves_nothing(end, ray):
    assert end.sent.state() == "CANCELLED"
    end.sent.assert_nothing_left()
    assert [path.exists() for path in (*end.old, *end.others)] == [False, False, True, True]
    # What Slurm wrote lies where it is looked for.
    written = {path.name.partition("-")[0] for path in end.sent.home.glob(f"*-{end.sent.number}.*")}
    assert written == {"slurm", "head", "worker"}


def test_cancel(end, ctd):
    """The run is left at a checkpoint, resumable; nothing of it is left on the nodes."""
    sent = end.sent
    assert re.search(
        f"allocation {sent.number} of .* is running on n\\[1-2\\]; wait for it", end.refused
    )
    assert end.before == "running on n[1-2]"
    assert f"allocation {sent.number}: told to stop; cancel once more to end it at once" in end.said
    assert sent.history() == ["started", "ended", "cancelled"], sent.log()
    assert sent.checkpoints()
    sent.assert_nothing_left()
    assert f"allocation {sent.number}: cancelled; `ctd submit` continues it" in ctd("status", end)
    printed = ctd("logs", end)
    assert "cancelled" in printed
    assert f"[{sent.number}] starting Ray on n1 (log: head-{sent.number}.0.log)" in printed
    assert "waiting because you hold it" in end.waits
    assert end.ended == ([f"allocation {end.waiting}: cancelled"], "CANCELLED")


def _array_is_whole(end):
    """Each shard of an array was computed once, to the bits of a run here, and nothing is left behind. Returns the store."""
    sent = end.sent
    assert "#SBATCH --array=0-2\n" in sent.text
    assert all(label.startswith(f"{sent.number}_") for label in end.running)
    sent.assert_same_as_here()
    store = Store.open(sent.address)
    events = [e.shard for e in read_events(store) if e.kind == "done"]
    assert sorted(events) == list(range(store.job.plan.n_shards))
    assert open_store(sent.address)["gathered/0"].best_norm.size == 3
    assert len(end.ids) == 3
    for number in end.ids:
        sent.assert_nothing_left(number)
    return store


@pytest.mark.endurance
def test_array_shares_the_store(end):
    """Single-node heads deal the shards out among themselves; each shard is computed once."""
    sent = end.sent
    ended = {f"{sent.number}_{k}": "COMPLETED" for k in range(3)} | {end.base: "CANCELLED"}
    assert {label: state.word for label, state in end.states.items()} == ended, sent.log()
    noted = ["cancelled", *["ended"] * 3, *["started"] * 3]
    assert sorted(line[2] for line in end.events) == noted, sent.log()
    store = _array_is_whole(end)
    assert len({(m.host, m.pid) for m in store.committed.markers()}) == 2


@pytest.mark.endurance
def test_array_whose_own_task_is_stopped_first(end):
    """What the array's own task ends is its own: asked for its id, Slurm tells of the steps of all."""
    sent = end.sent
    labels = [f"{sent.number}_{k}" for k in range(3)]
    states = {label: state.word for label, state in end.states.items()}
    assert states == dict.fromkeys(labels, "COMPLETED"), sent.log()
    again = [line[1] for line in end.events if line[2] == "requeued"]
    assert again == [end.base], sent.log()
    # Asked to requeue the array's id, Slurm would start the others again as well.
    starts = Counter(line[1] for line in end.events if line[2] == "started")
    assert starts == {label: 1 + (label == end.base) for label in labels}, sent.log()
    _array_is_whole(end)


def test_two_submissions_on_the_same_node(end):
    """Both run at once. The one that is not cancelled goes on to its time limit: near it the run is checkpointed, and the same
    allocation, started again, ends it with the bytes of a local run, in its container, and leaves nothing behind.
    """
    assert end.together == ["RUNNING", "RUNNING"]
    assert end.undisturbed == ["started"]
    ended, sent = end.beside, end.beside.sent
    assert any("advances" in text for text in ended.left_at), (
        "its worker has left it at a checkpoint"
    )
    assert ended.last == sent.number
    assert ended.history == ["started", "ended", "requeued", "started", "ended"], sent.log()
    assert ended.state == "COMPLETED", sent.log()
    sent.assert_same_as_here()
    store = Store.open(sent.address)
    assert {marker.host for marker in store.committed.markers()} == {"n1"}
    assert not [event for event in read_events(store) if event.kind == "error"]
    sent.assert_nothing_left()
    # A head that is not up in time on a busy machine is started once more.
    ran = [words for words, _ in groupby(line.split()[:2] for line in end.inside.splitlines())]
    # The versions are asked for as it is submitted; then two allocations, each with a head and a driver.
    assert ran == [["python", "-m"], *[["ray", "start"], ["ctd", "run"]] * 2], sent.log()


@pytest.mark.endurance  # as a time limit, but that Slurm requeues by itself, as it does after a lost node, too
def test_preemption(end):
    """The run is checkpointed, requeued, and ends with the same bytes."""
    end.assert_same_as_here()
    end.assert_nothing_left()


@pytest.mark.endurance
def test_node_killed(end):
    """Slurm notices, requeues the allocation, and the run goes on when the node is back."""
    assert end.history() == ["started", "ended", "requeued", "started", "ended"], end.log()
    end.assert_same_as_here()
    end.assert_nothing_left()


AGAIN = [["started"], ["ended", "75"], ["requeued"], ["started"], ["ended", "0"]]


@pytest.mark.endurance
@pytest.mark.parametrize(
    "noted",
    [
        pytest.param(AGAIN, id="head"),
        pytest.param(AGAIN, id="head told often"),
        pytest.param([["started"], ["ended", "0"]], id="step"),
        pytest.param([["started"], ["started"], ["ended", "0"]], id="slurmd"),
    ],
)  # fmt: skip
def test_part_of_it_ends(end, noted):
    """The run ends with the same bytes: in another allocation if its head is lost, else where it is."""
    lines = [line[2:4] if line[2] == "ended" else line[2:3] for line in end.lines]
    assert lines == noted, end.sent.log()
    end.sent.assert_same_as_here()
    end.sent.assert_nothing_left()


@pytest.mark.parametrize(
    "early",
    [
        "late",
        "again",
        pytest.param("at once", marks=pytest.mark.endurance),  # as `again`, at its second try
        pytest.param("limit", marks=pytest.mark.endurance),
    ],
)
def test_no_progress_is_no_reason_to_go_on(end, ctd, early):
    """Two allocations that computed nothing are the last ones, and `ctd status` says why.

    There is one chain, and each of its allocations is known, also where `sbatch` is answered late or at the second time.
    """
    noted = ["chained", "ended", "ended", "started", "started", "stuck"]
    assert sorted(end.history) == noted, end.sent.log()
    assert end.history[-1] == "stuck"
    assert "given up: two allocations in a row made no progress" in ctd("status", end)
    end.sent.assert_nothing_left()


def test_a_refused_allocation_is_told(end, ctd):
    assert [line[2] for line in end.lines] == ["started", "ended", "unqueued"]
    assert "given up: Slurm did not queue the next allocation" in ctd("status", end)


def test_the_last_allocation_asks_for_no_other(end, ctd):
    """It would wait for its nodes only to say so."""
    assert end.history == ["started", "ended", "limit"]
    assert "given up: it has used all of its max_allocations" in ctd("status", end)


def test_tasks_of_an_array_are_told_apart(end):
    """Each notes what it does by its own label, and compares its own progress."""
    labels = [f"{end.sent.number}_{k}" for k in range(2)]
    for label in labels:
        noted = [line[2] for line in end.lines if line[1] == label]
        assert noted == ["started", "ended", "requeued", "unqueued"]
    compared = sorted(path.name for path in end.sent.home.glob("progress*"))
    assert compared == ["progress-0.still", "progress-1.still"]
    end.sent.assert_nothing_left()


@pytest.mark.parametrize(
    "noted",
    [
        pytest.param(["started", "ended", "cancelled"], id="refused"),
        pytest.param(["started", "ended", "chained", "cancelled"], id="done"),
        pytest.param(["started", "ended", "requeued", "cancelled"], id="requeue"),
    ],
)
def test_cancel_between_two_allocations(end, noted):
    """Nothing more is asked for, and what Slurm has queued already ends as it starts."""
    words = ("told to stop; cancel once more to end it at once", "has ended meanwhile")
    assert any(f"allocation {end.sent.number}: {word}" in end.said for word in words)
    assert end.history == noted, end.sent.log()
    end.sent.assert_nothing_left()


@pytest.mark.parametrize("how", ["preempted", pytest.param("lost", marks=pytest.mark.endurance)])
def test_a_chain_goes_on_after_slurm_ends_it(end, how):
    assert end.history[:3] == ["started", "ended", "chained"], end.sent.log()


@pytest.mark.endurance  # with the signal by our hand: test_two_submissions_on_the_same_node; that allocations are chained is seen above, too
@pytest.mark.parametrize(
    "again",
    [
        pytest.param("requeued", id="requeue"),
        pytest.param("chained", id="chain"),
        pytest.param("chained", id="unheard"),
    ],
)
def test_time_limit(end, again):
    """At the limit the run is checkpointed, and another allocation ends it with the same bytes."""
    sent = end.sent
    assert (end.last == sent.number) == (again == "requeued")
    assert end.history[:3] == ["started", "ended", again], sent.log()
    assert end.history[-1] == "ended"
    assert end.state == "COMPLETED", sent.log()
    sent.assert_same_as_here()
    sent.assert_nothing_left(end.last)
