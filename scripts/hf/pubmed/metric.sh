#!/usr/bin/env bash
# Distances between the synthetic pubmed texts and real ones.
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
exec "$python" metric.py --config data/pubmed/metric.yaml "$@"
