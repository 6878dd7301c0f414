#!/usr/bin/env bash
# Does it work? Aug-PE on Rotten Tomatoes at epsilon 4, three seeds, beside a control that makes the same model calls and
# keeps texts at random. Distances are to the public held-out split; results go to results/quality (about 25 minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p results/quality
for seed in 0 1 2; do
    for mode in rank random; do
        .venv/bin/python main.py --config data/rotten_tomatoes/quickstart.yaml --seed "$seed" --select_syn_mode "$mode" \
            --result_folder "results/quality/$mode-$seed" "$@" >"results/quality/$mode-$seed.log"
    done
done
.venv/bin/python - <<'PYTHON'
import pandas as pd

print("| seed | nn distance, start | Aug-PE | control | FID, start | Aug-PE | control |\n|---|---|---|---|---|---|---|")
for seed in range(3):
    rank, control = (pd.read_csv(f"results/quality/{mode}-{seed}/distances_test.csv") for mode in ("rank", "random"))
    assert rank.nn_distance[0] == control.nn_distance[0]  # one seed, one start
    cells = [f"{x:.3f}" for c in ("nn_distance", "fid") for x in (rank[c].iloc[0], rank[c].iloc[-1], control[c].iloc[-1])]
    print(f"| {seed} | {' | '.join(cells)} |")
PYTHON
