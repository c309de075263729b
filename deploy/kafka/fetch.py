"""`python -m deploy.kafka.fetch FOLDER`: what a broker of our own needs is on this machine, or the fix is named."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.kafka.broker import DOCKER_IMAGE, Broker
from deploy.kafka.jars import class_archive, resolve_jars, resolved
from dtrain.errors import DtrainError, UnavailableError

JAVA = 17


def main(cache: Path) -> None:
    """Jars in `cache` where there is Java, or else an image in Docker."""
    version = java_version()
    if version >= JAVA and (resolved(cache).is_dir() or shutil.which("mvn")):
        if not resolved(cache).is_dir():
            say(f"fetching Kafka's jars with Maven into {cache}")
        keep_classes(resolve_jars(cache))
    elif shutil.which("docker"):
        if run("docker", "image", "inspect", DOCKER_IMAGE).returncode:
            say(f"fetching the image {DOCKER_IMAGE}")
            if run("docker", "pull", "--quiet", DOCKER_IMAGE).returncode:
                raise UnavailableError("Docker cannot fetch the image", fix="start Docker, or install Java 17 and Maven")
    else:
        found = f"Java {version} without Maven" if version >= JAVA else f"Java {version}" if version else "no Java"
        fix = (
            "install both (Debian: apt-get install openjdk-17-jre-headless maven), or Docker, or set KAFKA_BOOTSTRAP=host:port"
        )
        raise UnavailableError(f"a broker needs Java {JAVA} or later and Maven; here is {found}", fix=fix)


def keep_classes(libs: Path) -> None:
    """What a broker loads when it starts is kept beside its jars, for those that start later. They start without it too."""
    archive = class_archive(libs)
    if archive is None or archive.is_file():
        return
    with tempfile.TemporaryDirectory(dir=libs.parent) as folder:
        dump = Path(folder, "classes.jsa")
        try:
            broker = Broker.start(Path(folder, "broker"), libs=libs, dump=dump)
        except UnavailableError as error:
            say(f"a broker's classes are not kept: {error.reason}")
            return
        broker.stop(timeout_s=60)  # it writes them last of all
        if dump.is_file():
            dump.rename(archive)


def java_version() -> int:
    """The feature version of `java`; 0 when there is none."""
    if shutil.which("java") is None:
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', run("java", "-version").stderr)
    return int(found[1]) if found else 0


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """The command, come to its end."""
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def say(words: str) -> None:
    """Tell whoever runs this."""
    sys.stderr.write(f"setup: {words}\n")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except DtrainError as error:
        sys.exit(f"setup: {error.reason}\n  {error.fix}")
