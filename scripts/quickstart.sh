#!/usr/bin/env bash
# From nothing to differentially private reviews: sets everything up, runs Aug-PE on the embedded model and data, measures
# what came out, and makes its two pages. Options are passed on: bash scripts/quickstart.sh --epsilon 1
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
source scripts/common.sh
workflow rotten_tomatoes data/rotten_tomatoes/quickstart.yaml "$@"
