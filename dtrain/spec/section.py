"""What every part of the job file is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the job file: immutable, and nothing unknown in it. Errors do not repeat what was written."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_timedelta="float", hide_input_in_errors=True)
