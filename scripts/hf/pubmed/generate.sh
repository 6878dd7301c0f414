#!/usr/bin/env bash
# Aug-PE on pubmed with a local model, as in the paper: bash scripts/hf/pubmed/generate.sh --epsilon 1 --model_type gpt2-large
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
exec "$python" main.py --config data/pubmed/hf.yaml "$@"
