#!/usr/bin/env bash
# pubmed from data to results with GPT-3.5, or with any server: bash scripts/gpt-3.5-turbo/pubmed.sh --api_base http://localhost:8000/v1 --model_type NAME
set -euo pipefail
source "$(dirname "$0")/../common.sh"
workflow pubmed data/pubmed/gpt-3.5-turbo.yaml "$@"
