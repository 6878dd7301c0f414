#!/usr/bin/env bash
# yelp from data to results with a local model: bash scripts/hf/template/yelp.sh --epsilon 1 --model_type gpt2-large
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
workflow yelp data/yelp/hf.yaml "$@"
