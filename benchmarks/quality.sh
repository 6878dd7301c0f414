#!/usr/bin/env bash
# Does it work, and does the budget matter? Aug-PE on Rotten Tomatoes at epsilon 1, 2, 4 and without noise, beside a control
# that makes the same model calls and keeps texts at random; three seeds of each, a fine-tuned classifier for the first.
# References are the public held-out split. Runs go to results/quality, and what is there is not done again (2 hours).
set -euo pipefail
cd "$(dirname "$0")/.."
out=results/quality
mkdir -p "$out"
for seed in 0 1 2; do
    for name in eps1 eps2 eps4 epsinf random; do
        run=$out/$name-$seed
        case $name in
        random) setting=(--epsilon 4 --select_syn_mode random) ;;
        *) setting=(--epsilon "${name#eps}") ;;
        esac
        .venv/bin/python main.py --config data/rotten_tomatoes/quickstart.yaml --seed "$seed" "${setting[@]}" \
            --result_folder "$run" "$@" >"$run.log"
        .venv/bin/python metric.py --result_folder "$run" --reference_split test >>"$run.log"
        .venv/bin/python downstream.py --config data/rotten_tomatoes/downstream.yaml --result_folder "$run" >>"$run.log"
        if [ "$seed" = 0 ]; then
            .venv/bin/python downstream.py --config data/rotten_tomatoes/downstream.yaml --result_folder "$run" \
                --task classify --seeds 0 >>"$run.log"
        fi
    done
done
.venv/bin/python benchmarks/quality.py "$out"
