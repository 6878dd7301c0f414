#!/usr/bin/env bash
# Every benchmark in one run, and one table of all of them against what a user would take instead, with the machine and the
# versions; at last where a whole Aug-PE run spends its time. What each of them prints is in results/benchmarks.
#
#   bash benchmarks/run.sh             hours on two cores, and 6 GB of disk for votes.py
#   bash benchmarks/run.sh --quick     small sizes: that it runs, not what it finds
#   bash benchmarks/run.sh pmixed      these alone
set -euo pipefail
source "$(dirname "$0")/../scripts/common.sh"
export PYTHONPATH=. FIGURES=results/benchmarks/figures.jsonl
out=results/benchmarks

# small NAME: its options for --quick; no such benchmark fails
small() {
    case $1 in
    limits | generation | scale) echo "--quick" ;;
    embedding) echo "--short 300 --long 30" ;;
    neighbors) echo "--queries 5000 --candidates 1000 --k 1" ;;
    votes) echo "--records 50000 --dim 64 --labels 5 --candidates 2000" ;;
    loading) echo "--rows 20000" ;;
    remote) echo "--prompts 64" ;;
    metrics) echo "--real 600 --texts 200 --sets 2" ;;
    finetuning) echo "--texts 48" ;;
    dp_training) echo "--rounds 1 --rows 16" ;;
    pmixed) echo "--shards 8 --queries 32 --plain 1" ;;
    cluster) echo "--texts 24" ;;
    augpe) echo "--config data/rotten_tomatoes/quickstart.yaml --epochs 1 --num_seed_samples 24 --private_share 0.05" ;;
    *) return 1 ;;
    esac
}

quick=
[ "${1:-}" != --quick ] || { quick=1 && shift; }
names=("$@")
[ $# -gt 0 ] || names=(limits generation embedding neighbors votes loading scale remote metrics finetuning dp_training pmixed cluster augpe)
mkdir -p "$out"
rm -f "$FIGURES"
for name in "${names[@]}"; do
    sizes=$(small "$name") || { echo "error: no benchmark is called $name" >&2 && exit 2; }
    [ -n "$quick" ] || sizes=
    echo "== $name"
    # shellcheck disable=SC2086  # options are words
    "$python" "benchmarks/$name.py" $sizes | tee "$out/$name.txt"
done
[ ! -f "$FIGURES" ] || "$python" benchmarks/figures.py "$FIGURES" | tee "$out/table.md"
