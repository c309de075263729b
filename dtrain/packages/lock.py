"""The lock: which packages a job's requirements came to, once and for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from dtrain.errors import CorruptError
from dtrain.steplog.entries import canonical


@dataclass(frozen=True, slots=True)
class Pin:
    """A package that is installed beside those that the workers have.

    Args:
        name: as indexes normalise it.
        version: this one alone.
        hashes: of its files that may be installed, as `sha256:…`.
    """

    name: str
    version: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Lock:
    """What was settled.

    Args:
        requirements: what the user asked for.
        pins: what is installed, in order of names; nothing, where the workers had everything.
        base: version by name of what the workers had, and the requirements came to too.
        python: the interpreter that it was settled for, as `3.11`.
    """

    requirements: tuple[str, ...]
    pins: tuple[Pin, ...]
    base: Mapping[str, str] = field(default_factory=dict)
    python: str = ""

    def to_json(self) -> str:
        """As canonical JSON."""
        return canonical(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str) -> Lock:
        """The lock that `to_json` wrote. Raises `CorruptError`."""
        try:
            value = json.loads(text)
            pins = tuple(Pin(pin["name"], pin["version"], tuple(pin["hashes"])) for pin in value["pins"])
            return cls(tuple(value["requirements"]), pins, value["base"], value["python"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptError(
                "the lock of the job's packages is not what was written", fix="restore the job's folder"
            ) from error

    @property
    def sha256(self) -> str:
        """Its digest, in hex."""
        return digest_of_lock(self.to_json())

    @property
    def versions(self) -> dict[str, str]:
        """By name, those that are installed."""
        return {pin.name: pin.version for pin in self.pins}

    def __str__(self) -> str:
        return ", ".join(map(str, self.pins)) or "nothing that the workers have not"


def digest_of_lock(text: str) -> str:
    """The digest of a lock as JSON; empty for a job without one."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def digest_of_requirements(requirements: Sequence[str]) -> str:
    """What a lock is looked up by, once it is settled. In hex; empty where nothing is required."""
    return hashlib.sha256(canonical(list(requirements))).hexdigest() if requirements else ""


def changes(then: Lock, now: Lock) -> list[str]:
    """What is another package, or another version of one, as `einops 0.8.1 → 0.8.2`."""
    before, after = then.versions, now.versions
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}" for name in names]
