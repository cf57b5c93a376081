"""cluster.watch: who is let in, and that the page follows a run."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from messages import refused
from page_stores import CHROMIUM, browser, create, until
from places import ROOT
from stores import copied_run, make

from cluster.record import Submission
from cluster.watch import Maker, Watch
from jobs.errors import JobError
from jobs.run.shards import run_shards
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor
from jobs.storage.lease import Lease


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A store of which nothing is computed, for tests that leave it so."""
    return create(tmp_path_factory.mktemp("idle"), "toy")


@pytest.fixture
def store(tmp_path):
    return create(tmp_path, "toy")


@pytest.fixture
def serve():
    """Serve a store in a thread until the test ends."""
    started = []

    def start(store, **options):
        watch = Watch(store, **options)
        thread = threading.Thread(target=watch.serve_forever)
        thread.start()
        started.append((watch, thread))
        return watch

    yield start
    for watch, thread in started:
        watch.shutdown()
        thread.join()
        watch.server_close()


def get(watch, path, host=None):
    """(status, body) of a request to the server."""
    request = urllib.request.Request(f"http://127.0.0.1:{watch.server_port}{path}")
    if host is not None:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def content(watch):
    """The content once the pictures and tables of all that is committed are in it."""
    status, body = get(watch, f"/content?token={watch.token}")
    assert status == 200
    return json.loads(body)


def test_watch_needs_the_token(idle, serve):
    watch = serve(idle)
    for path in (
        "/",
        "/content",
        "/?token=",
        f"/?token={watch.token[:-1]}",
        "/x?token=" + "a" * 32,
    ):
        status, body = get(watch, path)
        assert status == 403, path
        assert idle.address not in body
    status, page = get(watch, f"/?token={watch.token}")
    assert (status, page[:15]) == (200, "<!doctype html>")
    assert "connect-src &#x27;self&#x27;" in page
    assert get(watch, f"/elsewhere?token={watch.token}")[0] == 404
    assert watch.url == f"http://127.0.0.1:{watch.server_port}/?token={watch.token}"
    assert len(watch.token) >= 32


