"""What Ray's errors say about a coordinator."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from dtrain.runtime.launcher import RayLauncher


@pytest.mark.parametrize(
    ("error", "is_alive"),
    [
        (GetTimeoutError("late"), True),
        (ActorUnavailableError("the network has failed", b"0" * 16), True),
        (ActorDiedError(), False),
        (ValueError("there is no such actor"), False),
    ],
)
def test_only_a_coordinator_that_has_died_is_dead(error: Exception, is_alive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    coordinator = SimpleNamespace(observe=SimpleNamespace(remote=lambda _: "reference"))
    monkeypatch.setattr(ray, "get_actor", lambda *_, **__: coordinator)
    monkeypatch.setattr(ray, "get", fail)
    seen = RayLauncher(logs=Path()).observe("job-1", 1, cursor=3)
    assert (seen.is_alive, seen.status, seen.cursor) == (is_alive, None, 3)
