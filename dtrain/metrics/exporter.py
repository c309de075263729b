"""A process's metrics, over HTTP on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Gauge, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from dtrain.errors import UnavailableError
from dtrain.metrics.catalogue import BUILD_INFO, Metric

_SLOWEST_REQUEST_S = 10.0
Page = Callable[[], tuple[str, bytes]]
"""Makes a page: its content type and its bytes."""


class Exporter:
    """Owns a registry of its own and serves it at /metrics.

    Args:
        version: of dtrain, for `dtrain_build_info`.
        pages: further paths, as "/sd".
    """

    def __init__(self, *, version: str, pages: Mapping[str, Page] | None = None) -> None:
        self.registry = CollectorRegistry()
        self._scrape: Callable[..., Iterable[bytes]] = make_wsgi_app(self.registry)
        self._pages = dict(pages or {})
        self._server: WSGIServer | None = None
        Gauge(BUILD_INFO.name, BUILD_INFO.help, BUILD_INFO.labels, registry=self.registry).labels(version=version).set(1)

    def histogram(self, metric: Metric, *, labels: Mapping[str, str] | None = None) -> Histogram:
        """A histogram of the catalogue, registered here; with `labels`, the one series that has them."""
        made = Histogram(metric.name, metric.help, tuple(labels or ()), registry=self.registry, buckets=metric.buckets)
        return made.labels(**labels) if labels else made

    def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> int:
        """Answers on `host` from now on, in a thread of its own; returns the port.

        Args:
            host: the interface; loopback unless somebody means otherwise, because whoever reaches it may read it.
            port: 0 for a free one.

        Raises:
            UnavailableError: the port is taken.
        """
        try:
            self._server = make_server(host, port, self._answer, ThreadingWSGIServer, handler_class=_Handler)
        except OSError as error:
            raise UnavailableError(f"no metrics on {host}:{port}: {error.strerror}", fix="choose another port, or 0") from error
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True).start()
        return int(self._server.server_port)

    def close(self) -> None:
        """The port is free again."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = request["PATH_INFO"]
        if path == "/metrics":
            return self._scrape(request, start_response)
        page = self._pages.get(path)
        kind, body = page() if page else ("text/plain", b"try /metrics\n")
        start_response("200 OK" if page else "404 Not Found", [("Content-Type", kind)])
        return [body]


class _Handler(WSGIRequestHandler):
    timeout = _SLOWEST_REQUEST_S

    def log_message(self, *_: object) -> None:
        """A scrape every few seconds is not worth a line."""
