#!/usr/bin/env bash
# From nothing to differentially private reviews: sets everything up, runs Aug-PE on the embedded model and data, and
# shows what came out. Options are passed on: bash scripts/quickstart.sh --epsilon 1 --result_folder results/eps1
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
.venv/bin/python main.py --config data/rotten_tomatoes/quickstart.yaml "$@"
