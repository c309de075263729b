"""Generates dtrain/rpc/v1 from protos/: `python scripts/generate_protos.py [FOLDER]`.

protoc writes `from dtrain.v1 import ...`; ours live in `dtrain.rpc.v1`, because protobuf stops at `rpc/`. So the imports are
rewritten, and nothing needs a trick with sys.path.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "dtrain" / "rpc" / "v1"


def generate(target: Path) -> None:
    """`target` holds the code generated from every file below protos/."""
    protos = sorted(str(path) for path in (ROOT / "protos").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        outs = [f"--{kind}_out={scratch}" for kind in ("python", "pyi", "grpc_python")]
        includes = [f"-I{ROOT / 'protos'}", f"-I{files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, *outs, *protos]) != 0:
            raise SystemExit("protoc refused the protos: see above")
        target.mkdir(parents=True, exist_ok=True)
        (target / "__init__.py").write_text('"""Generated from protos/dtrain/v1 by `make proto`: do not edit."""\n')
        for made in sorted(Path(scratch, "dtrain", "v1").iterdir()):
            text = made.read_text()
            if not made.name.endswith("_grpc.py") or "class " in text:  # a proto without services has nothing for gRPC
                (target / made.name).write_text(text.replace("from dtrain.v1 import", "from dtrain.rpc.v1 import"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HOME)