def test_watch_answers_to_its_own_name_alone(idle, serve):
    """A page of another host whose name was made to point here could send requests, with that name."""
    watch = serve(idle)
    for host, expected in (
        ("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("evil.example", 403), ("", 403),
        ("127.0.0.1.evil.example", 403), ("[::1", 403), ("[::1]x", 403),
    ):  # fmt: skip
        assert get(watch, f"/?token={watch.token}", host)[0] == expected, host


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://[/ HTTP/1.1", b"GET http://[::1/?token=x HTTP/1.1", b"GET //[x]/ HTTP/1.1", b"GET /%ff?token=%ff HTTP/1.1",
        b"GET \xff\xfe HTTP/1.1", b"GET /?token=\xc3\xa9 HTTP/1.1", b"GET * HTTP/1.1", b"GET / HTTP/x", b"\x00", b"GET", b"GET /" + b"a" * 70_000,
    ],
    ids=lambda line: line[:20].decode("latin-1"),
)  # fmt: skip
def test_watch_refuses_what_is_no_request(idle, serve, request_line, capfd):
    watch = serve(idle)
    with socket.create_connection(("127.0.0.1", watch.server_port), timeout=60) as connection:
        connection.sendall(request_line + b"\r\nHost: localhost\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert not answer or any(code in answer[:200] for code in (b"40", b"41", b"50")), answer[:200]
    assert idle.address.encode() not in answer
    assert capfd.readouterr() == ("", "")


def test_watch_is_bound_to_loopback(idle, serve):
    watch = serve(idle)
    assert watch.is_private
    assert watch.server_address[0] == "127.0.0.1"
    address = _own_address()
    if address:
        assert "doctype" not in _page_at(address, watch)


def _page_at(address, watch):
    """What answers to a request for the page at another address; nothing, or another program that has this port there."""
    connection = http.client.HTTPConnection(address, watch.server_port, timeout=3)
    try:
        connection.request("GET", f"/?token={watch.token}", headers={"Host": "127.0.0.1"})
        return connection.getresponse().read().decode(errors="replace").lower()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _own_address():
    """Another address of this machine than loopback; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no packet is sent
        except OSError:
            return None
        found = probe.getsockname()[0]
    return None if found.startswith("127.") else found


def test_watch_is_open_to_others_where_asked(idle, serve):
    watch = serve(idle, host="0.0.0.0")
    assert not watch.is_private
    assert watch.url.startswith(f"http://{socket.gethostname()}:{watch.server_port}/")
    assert get(watch, f"/?token={watch.token}", "login.cluster.example")[0] == 200
    assert get(watch, "/", "login.cluster.example")[0] == 403


def test_watch_allows_reading_alone(idle, serve):
    watch = serve(idle)
    for method in ("POST", "PUT", "DELETE"):
        request = urllib.request.Request(watch.url, method=method, data=b"x")
        with refused(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=300)


def test_watch_content_has_a_version(store, serve):
    run_shards(store, SerialExecutor(1))
    watch = serve(store)
    watch.maker.look()
    found = content(watch)
    assert [g["label"] for g in found["content"]["groups"]][1:] == [
        "group 0: n = 3",
        "group 1: n = 5",
    ]
    version = found["version"]
    assert get(watch, f"/content?token={watch.token}&have={version}") == (204, "")
    watch.maker.look()  # nothing is new but the time
    assert content(watch)["version"] == version


def test_watch_says_what_cannot_be_read(store, serve, monkeypatch):
    run_shards(store, SerialExecutor(1))
    watch = serve(store)
    watch.maker.look()
    monkeypatch.setattr(store.committed, "markers", lambda group=None: 1 / 0)
    watch.maker.look()
    found = content(watch)["content"]
    assert found["trouble"] == "cannot be read just now: ZeroDivisionError: division by zero"
    assert len(found["groups"]) == 3
    monkeypatch.undo()
    watch.maker.look()
    assert content(watch)["content"]["trouble"] == ""


def test_watch_says_that_the_store_is_gone(store):
    """As where a folder is no longer mounted; what was seen last stays."""
    maker = Maker(store)
    maker.look()
    before = maker.latest[1]
    shutil.move(store.address, f"{store.address}.moved")
    maker.look()
    trouble = f"cannot be read just now: JobError: there is no store at {store.address}"
    assert maker.latest[1] == before | {"trouble": trouble}
    shutil.move(f"{store.address}.moved", store.address)
    maker.look()
    assert maker.latest[1]["trouble"] == ""


def test_watch_shows_the_store_that_was_made_in_place_of_another(tmp_path):
    """Whoever changes the job deletes the store and runs again."""
    maker = Maker(copied_run(tmp_path / "s.zarr"))
    shutil.rmtree(tmp_path / "s.zarr")
    store = make(tmp_path / "s.zarr", {"kernel": "toy", "sweep": {"grid": {"rate": [0.1, 0.2]}}})
    maker.look()
    found = maker.latest[1]
    assert [found["progress"][name] for name in ("items", "items_done")] == [2, 0]
    assert (found["swept"], found["groups"], found["trouble"]) == (["rate"], [], "")
    run_shards(store, SerialExecutor(1))
    maker.look()
    assert maker.latest[1]["progress"]["items_done"] == 2


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
def test_page_follows_a_run_and_keeps_what_the_reader_did(store, serve):
    from jobs.run.worker import Worker

    worker = Worker(store.address)
    shards = list(store.job.plan.shards())
    lease = Lease.acquire(store.objects, store.address)
    watch = serve(store)
    with browser() as chromium:
        page = chromium.new_page()
        trouble = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(watch.url)
        tile = page.locator(".tile b").first
        assert tile.inner_text() == "0"
        assert page.locator(".pill").inner_text() == "running"
        for shard in shards[:2]:
            assert worker.do(Task(shard, 1)).error is None
        until(page, "document.querySelector('.tile b').textContent === '12'")
        page.get_by_role("tab", name="items").click(timeout=200_000)
        filtered = page.get_by_role("searchbox", name="filter item", exact=True)
        filtered.fill("1")
        page.locator("#tables th", has_text="norm").get_by_role("button").click()
        for shard in shards[2:]:
            assert worker.do(Task(shard, 1)).error is None
        lease.release()
        until(page, "document.querySelector('.pill').textContent === 'complete'")
        left = sum("1" in str(item) for item in range(store.job.plan.n_items))
        until(page, f"document.querySelector('#tables .pager').textContent.includes('of {left}')")
        assert filtered.input_value() == "1"
        head = page.locator("#tables th", has_text="norm")
        assert head.get_attribute("aria-sort") == "ascending"
        assert trouble == []
        page.close()


def test_watch_refuses(ctd, idle, tmp_path):
    (tmp_path / "notes.txt").write_text("no store")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for args, said in (
            ([tmp_path], "is a folder of other files; give a store"),
            ([idle.address, "--port", port], f"--port {port}: cannot listen there"),
            ([idle.address, "--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
            ([idle.address, "--port", "70000"], "65535"),
        ):
            code, _, err = ctd("watch", *args)
            assert code == 2, err
            assert said in err.replace("\n", " ")
            assert "Traceback" not in err
    with refused(JobError):
        Watch(idle, host="192.0.2.1")


def test_watch_command_waits_for_a_store_and_serves_until_interrupted(store, tmp_path):
    later = tmp_path / "later.zarr"
    home = later / "run" / "submit" / "0"
    home.mkdir(parents=True)
    record = Submission("0", "slurm", ["7"], str(home), {}, "", 0.0)
    (home / "record.json").write_text(json.dumps(vars(record)))
    (home / "allocations.tsv").write_text("1\t7\tstarted\tn1\n")
    command = [sys.executable, "-m", "cluster.cli.main", "watch", str(later)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert "does not exist yet; waiting" in process.stderr.readline()
    assert process.stderr.readline() == "allocation 7: started n1\n"
    shutil.rmtree(later)
    shutil.copytree(store.address, tmp_path / "copy.zarr")
    (tmp_path / "copy.zarr").rename(later)
    url = process.stdout.readline().rpartition(" ")[2].strip()
    with urllib.request.urlopen(url, timeout=300) as answer:
        assert str(later) in answer.read().decode()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"reading {later}; " in err
    assert "no longer watching" in err
    assert "Traceback" not in err
