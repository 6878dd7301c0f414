#!/usr/bin/env bash
# Fetches and checks the public data sets (yelp, openreview, pubmed), or those that are named. Safe to repeat.
set -euo pipefail
source "$(dirname "$0")/common.sh"
exec "$python" -m dpsda.data.download "$@"
