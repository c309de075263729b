"""What can be wrong with a broker, in the same words whichever client finds it out."""

from __future__ import annotations

from typing import Literal

from dtrain.errors import AuthError, CorruptError, DataLossError, DtrainError, NotFoundError, StateError, UnavailableError
from dtrain.stream.losses import WAYS_OUT

Kind = Literal["truncated", "refused", "login", "codec", "corrupt", "size", "topic", "silent", "ill"]

_WORDS: dict[Kind, tuple[type[DtrainError], str, str]] = {
    "truncated": (DataLossError, "Kafka at {place} lost records that were read before: {text}", WAYS_OUT),
    "refused": (AuthError, "Kafka at {place} refuses: {text}", "ask for the right to that topic or group, and resume the job"),
    "login": (AuthError, "Kafka at {place} lets nobody in: {text}", "correct `source.security` or what it refers to"),
    "codec": (
        StateError,
        "Kafka at {place} sends records that cannot be unpacked here: {text}",
        "install that codec's package",
    ),
    "corrupt": (
        CorruptError,
        "Kafka at {place} sends records whose checksum does not verify: {text}",
        "look into the broker's disk",
    ),
    "size": (StateError, "Kafka at {place} takes no message of this size: {text}", "raise the topic's max.message.bytes"),
    "topic": (NotFoundError, "Kafka at {place} has no topic {text!r}", "create it, or correct its name"),
    "silent": (UnavailableError, "no Kafka answers at {place} ({text})", "start it, or correct `source.bootstrap`"),
    "ill": (UnavailableError, "Kafka at {place}: {text}", "see the broker's log"),
}


def broker_error(kind: Kind, *, place: str, text: str) -> DtrainError:
    """The error of this kind; `place` is the broker's address, `text` what was heard of it."""
    error, reason, fix = _WORDS[kind]
    return error(reason.format(place=place, text=text), fix=fix)
