"""A schema registry that speaks HTTP, for tests: the part of Confluent's protocol that dtrain asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self


class RegistryServer:
    """Answers at `url` for as long as it is open.

    Set `status` to answer with that instead, `delay_s` to be late, `answer` to send these bytes, `login` to want this header.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.schemas: dict[int, Mapping[str, Any]] = {}
        self.asked: list[int] = []
        self.status = 0
        self.delay_s = 0.0
        self.answer: bytes | None = None
        self.login = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def add(self, schema_id: int, definition: Any, **more: Any) -> None:
        self.schemas[schema_id] = {"schema": definition if isinstance(definition, str) else json.dumps(definition)} | more

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _reply(self, path: str, login: str) -> tuple[int, bytes]:
        time.sleep(self.delay_s)
        if self.status:
            return self.status, b"{}"
        if login != self.login:
            return 401, b'{"error_code": 401, "message": "Unauthorized"}'
        schema_id = int(path.removeprefix("/schemas/ids/"))
        self.asked.append(schema_id)
        if self.answer is not None:
            return 200, self.answer
        if schema_id not in self.schemas:
            return 404, b'{"error_code": 40403, "message": "Schema not found"}'
        return 200, json.dumps(self.schemas[schema_id]).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, content = registry._reply(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        return Handler
