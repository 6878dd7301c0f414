#!/usr/bin/env bash
# openreview from data to results with GPT-3.5, or with any server: bash scripts/gpt-3.5-turbo/openreview.sh --api_base http://localhost:8000/v1 --model_type NAME
set -euo pipefail
source "$(dirname "$0")/../common.sh"
workflow openreview data/openreview/gpt-3.5-turbo.yaml "$@"
