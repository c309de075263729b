"""What a Ray node says of itself, so that jobs are not put where they do not belong."""

from __future__ import annotations

ROLE_LABEL = "dtrain-role"
CONTROL_PLANE = "control-plane"
"""The node through which a control plane joins: it goes when the control plane goes, and has none of the jobs' libraries."""

FOR_JOBS = {ROLE_LABEL: f"!{CONTROL_PLANE}"}
"""A label selector: any node but those."""
