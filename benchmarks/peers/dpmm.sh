#!/usr/bin/env bash
# The rows of dpmm's AIM on the tables of benchmarks/rows.py, in an environment of its own, as it pins other versions.
#     bash benchmarks/peers/dpmm.sh [ATTRIBUTES] [EPSILON]
set -euo pipefail
cd "$(dirname "$0")/../.."
here=results/peers/dpmm
[ -x "$here/.venv/bin/python" ] || python3 -m venv "$here/.venv"
"$here/.venv/bin/python" -m pip install -q --disable-pip-version-check dpmm==0.1.9
.venv/bin/python benchmarks/rows.py --write "$here" --attributes "${1:-12}"
PYTHONPATH=benchmarks "$here/.venv/bin/python" benchmarks/peers/dpmm_aim.py "$here/${1:-12}" "${2:-1}"
