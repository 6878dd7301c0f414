#!/usr/bin/env bash
# A run of Aug-PE on a real server: vLLM on this machine's processor, with the embedded model. The server is killed in the middle
# and started again: no answer is lost, and none asked for twice.
#     bash benchmarks/peers/served.sh          4 GB on disk; 10 minutes on two cores, most of it vLLM's start
set -euo pipefail
cd "$(dirname "$0")/../.."
source benchmarks/peers/vllm.sh
here=results/peers/served
mkdir -p "$here"
model=$(.venv/bin/python -m dpsda gguf embedded:smollm2-135m-instruct)
.venv/bin/python benchmarks/peers/served.py "$vllm/vllm" "$model" "$here"
