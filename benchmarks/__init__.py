"""What dtrain claims, measured against a named peer in the same run."""

import os
from pathlib import Path

from dtrain.cli.ray_head import ray_environment

# Ray reads its environment when it is imported: before that, whichever benchmark does so first.
os.environ.update(ray_environment({}, token_file=Path("none")) | {"RAY_AUTH_MODE": "disabled"})
