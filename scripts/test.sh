#!/usr/bin/env bash
# Installs what is missing, builds everything, runs every test. Extra arguments go to ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh

cmake --preset release "${launcher[@]}" >/dev/null
cmake --build --preset release -j "$jobs"
# Waiting threads sleep instead of spinning: tests share the cores with each other.
OMP_WAIT_POLICY=passive ctest --preset release -j "$jobs" "$@"
