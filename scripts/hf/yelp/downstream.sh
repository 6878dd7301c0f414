#!/usr/bin/env bash
# Trains the downstream models on the synthetic yelp texts and tests them on real ones.
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
exec "$python" downstream.py --config data/yelp/downstream.yaml "$@"
