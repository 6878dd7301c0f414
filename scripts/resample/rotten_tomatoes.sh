#!/usr/bin/env bash
# Resamples the texts of a finished run on Rotten Tomatoes, by default the quickstart's, and measures them before and after:
# bash scripts/resample/rotten_tomatoes.sh --result_folder results/mine --epsilon 5
set -euo pipefail
source "$(dirname "$0")/../common.sh"
config=data/rotten_tomatoes/resample.yaml
"$python" resample.py --config "$config" "$@"
[[ " $* " != *" --help "* && " $* " != *" -h "* ]] || exit 0
folder=$(sed -n 's/^result_folder: *//p' "$config")
shared=()
while [ $# -gt 0 ]; do
    case $1 in
    --result_folder) folder=${2:-} ;;
    --result_folder=*) folder=${1#*=} ;;
    --log_private | --dry_run) shared+=("$1") ;;
    esac
    shift
done
exec "$python" metric.py --config data/rotten_tomatoes/metric.yaml --reference_split test --result_folder "$folder" \
    ${shared[@]+"${shared[@]}"}
