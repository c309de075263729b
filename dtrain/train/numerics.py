"""Numerics: what must be equal for two runs to give the same bits, and the seeds of what is random."""

from __future__ import annotations

import hashlib
import platform

import torch


def fingerprint(mode: str, *, device: str) -> dict[str, str]:
    """Everything that the last bit of a step depends on besides its rows; goes into every manifest."""
    return {
        "mode": mode,
        "torch": str(torch.__version__),  # a plain text: as it is, whoever unpickles it imports torch
        "threads": str(torch.get_num_threads()),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "device": device,
    }


def seed_of(*parts: int) -> int:
    """A seed for `parts`, e.g. (job seed, step, slice): far apart even where the parts are close."""
    return int.from_bytes(hashlib.sha256(",".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """What is random from now on depends on `seed`. `torch.manual_seed` does the same, and formats a traceback each time."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
