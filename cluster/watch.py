"""Serve the live page of a store while a run goes on.

    GET /?token=T                the page
    GET /content?token=T&have=V  {"version", "content"} as JSON; 204 if V is the newest version

Every request without the token gets a 403. On a loopback address, so does a request whose Host header is
not a loopback name (which stops DNS rebinding). The server is read-only.
"""

import hmac
import ipaddress
import json
import secrets
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jobs import keys
from jobs.errors import JobError
from jobs.redact import redact
from jobs.report.page import EMPTY, Content, render
from jobs.storage.objects import read
from jobs.store.store import Store

LOOK_S = 1.0
"""Least seconds between two looks at the store."""
SHARE = 0.1
"""Largest share of a core spent on rebuilding the page."""
HEADERS = {
    "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


class Watch(ThreadingHTTPServer):
    """A server of one store's page, and a thread that keeps the page up to date; close it, or use it in a `with` statement.

    port: 0 takes a free one, which `server_port` tells. Raises JobError if it cannot listen at host and port.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, store: Store, host: str = "127.0.0.1", port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.host, self.is_private = host, _is_loopback(host)
        self.maker = Maker(store)
        self._ended = threading.Event()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            reason = error.strerror or error
            raise JobError(f"--host {host} --port {port}: cannot listen there: {reason}") from None
        threading.Thread(target=self._look, daemon=True, name="look").start()

    @property
    def url(self) -> str:
        """The address to open, including the token."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  compares
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.server_port}/?token={self.token}"

    def server_bind(self) -> None:
        """Bind without a DNS lookup of this host's name, which the base class would do."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", int(self.server_address[1])

    def server_close(self) -> None:
        """Free the port, and stop looking at the store."""
        self._ended.set()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error, unless a reader just went away in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def admits(self, token: str, host: str) -> bool:
        """Return whether to answer a request with this token and Host header."""
        try:
            host_name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # no host: half an IPv6 address
            return False
        right = hmac.compare_digest(token.encode(), self.token.encode())
        return right and (not self.is_private or _is_loopback(host_name))

    def _look(self) -> None:
        took = 0.0
        while not self._ended.wait(max(LOOK_S, took / SHARE) if took else 0.0):
            began = time.monotonic()
            self.maker.look()
            took = time.monotonic() - began


class Maker:
    """Keeps the page's content. Each look reads the facts; results are read only after a commit or a change of the job's state."""

    def __init__(self, store: Store) -> None:
        self._show(store)
        self._lock = threading.Lock()
        self.latest: tuple[str, dict[str, Any]] = ("0", self._page.facts() | self._results)
        """(version, content); the version changes when anything but the time `made` has changed."""

    def _show(self, store: Store) -> None:
        self._page, self._store, self._job = Content(store), store, _job_of(store)
        self._results: dict[str, Any] = dict(EMPTY)
        self._made_of: Any = None

    def look(self) -> None:
        """Update the content; if the store cannot be read just now, keep the old one and say so in it."""
        with self._lock:
            version, content = self.latest
            try:
                # A folder that is gone, or not mounted, would read as a store of which nothing is computed.
                if not (job := _job_of(self._store)):
                    raise JobError(f"there is no store at {self._store.address}")
                if job != self._job:  # another one was made in its place
                    self._show(Store.open(self._store.address))
                facts = self._page.facts()
                made_of = self._store.committed.stamp(), facts["status"]["word"]
                if made_of != self._made_of:
                    self._results, self._made_of = self._page.results(), made_of
                new = facts | self._results
            except Exception as error:
                # A driver may be gathering or recomputing a shard; the next look will work.
                text = f"cannot be read just now: {type(error).__name__}: {error}"
                new = content | {"trouble": redact(text)}
            if {**new, "made": ""} != {**content, "made": ""}:
                version = str(int(version) + 1)
            self.latest = version, new


class _Handler(BaseHTTPRequestHandler):
    server: Watch
    server_version, sys_version = "ctd", ""
    timeout = 60  # a reader that sends no more keeps no thread

    def do_GET(self) -> None:
        """Send the page, its content, or a refusal."""
        watch = self.server
        try:
            parts = urlsplit(self.path)
        except ValueError:  # no address: half an IPv6 address
            self._answer(HTTPStatus.BAD_REQUEST, "this is no address\n")
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not watch.admits(query.get("token", ""), self.headers.get("Host", "")):
            self._answer(HTTPStatus.FORBIDDEN, "the address that `ctd watch` printed is needed\n")
        elif parts.path not in ("/", "/content"):
            self._answer(HTTPStatus.NOT_FOUND, "nothing is here\n")
        else:
            version, content = watch.maker.latest
            if parts.path == "/":
                page = render(content, live=f"/content?token={watch.token}")
                self._answer(HTTPStatus.OK, page, "text/html")
            elif query.get("have") == version:
                self._answer(HTTPStatus.NO_CONTENT, "")
            else:
                text = json.dumps({"version": version, "content": content}, allow_nan=False)
                self._answer(HTTPStatus.OK, text, "application/json")

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        data = text.encode()
        self.send_response(status)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, because request paths hold the token."""


def _job_of(store: Store) -> bytes | None:
    return read(store.objects, keys.JOB) or read(store.objects, keys.JOB_COPY)


def _is_loopback(name: str) -> bool:
    with suppress(ValueError):  # another name
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    return False
