#!/usr/bin/env bash
# Resamples the texts of a finished run on Rotten Tomatoes, by default the quickstart's, and measures them before and after:
# bash scripts/resample/rotten_tomatoes.sh --result_folder results/mine --epsilon 5
set -euo pipefail
source "$(dirname "$0")/../common.sh"
config=data/rotten_tomatoes/resample.yaml
"$python" resample.py --config "$config" "$@"
[[ " $* " != *" --help "* && " $* " != *" -h "* ]] || exit 0
shared_options "$config" "$@"
exec "$python" metric.py --config data/rotten_tomatoes/metric.yaml --reference_split test --result_folder "$folder" \
    ${shared[@]+"${shared[@]}"}
