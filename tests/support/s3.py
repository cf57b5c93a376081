"""A real S3 server on loopback: SeaweedFS, one process for all tests, and a proxy that makes it fail.

It is real in what the tests are about: signatures are checked, and of several conditional PUTs at once
exactly one succeeds.
"""

import http.client
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import timedelta as timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store
from processes import free_ports

KEY, SECRET = "AKIDFORTESTS", "x7/secret+of+the+tests"
READER, READER_SECRET = "AKIDOFREADER", "another+secret"
WEED = shutil.which("weed", path=Path(sys.executable).parent)

IDENTITIES = [
    {"name": "owner", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
     "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
    {"name": "reader", "credentials": [{"accessKey": READER, "secretKey": READER_SECRET}],
     "actions": ["Read", "List"]},
]  # fmt: skip


class Server:
    """One `weed server`; everything of it is in `folder`."""

    def __init__(self, folder):
        (folder / "data").mkdir()
        (folder / "s3.json").write_text(json.dumps({"identities": IDENTITIES}))
        names = ("master", "volume", "filer", "s3")
        self.ports = dict(zip([*names, *(f"{n}.grpc" for n in names)], free_ports(8), strict=True))
        ports = [f"-{n}.port={self.ports[n]}" for n in names]
        ports += [f"-{n}.port.grpc={self.ports[f'{n}.grpc']}" for n in names]
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [WEED, "-logtostderr=true", "server", "-dir", folder / "data", "-ip=127.0.0.1",
             "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.volumeSizeLimitMB=64",
             "-volume.max=20", "-debug.port=0", "-s3", "-s3.config", folder / "s3.json",
             "-s3.autoCreateBucket=false", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
             "-filer.localSocket", folder / "f.sock", "-s3.localSocket", folder / "s.sock", *ports],
            stdout=self.log, stderr=self.log, cwd=folder,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.ports['s3']}"
        self._bucket("lab")

    def _bucket(self, name):
        """A bucket is a folder of its file server; the part that speaks S3 is the last to come up."""
        folder = f"http://127.0.0.1:{self.ports['filer']}/buckets/{name}/"
        self._await(urllib.request.Request(folder, method="POST"))
        self._await(urllib.request.Request(self.url))

    def _await(self, request):
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(request, timeout=5).close()
                return
            except urllib.error.HTTPError as answer:  # a "no" is an answer too
                answer.close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"no S3 server: {Path(self.log.name).read_text()[-2000:]}")

    def environment(self, **changes):
        """What a process must have to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1", **changes,
        }  # fmt: skip

    def objects(self, prefix=""):
        """Key -> bytes of everything below, read past the project's own code."""
        store = S3Store(
            "lab", endpoint=self.url, access_key_id=KEY, secret_access_key=SECRET,
            client_options={"allow_http": True},
        )  # fmt: skip
        keys = [meta["path"] for batch in obstore.list(store) for meta in batch]
        return {k: bytes(obstore.get(store, k).bytes()) for k in keys if k.startswith(prefix)}

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
        for name in ("master", "volume", "filer", "s3"):  # no option puts these elsewhere
            socket_path = f"/tmp/seaweedfs-{name}-grpc-{self.ports[f'{name}.grpc']}.sock"
            Path(socket_path).unlink(missing_ok=True)


@dataclass
class Proxy:
    """In front of the server; `fault(method, path)` says what becomes of a request.

    None: it is passed on. "busy": 503, and the server hears nothing. "lost": the server does it, but the
    answer is 503. "reset": the connection is reset.
    """

    target: str
    fault: object = lambda method, path: None
    counts: dict = field(default_factory=lambda: {"passed": 0, "busy": 0, "lost": 0, "reset": 0})

    def __enter__(self):
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is one packet: in two it waits 40 ms for an acknowledgement
            disable_nagle_algorithm = True

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kind = proxy.fault(self.command, self.path)
                proxy.counts[kind or "passed"] += 1
                if kind == "reset":
                    linger = struct.pack("ii", 1, 0)  # closing then sends RST
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    os.close(self.connection.detach())
                    return
                if kind != "busy":
                    there = http.client.HTTPConnection(urlsplit(proxy.target).netloc, timeout=30)
                    there.request(self.command, self.path, body, dict(self.headers))
                    response = there.getresponse()
                    data = response.read()
                    there.close()
                if kind:
                    text = (
                        b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"
                    )
                    self.send_response(503)
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                    return
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                        self.send_header(name, value)
                if response.getheader("Content-Length") is None:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *arguments):
                del arguments

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


def sometimes(share, seed=0):
    """A fault that hits this share of the requests, half of them after they were done."""
    rng, lock = random.Random(seed), threading.Lock()

    def fault(method, path):
        del method, path
        with lock:
            return rng.choice(["busy", "lost"]) if rng.random() < share else None

    return fault


def hides_secrets(*texts):
    """Whether none of these bytes holds the owner's key or its secret."""
    return not any(secret.encode() in text for text in texts for secret in (SECRET, KEY))


def clear_environment(monkeypatch, tmp_path):
    """No credentials of whoever runs the tests, and none of the machine."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
