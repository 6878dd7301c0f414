#!/usr/bin/env bash
# Distances between the synthetic yelp texts and real ones.
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
exec "$python" metric.py --config data/yelp/metric.yaml "$@"
