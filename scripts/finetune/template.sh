#!/usr/bin/env bash
# DP fine-tuning on any data set of the project, with the options of finetune.py (--dry_run shows the plan alone):
#   bash scripts/finetune/template.sh --dataset my_data --epsilon 4 --batch_size 1024 --epochs 10 --result_folder results/mine
set -euo pipefail
source "$(dirname "$0")/../common.sh"
exec "$python" finetune.py "$@"
