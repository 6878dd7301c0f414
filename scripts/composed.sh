#!/usr/bin/env bash
# A generator trained under DP and votes on what it writes, in one ledger and within one epsilon, then measured and shown:
# bash scripts/composed.sh rotten_tomatoes --epsilon 4. Options are those that finetune.py and main.py share; how much of
# the budget the votes get is histogram_noise in data/DATA_SET/finetune.yaml.
set -euo pipefail
source "$(dirname "$0")/common.sh"
data=${1:-} config=data/${1:-}/composed.yaml
if [ ! -f "$config" ]; then
    echo "$config: there is no such file; bash scripts/composed.sh rotten_tomatoes has one, as an example" >&2
    exit 2
fi
shift
shared_options "$config" "$@"
"$python" finetune.py --config "data/$data/finetune.yaml" "$@" --result_folder "$folder"
workflow "$data" "$config" "$@"
