"""A broker that lets in only who can show who he is, and a server of tokens for it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from deploy.kafka.broker import Broker, Listener
from deploy.kafka.jars import resolve_jars
from tests.support.certificates import Authority
from tests.support.kafka import REPOSITORY, Kafka

USER, PASSWORD = "alice", "canary-password-7f3a"
CLIENT_ID, CLIENT_SECRET = "dtrain-client", "canary-client-secret-91c2"
_JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Secured:
    """The broker, by its plain listener and by its others, and whom it trusts."""

    kafka: Kafka
    addresses: dict[str, str]
    authority: Authority


@contextmanager
def secured_broker(folder: Path) -> Iterator[Secured]:
    """Listeners: SSL, which asks for a client's certificate; SASL_SSL and SASL_PLAINTEXT, which want a login."""
    authority = Authority(folder / "certificates")
    cert, key = authority.sign("broker")
    both = folder / "certificates" / "broker-with-key.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca),
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for name in ("sasl_ssl", "sasl_plaintext"):
        prefix = f"listener.name.{name}"
        settings |= {
            f"{prefix}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{prefix}.plain.sasl.jaas.config": f'{_JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            f"{prefix}.scram-sha-256.sasl.jaas.config": f"{_JAAS}.scram.ScramLoginModule required;",
            f"{prefix}.scram-sha-512.sasl.jaas.config": f"{_JAAS}.scram.ScramLoginModule required;",
            f"{prefix}.oauthbearer.sasl.jaas.config": f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required;",
            f"{prefix}.oauthbearer.connections.max.reauth.ms": "3000",
        }
    listeners = {name: Listener(name) for name in ("SSL", "SASL_SSL", "SASL_PLAINTEXT")}
    libs = resolve_jars(REPOSITORY / "build" / "kafka")
    with Broker.start(folder / "broker", libs=libs, listeners=listeners, settings=settings) as broker:
        kafka = Kafka(broker)
        with kafka.admin() as admin:
            for kind in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                refused = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, kind, PASSWORD)])
                assert not any(refused.values()), refused
        yield Secured(kafka, broker.addresses, authority)
        kafka.close()


@dataclass
class TokenServer:
    """Gives unsigned tokens to who knows the client's secret, as Kafka's own unsecured validator takes them."""

    url: str
    life_s: float = 3600.0
    status: int = 200
    asked: list[dict[str, str]] = field(default_factory=list)
    """The forms that were sent."""


@contextmanager
def token_server() -> Iterator[TokenServer]:
    """A server of tokens on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found.asked.append({name: values[0] for name, values in parse_qs(form).items()})
            client = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
            is_known = self.headers["Authorization"] == f"Basic {client}"
            status = found.status if is_known else 401
            body = {"access_token": _token(found.life_s), "expires_in": found.life_s, "token_type": "Bearer"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body if status == 200 else {"error": "no"}).encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = TokenServer(f"http://127.0.0.1:{server.server_port}/token")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def _token(life_s: float) -> str:
    now_s = time.time()
    claims = {"sub": USER, "iat": now_s, "exp": now_s + life_s}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)]
    return f"{parts[0]}.{parts[1]}."
