#!/usr/bin/env bash
# A generator trained under DP and a vote on what it writes, in one ledger and within one epsilon, then measured and shown:
#
#   bash scripts/composed.sh rotten_tomatoes [--epsilon E] [--delta D] [--result_folder F] [--seed N] [--device D] [--dry_run]
#
# Everything else stands in data/DATA_SET/finetune.yaml, which says how much of the budget it leaves for the vote
# (histogram_noise), and in composed.yaml.
set -euo pipefail
source "$(dirname "$0")/common.sh"
data=${1:-} config=data/${1:-}/composed.yaml
if [ ! -f "$config" ]; then
    echo "$config: there is no such file; bash scripts/composed.sh rotten_tomatoes has one, as an example" >&2
    exit 2
fi
shift
for option in "$@"; do
    case $option in
    --epsilon | --epsilon=* | --delta | --delta=* | --result_folder | --result_folder=* | --seed | --seed=*) ;;
    --device | --device=* | --dry_run) ;;
    --*)
        echo "$option: is no option of both stages; set it in data/$data/finetune.yaml or composed.yaml" >&2
        exit 2
        ;;
    esac
done
shared_options "$config" "$@"
"$python" finetune.py --config "data/$data/finetune.yaml" "$@" --result_folder "$folder"
workflow "$data" "$config" "$@"
