#!/usr/bin/env bash
# DP fine-tuning on Rotten Tomatoes, then samples: bash scripts/finetune/rotten_tomatoes.sh --epsilon 8 --result_folder results/eight
set -euo pipefail
source "$(dirname "$0")/../common.sh"
exec "$python" finetune.py --config data/rotten_tomatoes/finetune.yaml "$@"
