#!/usr/bin/env bash
# Distances between the synthetic openreview texts and real ones.
set -euo pipefail
source "$(dirname "$0")/../../common.sh"
exec "$python" metric.py --config data/openreview/metric.yaml "$@"
