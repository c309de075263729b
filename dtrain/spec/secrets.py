"""Secrets: a job file says where they are, never what they are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from dtrain.errors import AuthError
from dtrain.spec.durations import problem
from dtrain.spec.section import Section

_FIX = "write {env: NAME} or {file: PATH}, and put the value there"


class Secret(Section):
    """Where a value is found that must not stand in a job file. Read by the process that needs it, and kept nowhere."""

    env: str = Field("", description="Environment variable that holds it, of the process that uses it.")
    file: str = Field("", description="File that holds it, where it is used; a line's end behind it does not count.")

    @model_validator(mode="before")
    @classmethod
    def _is_a_reference(cls, value: Any) -> Any:
        if not isinstance(value, Mapping | cls):
            raise problem("has to say where the value is, not what it is", fix=_FIX)  # which is not shown again
        return value

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if bool(self.env) == bool(self.file):
            raise problem("has to name a variable or a file", fix=_FIX)
        if self.env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.env):
            raise problem("names no environment variable", fix="write its name, of letters, digits and _")
        return self

    def settled(self, folder: Path) -> Self:
        """The same with an absolute path: a relative one begins at `folder`."""
        return self.model_copy(update={"file": str(folder / Path(self.file).expanduser())}) if self.file else self

    def read(self) -> str:
        """The value, as it is now.

        Raises:
            AuthError: there is none. Names the place, and nothing of what is in it.
        """
        if self.env:
            if value := os.environ.get(self.env):
                return value
            words = f"the environment variable {self.env}, which holds a secret, is not set in this process"
            raise AuthError(
                words, fix="set it in this shell for a command; for a job where `dtrain up` runs, and resume the job"
            )
        try:
            value = Path(self.file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not text"
            raise AuthError(f"{self.file}, which holds a secret, cannot be read: {why}", fix=_MOUNT) from None
        if not value:
            raise AuthError(f"{self.file}, which holds a secret, is empty", fix=_MOUNT)
        return value


_MOUNT = "put it on this machine for a command; for a job where its processes run, readable for them, and resume the job"
