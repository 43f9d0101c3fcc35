#!/usr/bin/env bash
# Installs what is missing, builds everything, runs every test. Where nvcc is found, that is with the cuda device: the
# kernels are compiled for sm_80 and sm_90a, none may spill registers, and docs/kernels.md must have their figures.
# Extra arguments go to ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh

cmake --preset release "${launcher[@]}" >/dev/null
cmake --build --preset release -j "$jobs"
reports=build/release/kernels/cuda/CMakeFiles/nanovlm_cuda.dir
if [ -d "$reports" ]; then
  "$python" tools/kernel_table.py --reports "$reports" --check
else
  echo "test: nvcc is not found, so the kernels are not compiled for GPUs" >&2
fi
# Waiting threads sleep instead of spinning: tests share the cores with each other.
OMP_WAIT_POLICY=passive ctest --preset release -j "$jobs" "$@"
