#!/usr/bin/env bash
# The main experiment of Flemings et al. 2024: GPT-2 on WikiText-103 or One Billion Word, 80 models, epsilon 8, 32 runs of
# 1,024 queries. For a GPU: 80 models of 15 passes each. What is complete is not done again.
#   .venv/bin/dpsda language_modelling wikitext           # or one_billion_word; the data, once
#   bash scripts/pmixed/published.sh wikitext             # more options go to the evaluation
set -euo pipefail
source "$(dirname "$0")/../common.sh"
[ $# -gt 0 ] || { echo "error: name the data set: wikitext or one_billion_word" >&2 && exit 2; }
name=$1
shift
data=data/$name out=results/$name
"$python" predict.py train --config "$data/ensemble.yaml"
"$python" predict.py train --config "$data/ensemble.yaml" --shards 1 --result_folder "$out/single"
"$python" finetune.py --config "$data/finetune.yaml"
"$python" predict.py evaluate --result_folder "$out/ensemble" --epsilons 8 --queries 1024 --runs 32 \
    --compare "$out/single" "$out/dp-8" --log_private "$@"
