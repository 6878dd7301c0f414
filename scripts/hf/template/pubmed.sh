#!/usr/bin/env bash
# pubmed from data to results with a local model: bash scripts/hf/template/pubmed.sh --epsilon 1 --model_type gpt2-large
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
workflow pubmed data/pubmed/hf.yaml "$@"
