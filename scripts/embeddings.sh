#!/usr/bin/env bash
# Embeds the private records of data sets before a run: bash scripts/embeddings.sh --yelp --openreview --pubmed
# Other options go to the command: bash scripts/embeddings.sh --yelp --device cuda:1
set -euo pipefail
source "$(dirname "$0")/common.sh"
names=() options=()
for word in "$@"; do
    case $word in
    --yelp | --openreview | --pubmed) names+=("${word#--}") ;;
    *) options+=("$word") ;;
    esac
done
if [ "${#names[@]}" = 0 ]; then
    echo "error: which data set? bash scripts/embeddings.sh --yelp, --openreview or --pubmed" >&2
    exit 2
fi
for name in "${names[@]}"; do
    "$python" -m dpsda.precompute --config "data/$name/embeddings.yaml" ${options[@]+"${options[@]}"}
done
