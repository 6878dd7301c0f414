#!/usr/bin/env bash
# What the project does on a GPU, in one table: speed line by line, and whether a GPU finds what the CPU finds. Each line is
# a process of its own, so that one that fails or runs out of memory loses no other. Lines that are in results/gpu are not
# measured again; delete lines.jsonl there to measure all of them.
#
#   bash benchmarks/gpu.sh                   under ten minutes on one GPU, and 6 GB of disk for votes
#   bash benchmarks/gpu.sh --quick           tiny sizes, on a CPU, too: that it runs, not what it finds
#   bash benchmarks/gpu.sh votes parity      these lines alone; all of them are in benchmarks/gpu.py
set -euo pipefail
source "$(dirname "$0")/../scripts/common.sh"
export PYTHONPATH=. GPU_RESULTS=${GPU_RESULTS:-results/gpu}

quick=()
[ "${1:-}" != --quick ] || { quick=(--quick) && shift; }
missing=$("$python" benchmarks/gpu.py missing "$@" ${quick[@]+"${quick[@]}"})
failed=()
mkdir -p "$GPU_RESULTS"
for line in $missing; do
    echo "== $line"
    timeout 300 "$python" benchmarks/gpu.py measure "$line" ${quick[@]+"${quick[@]}"} 2>&1 |
        tee "$GPU_RESULTS/$line.txt" || failed+=("$line")
done
"$python" benchmarks/gpu.py table ${failed[@]+"${failed[@]}"} ${quick[@]+"${quick[@]}"} | tee "$GPU_RESULTS/table.md"
[ ${#failed[@]} -eq 0 ]
