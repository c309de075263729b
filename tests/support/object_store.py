"""An S3 server that misbehaves by a script: moto behind real HTTP, with faults in front of it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEY, SECRET = "AKIACANARY", "canary-secret-that-nobody-may-see"
BUCKET = "bucket"
Environ = dict[str, Any]
Application = Callable[..., Iterable[bytes]]


@dataclass
class Fault:
    """What happens to the next `times` requests whose 'METHOD /path?query' matches.

    Args:
        matches: a regular expression.
        kind: "500", "503", "slow" (by 0.3 s), "cut" (half of the body), "lost" (done, but a 500 is the reply), "stale" (as before).
        times: how often.
    """

    matches: str
    kind: str
    times: int = 1


@dataclass
class ObjectStore:
    """A server, and what it shall do wrong."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)

    def will(self, matches: str, kind: str, times: int = 1) -> None:
        self.faults.append(Fault(matches, kind, times))


class _Quiet(WSGIRequestHandler):
    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


class _Middleware:
    def __init__(self, inner: Application) -> None:
        self.inner, self.store = inner, ObjectStore("")
        self._lists: dict[str, tuple[str, list[tuple[str, str]], bytes]] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING", "")
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{query}"
        kind = self._fault(request)
        if kind in {"500", "503"}:
            return _refuse(start, kind)
        if kind == "slow":
            time.sleep(0.3)
        status, headers, body = self._ask(environ)
        if kind == "lost":
            return _refuse(start, "500")
        if "list-type" in query:
            status, headers, body = (
                self._lists.get(request, (status, headers, body)) if kind == "stale" else (status, headers, body)
            )
            self._lists[request] = (status, headers, body)
        start(status, headers)
        return [body[: len(body) // 2]] if kind == "cut" else [body]

    def _fault(self, request: str) -> str:
        with self._lock:
            for fault in self.store.faults:
                if fault.times and re.search(fault.matches, request):
                    fault.times -= 1
                    self.store.happened.append(f"{fault.kind} {request}")
                    return fault.kind
        return ""

    def _ask(self, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
        told: list[Any] = []
        body = b"".join(self.inner(environ, lambda status, headers, *_: told.extend((status, headers))))
        return told[0], told[1], body


def _refuse(start: Callable[..., Any], status: str) -> list[bytes]:
    start(f"{status} Fault", [("Content-Length", "0")])
    return [b""]


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A server with one empty bucket, and an environment that leads to it."""
    application = _Middleware(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    application.store.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        client = boto3.client(
            "s3",
            endpoint_url=application.store.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", KEY)
            patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
            patch.setenv("AWS_REGION", "us-east-1")
            patch.setenv("AWS_ENDPOINT", application.store.endpoint)
            yield application.store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
