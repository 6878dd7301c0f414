#!/usr/bin/env bash
# About a thousand canaries in the place of snippets, each in by the toss of a coin, guessed from what Aug-PE releases
# at the budgets that are given; inf is without noise, for how much the guesses could show. Private figures are printed:
# the data set is a public one. Five minutes a budget on one core.
#   bash scripts/audit/rotten_tomatoes.sh [EPSILON ...]      default: 4 inf
set -euo pipefail
source "$(dirname "$0")/../common.sh"
data=data/rotten_tomatoes out=results/audit
[ $# -gt 0 ] || set -- 4 inf
[ -e "$out/private/canaries.parquet" ] || "$python" audit.py plant --dataset rotten_tomatoes --output "$out"
for epsilon in "$@"; do
    run=$out/augpe-$epsilon
    "$python" main.py --config "$data/quickstart.yaml" --epsilon "$epsilon" \
        --train_data_file "$out/private/corpus.parquet" --result_folder "$run"
    [ "$epsilon" = inf ] || "$python" audit.py mechanism --result_folder "$run"
    "$python" audit.py score --result_folder "$run" --planted "$out" --log_private
done
