#!/usr/bin/env bash
# Writes the lock files anew from pyproject.toml (needs uv; users of the lock files do not).
# Universal: the same versions on every platform and Python that the project supports.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" "$@"; }
lock pyproject.toml -o requirements/run.txt
lock pyproject.toml --extra test -c requirements/run.txt -o requirements/test.txt
lock pyproject.toml --extra plot -c requirements/run.txt -o requirements/plot.txt
lock requirements/build.in -o requirements/build.txt
