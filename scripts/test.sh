#!/usr/bin/env bash
# Sets everything up, then checks style, types and layers, and runs the test suite. Options go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1  # a process for each core, up to four, of one thread each
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/mypy
$bin/lint-imports
$bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal "$@"
