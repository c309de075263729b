"""Kafka's jars, and what is kept beside them so that a broker starts sooner."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from deploy.kafka.programs import disk_errors, run
from dtrain.errors import UnavailableError

POM = Path(__file__).with_name("pom.xml")
"""Names the jars."""

_LIBS = "libs-"


def resolved(cache: Path, *, pom: Path = POM) -> Path:
    """Where `resolve_jars` keeps the jars of this `pom`; another pom gets another folder."""
    return cache / f"{_LIBS}{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"


def resolve_jars(cache: Path, *, pom: Path = POM) -> Path:
    """The folder with Kafka's jars: resolved by Maven the first time, without network afterwards. Whole or absent.

    Raises:
        UnavailableError: Maven is missing or failed; nothing was left in `cache`.
    """
    target = resolved(cache, pom=pom)
    if target.is_dir():
        return target
    if shutil.which("mvn") is None:
        raise UnavailableError("no Maven to resolve Kafka's jars with", fix="install Maven or set KAFKA_BOOTSTRAP")
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            libs = Path(temporary, "libs")
            goal = ("dependency:copy-dependencies", f"-DoutputDirectory={libs.absolute()}")
            run(("mvn", "-q", "-B", "-f", str(pom), *goal), what="resolving Kafka's jars")
            try:
                libs.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster, with the same jars
                    raise
    return target


def fresh_data(libs: Path) -> Path | None:
    """Where the data of a broker that was formatted and never begun are kept; None beside jars that are not ours."""
    return libs.with_name(f"fresh-{libs.name}") if libs.name.startswith(_LIBS) else None


def class_archive(libs: Path) -> Path | None:
    """Where the JVM finds a broker's classes read and checked, half of its start; None beside jars that are not ours.

    A JVM that cannot use it, because it is not that which wrote it, reads the jars.
    """
    return libs.with_name(f"classes-{libs.name}.jsa") if libs.name.startswith(_LIBS) else None
