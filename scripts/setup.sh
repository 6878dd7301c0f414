#!/usr/bin/env bash
# Makes .venv with everything installed, and fetches the embedded models and data. Safe to repeat; does nothing twice.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
    exit 2
}
# what is installed is named by a stamp of everything that decides it
stamp=$(cat pyproject.toml requirements.lock setup.py scripts/setup.sh | sha256sum | cut -c1-16)
if [ ! -e ".venv/.installed-$stamp" ]; then
    echo "setup: installing into .venv (a few minutes, once)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # torch first and pinned, or a newer build with gigabytes of CUDA may come in as a dependency of something else
    pip=(.venv/bin/python -m pip install -q --disable-pip-version-check --constraint requirements.lock)
    "${pip[@]}" torch
    "${pip[@]}" -e '.[test]'
    rm -f .venv/.installed-*
    touch ".venv/.installed-$stamp"
fi
.venv/bin/python -m dpsda.assets
.venv/bin/python -m dpsda.gguf embedded:smollm2-135m-instruct
