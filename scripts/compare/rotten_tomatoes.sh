#!/usr/bin/env bash
# Every route at equal epsilon on the same private records of Rotten Tomatoes, measured on the public test split, in one
# report: Aug-PE, a control that sees no private text, a generator fine-tuned under DP, the same with a vote on its samples,
# the same resampled to a DP histogram, and a classifier that is itself trained under DP. Budgets are arguments:
#
#   bash scripts/compare/rotten_tomatoes.sh 4 8
#
# Runs go to results/compare; what is complete is not done again. Most of the time is the training of the generator, one a
# budget: some 20 minutes on two cores, 40 on one, 2 on a GPU.
set -euo pipefail
source "$(dirname "$0")/../common.sh"
data=data/rotten_tomatoes out=results/compare

# measure RUN [OPTIONS]: distances and the probe, of the run's texts or of the --synthetic_file that is given
measure() {
    "$python" metric.py --config "$data/metric.yaml" --reference_split test --private_data_size 300 \
        --result_folder "$@"
    "$python" downstream.py --config "$data/downstream.yaml" --result_folder "$@"
}

# go_on RUN COPY: a copy of a run goes on, so that both can be compared; each ledger holds the training that both come from
go_on() {
    [ -d "$2" ] || { rm -rf "$2.tmp" && cp -r "$1" "$2.tmp" && mv "$2.tmp" "$2"; }
}

runs=()
for epsilon in "${@:-4}"; do
    augpe=$out/augpe-$epsilon control=$out/random-$epsilon tuned=$out/finetune-$epsilon
    composed=$out/composed-$epsilon resampled=$out/resample-$epsilon classifier=$out/classifier-$epsilon
    "$python" main.py --config "$data/quickstart.yaml" --epsilon "$epsilon" --result_folder "$augpe"
    "$python" main.py --config "$data/quickstart.yaml" --epsilon "$epsilon" --select_syn_mode random --labels_from prompts \
        --result_folder "$control"
    "$python" finetune.py --config "$data/finetune.yaml" --epsilon "$epsilon" --result_folder "$tuned"
    go_on "$tuned" "$composed"
    "$python" main.py --config "$data/composed.yaml" --epsilon "$epsilon" --result_folder "$composed"
    go_on "$tuned" "$resampled"
    "$python" resample.py --config "$data/resample.yaml" --epsilon "$epsilon" --num_samples 300 --draws 3 \
        --result_folder "$resampled"
    "$python" finetune.py --config "$data/finetune_classifier.yaml" --epsilon "$epsilon" --result_folder "$classifier"
    for run in "$augpe" "$control" "$tuned" "$composed" "$resampled"; do measure "$run"; done
    for draw in "$resampled"/resample/draw-*.csv; do measure "$resampled" --synthetic_file "$draw"; done
    runs+=("$augpe" "$control" "$tuned" "$composed" "$resampled" "$classifier")
done
"$python" -m dpsda report "${runs[@]}"
"$python" -m dpsda compare "${runs[@]}"
