#!/usr/bin/env bash
# What only a GPU can show, in one command: builds with the cuda device and runs its tests, runs them again under
# compute-sanitizer's four tools, records what the GPU's PTX instructions give, and measures.
# Usage: scripts/gpu_check.sh [FOLDER]     default: out/gpu. It leaves there
#   device.txt         what the figures are of
#   golden.json        to be committed as tests/fixtures/ptx/golden.json
#   tests.log, <tool>.log
#   bench/*.json, bench/*.txt
# The tests and tools all run, whatever one of them finds; the exit code is 1 if any failed.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/gpu} build=build/gpu
source scripts/setup.sh
mkdir -p "$out/bench"

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DNANOVLM_GPU=ON "${launcher[@]}" >/dev/null
cmake --build "$build" -j "$jobs"
cmake --build "$build" -j "$jobs" --target record_golden
export OMP_WAIT_POLICY=passive
"$build/kernels/cuda/record_golden" >"$out/golden.json"  # without a GPU this says so, and all ends here
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv | tee "$out/device.txt"

failed=()
ctest --test-dir "$build" -L cuda --output-on-failure 2>&1 | tee "$out/tests.log" || failed+=("ctest -L cuda")

export NANOVLM_TEST_BACKEND=cuda
tests=$(ctest --test-dir "$build" -L cuda -N | sed -n 's/^ *Test *#[0-9]*: \(.*\)_cuda$/\1/p')
for tool in memcheck racecheck initcheck synccheck; do
  echo "compute-sanitizer $tool" >&2
  : >"$out/$tool.log"
  for test in $tests; do
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 1 "$build/tests/$test" >>"$out/$tool.log" 2>&1 ||
      failed+=("$tool $test")
  done
done
unset NANOVLM_TEST_BACKEND

# measure NAME BENCH [option ...]
measure() {
  echo "bench/$*" >&2
  "$build/bench/$2" --device cuda "${@:3}" --json "$out/bench/$1.json" | tee "$out/bench/$1.txt" || failed+=("bench/$*")
}
for bench in "$build"/bench/*; do
  [[ "$("$bench" --help)" == *--device* ]] || continue  # the others measure the host
  measure "$(basename "$bench")" "$(basename "$bench")"
done
# What waits for a time before it may be the default: attention's forward by wgmma, GELU in the products' epilogues, and
# the fused projector, which bench/pixel_shuffle has beside the other.
for kernel in whole wgmma; do
  for preset in lm vit; do
    measure "attention-$preset-$kernel" attention --preset "$preset" --rope 0 --dtype bf16 --dir fwd --impl ours,cudnn \
      --kernel "attention=$kernel"
  done
done
for kernel in mlp=separate mlp=epilogue; do
  measure "train_step-${kernel/=/-}" train_step --config 222m --batch 256 --dtype bf16 --padding packed --kernel "$kernel"
done

[ "${#failed[@]}" = 0 ] && exit
printf 'gpu_check: failed: %s\n' "${failed[@]}" >&2
exit 1
