#!/usr/bin/env bash
# Does it work, does the budget matter, and what earns its place? Rotten Tomatoes, 300 texts. Three seeds of the quickstart at
# epsilon 4 and 1, of the paper's votes, of a trained generator with a vote, and of the quickstart with all new texts by rewriting. One
# of a control that makes the same model calls and keeps texts at random, of the quickstart at epsilon 2 and without noise, and of it
# with another option changed. Every figure by a second encoder, too; of three runs a fine-tuned classifier and a language model that
# learn from the texts.
# References are the public held-out split. Options are those of main.py, for all but the trained generator. Runs go to
# results/quality, one a core at a time (on one thread each, which is faster than one after the other), and what is there is not
# done again. Three to five hours.
set -euo pipefail
cd "$(dirname "$0")/.."
export out=results/quality
mkdir -p "$out"

# one [OPTIONS] SEED NAME: a run and its figures
one() {
    set -euo pipefail
    export OMP_NUM_THREADS=1
    local options=("${@:1:$#-2}") seed=${*: -2:1} name=${*: -1}
    local run=$out/$name-$seed setting=(--epsilon 4)
    case $name in
        eps*) setting=(--epsilon "${name#eps}") ;;
        random) setting+=(--select_syn_mode random --labels_from prompts) ;;
        paper) setting+=(--hub_correction none --labels_from prompts --in_context_share 0 --epochs 3 --L 2) ;;
        prompts) setting+=(--labels_from prompts) ;;
        none | global | centred) setting+=(--hub_correction "$name") ;;
        rewritten) setting+=(--in_context_share 0) ;;
    esac
    exec >"$run.log"
    if [ "$name" = composed ]; then
        bash scripts/composed.sh rotten_tomatoes --seed "$seed" --result_folder "$run"
    else
        .venv/bin/python main.py --config data/rotten_tomatoes/quickstart.yaml --seed "$seed" "${setting[@]}" \
            --result_folder "$run" ${options[@]+"${options[@]}"}
    fi
    .venv/bin/python metric.py --result_folder "$run" --reference_split test \
        --metric_encoder embedded:smollm2-135m-instruct
    .venv/bin/python downstream.py --config data/rotten_tomatoes/downstream.yaml --result_folder "$run"
}

# learnt NAME: what a language model and a classifier learn from the texts of seed 0, and from the first ones
learnt() {
    set -euo pipefail
    export OMP_NUM_THREADS=1
    local run=$out/$1-0
    exec >>"$run.log"
    .venv/bin/python downstream.py --config data/rotten_tomatoes/downstream.yaml --result_folder "$run" \
        --task lm --models embedded:smollm2-135m-instruct --epochs 1 --synthetic_iteration last --real_size 300 --seeds 0
    .venv/bin/python downstream.py --config data/rotten_tomatoes/downstream.yaml --result_folder "$run" \
        --task classify --synthetic_iteration last --real_size 300 --seeds 0
}
export -f one learnt

{
    printf '%s\n' {0,1,2}' '{eps4,paper,eps1,composed,rewritten}
    printf '%s\n' '0 '{none,random,prompts,epsinf,eps2,global,centred}
} | xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one "$@"
printf '%s\n' eps4 paper composed | xargs -P "$(nproc)" -L 1 bash -c 'learnt "$@"' learnt
.venv/bin/python benchmarks/quality.py "$out"
