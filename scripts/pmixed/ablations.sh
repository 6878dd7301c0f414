#!/usr/bin/env bash
# The ablations of Flemings et al. 2024 on the ensemble of scripts/pmixed/news.sh: over epsilon, the number of queries,
# the inclusion probability and the order of the paper's projection; and over the number of models, which are trained.
#   bash scripts/pmixed/ablations.sh
set -euo pipefail
source "$(dirname "$0")/../common.sh"
run=results/news/ensemble
evaluate() { "$python" predict.py evaluate --result_folder "$run" --runs 4 "$@"; }

evaluate --name by_epsilon --epsilons 2 4 6 8 10
for queries in 512 1024 2048; do evaluate --name "by_queries_$queries" --queries "$queries"; done
for inclusion in 0.02 0.03 0.05 0.1 0.25 0.5 1; do evaluate --name "by_inclusion_$inclusion" --inclusion "$inclusion"; done
for order in 3 4 5 9; do evaluate --name "by_order_$order" --methods paper --order "$order"; done
for shards in 8 32; do
    run=results/news/ensemble-$shards
    "$python" predict.py train --config data/news/ensemble.yaml --shards "$shards" --result_folder "$run"
    evaluate --name perplexity
done
"$python" -m dpsda.report.perplexity results/news/ensemble results/news/ensemble-8 results/news/ensemble-32
