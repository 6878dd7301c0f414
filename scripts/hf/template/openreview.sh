#!/usr/bin/env bash
# openreview from data to results with a local model: bash scripts/hf/template/openreview.sh --epsilon 1 --model_type gpt2-large
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
workflow openreview data/openreview/hf.yaml "$@"
