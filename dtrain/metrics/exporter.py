"""A process's metrics, over HTTP on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

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
        self._pages = dict(pages or {})
        self._server: ThreadingHTTPServer | None = None
        self.gauge(BUILD_INFO).labels(version=version).set(1)

    def counter(self, metric: Metric) -> Counter:
        """A counter of the catalogue, registered here."""
        return Counter(metric.name, metric.help, metric.labels, registry=self.registry)

    def gauge(self, metric: Metric) -> Gauge:
        """A gauge of the catalogue, registered here."""
        return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)

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
            self._server = ThreadingHTTPServer((host, port), _handler(self.registry, self._pages))
        except OSError as error:
            raise UnavailableError(f"no metrics on {host}:{port}: {error.strerror}", fix="choose another port, or 0") from error
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True).start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """The port is free again."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _handler(registry: CollectorRegistry, pages: Mapping[str, Page]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SLOWEST_REQUEST_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, kind, encode(registry))
            elif path in pages:
                self._answer(200, *pages[path]())
            else:
                self._answer(404, "text/plain", b"try /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape every few seconds is not worth a line."""

    return Handler
