#!/usr/bin/env bash
# Everything that `make` needs, inside this folder: .venv from uv.lock, and Kafka's jars below build/. Says what it does; does
# nothing, and needs no network, once it is done.
#   deploy/setup.sh           all of it
#   deploy/setup.sh python    without Kafka
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n  %s\n' "$1" "$2" >&2; exit 1; }

has_space() { # has_space GIGABYTES WHAT
  local free
  free=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$free" -ge "$1" ] || fail "$2 needs $1 GB of disk, there are $free GB" "free some space, or move this folder to a larger disk"
}

fits() { # Ray has wheels for 3.11 to 3.13
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() { # what .venv has is kept: uv would delete an environment of another interpreter, under whoever is using it
  local name
  if [ -e .venv ]; then
    fits .venv/bin/python || fail ".venv is not an environment of Python 3.11 to 3.13" "remove it, and run this again: rm -r .venv"
    echo .venv/bin/python
    return
  fi
  for name in python3.11 python3.12 python3.13 python3 python; do
    if fits "$name"; then
      command -v "$name"
      return
    fi
  done
  fail "no Python 3.11, 3.12 or 3.13 here" "install one, with its venv module (Debian: apt-get install python3 python3-venv)"
}

find_uv() {
  if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
    echo uv
    return
  fi
  if [ ! -x build/uv/bin/uv ]; then
    say "uv is not installed: putting it into build/uv"
    "$1" -m venv build/uv >&2 || fail "python cannot make a virtual environment" "install its venv module (Debian: apt-get install python3-venv)"
    build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv >&2 || fail "uv could not be installed" "check the network, or install uv yourself"
  fi
  echo build/uv/bin/uv
}

set_up_python() {
  local stamp=.venv/.dtrain-setup
  if [ -e "$stamp" ] && cmp -s <(cat uv.lock pyproject.toml) "$stamp" && fits .venv/bin/python; then
    return
  fi
  has_space 9 "the installation (PyTorch and Ray)"
  local python uv
  python=$(find_python)
  uv=$(find_uv "$python")
  say "installing the locked dependencies into .venv ($("$python" --version), $($uv --version))"
  UV_PROJECT_ENVIRONMENT=.venv "$uv" sync --frozen --compile-bytecode --python "$python" --no-progress --quiet \
    || fail "the dependencies could not be installed" "see above; the network is needed the first time"
  cat uv.lock pyproject.toml >"$stamp"
}

set_up_kafka() {
  if [ -n "${KAFKA_BOOTSTRAP:-}" ]; then
    say "Kafka: the broker at $KAFKA_BOOTSTRAP (KAFKA_BOOTSTRAP)"
  elif [ -n "${KAFKA_HOME:-}" ]; then
    say "Kafka: the one in $KAFKA_HOME (KAFKA_HOME)"
  else
    .venv/bin/python -m deploy.kafka.fetch build/kafka
  fi
}

set_up_python
[ "${1:-}" = python ] || set_up_kafka
