#!/usr/bin/env bash
# yelp from data to results with GPT-3.5, or with any server: bash scripts/gpt-3.5-turbo/yelp.sh --api_base http://localhost:8000/v1 --model_type NAME
set -euo pipefail
source "$(dirname "$0")/../common.sh"
workflow yelp data/yelp/gpt-3.5-turbo.yaml "$@"
