#!/usr/bin/env bash
# PMixED on 3,046 news articles beside what it is compared with: the public model, one fine-tuned without protection, and
# one by DP-SGD at epsilon 8 and 4. Ends in a table of perplexities, results/news/ensemble/private/perplexity.csv. Each of
# the four trainings is ten minutes on two cores or a minute on a GPU, and the evaluation half an hour on one core; what
# is complete is not done again.
#   bash scripts/pmixed/news.sh
set -euo pipefail
source "$(dirname "$0")/../common.sh"
data=data/news out=results/news
"$python" predict.py train --config "$data/ensemble.yaml"
"$python" predict.py train --config "$data/ensemble.yaml" --shards 1 --result_folder "$out/single"
for epsilon in 8 4; do
    "$python" finetune.py --config "$data/finetune.yaml" --epsilon "$epsilon" --result_folder "$out/dp-$epsilon"
done
"$python" predict.py evaluate --result_folder "$out/ensemble" --epsilons 8 4 --queries 1024 --runs 8 \
    --compare "$out/single" "$out/dp-8" "$out/dp-4" --log_private "$@"
