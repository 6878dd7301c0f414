#!/usr/bin/env bash
# How fast this machine's processor writes with the embedded model: HFAPI beside vLLM's engine, on the same prompts and cores.
#     bash benchmarks/peers/generation.sh [PROMPTS] [CORES]          4 GB on disk; ten minutes
set -euo pipefail
cd "$(dirname "$0")/../.."
source benchmarks/peers/vllm.sh
here=results/peers/generation
mkdir -p "$here"
PYTHONPATH=.:benchmarks .venv/bin/python benchmarks/peers/vllm_generation.py "${1:-256}" "${2:-$(nproc)}" "$vllm/python" "$here"
