#!/usr/bin/env bash
# From a fresh machine to a vision-language model trained on real pictures, without a GPU: installs what is missing,
# builds, trains on easy-VQA, evaluates, and asks it questions. Leaves in out/quickstart, or in --out's folder:
#   last/              the trained model, in nanoVLM's checkpoint format
#   metrics.jsonl      every step; loss.png draws it
#   answers.png        test pictures with question, answer and truth
#   blind/             two epochs of the same training without pictures, for comparison (skipped with --no-blind): by then
#                      all that the questions alone can teach is learned
# With --smollm2, in out/smollm2-vqa: the quickstart's vision tower, frozen, and SmolLM2-135M-Instruct (scripts/smollm2.sh)
# learn to work together. What of the two is not there yet is made first. No blind/.
# Usage: scripts/quickstart.sh [--preset FILE.json] [--smollm2] [--out DIR] [--no-blind]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=assets/presets/easy_vqa.json name=quickstart out= blind=1 smollm2=0 eval_dtype=f32
while [ $# -gt 0 ]; do
  case "$1" in
    --preset) preset=$2; shift 2 ;;
    --smollm2) smollm2=1 name=smollm2-vqa blind=0 eval_dtype=bf16 preset=assets/presets/easy_vqa_smollm2.json; shift ;;
    --out) out=$2; shift 2 ;;
    --no-blind) blind=0; shift ;;
    *) echo "quickstart: unknown argument \"$1\"; usage: scripts/quickstart.sh [--preset FILE.json] [--smollm2] [--out DIR] [--no-blind]" >&2; exit 2 ;;
  esac
done
out=${out:-out/$name}
# What a run replaces is an earlier one's, which has left its train.log, and nothing else.
replaceable() {
  [ ! -e "$1" ] || [ -f "$1/train.log" ] || [ -z "$(ls -A "$1")" ] ||
    { echo "quickstart: $1 is there and is no earlier run's: it has no train.log; choose another --out" >&2; exit 2; }
}
replaceable "$out"
SECONDS=0
step() { printf '\n[%02d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*" >&2; }

step "Installing what is missing"
source scripts/setup.sh

step "Building"
cmake -S . -B build/quickstart -G Ninja -DCMAKE_BUILD_TYPE=Release -DNANOVLM_TESTS=OFF -DNANOVLM_BENCH=OFF \
  -DNANOVLM_SIMT=OFF "${launcher[@]}" >/dev/null
cmake --build build/quickstart -j "$jobs" --target train eval generate inspect
bin=build/quickstart/bin

if [ "$smollm2" = 1 ] && [ ! -f out/smollm2/config.json ]; then
  step "Fetching SmolLM2-135M-Instruct"
  scripts/smollm2.sh
fi

data=out/easy-vqa
if [ ! -f "$data/test.jsonl" ]; then
  step "Fetching easy-VQA (4,000 + 1,000 pictures, 48,248 questions)"
  mkdir -p out/download
  "$python" -m pip download --quiet --no-deps --disable-pip-version-check -d out/download easy-vqa
  rm -rf out/download/easy-vqa && mkdir -p out/download/easy-vqa
  "$python" -m zipfile -e out/download/easy_vqa-*.whl out/download/easy-vqa
  "$python" tools/make_easy_vqa.py --package-dir out/download/easy-vqa "$data" >&2
fi

train() { # preset, folder, further flags
  local preset=$1 folder=$2; shift 2
  replaceable "$folder"
  rm -rf "$folder" && mkdir -p "$folder"
  "$bin/train" --config "$preset" --train_dataset "$data" --out "$folder" "$@" >"$folder/train.log"
}
accuracy() { # folder, further flags: prints the line of eval's report, and keeps the answers
  local folder=$1; shift
  "$bin/eval" --checkpoint "$folder/last" --dataset "$data/test.jsonl" --task vqa --dtype "$eval_dtype" --results "$folder/answers.jsonl" \
    --json "$@" >"$folder/eval.json"
  "$python" -c 'import json, sys; r = json.load(open(sys.argv[1])); print(r["accuracy"])' "$folder/eval.json"
}

export OMP_WAIT_POLICY=passive  # other work on the same cores must not stall the waiting threads

if [ "$smollm2" = 1 ] && [ ! -f out/quickstart/last/model.safetensors ]; then
  step "Training the vision tower: assets/presets/easy_vqa.json"
  train assets/presets/easy_vqa.json out/quickstart
fi

step "Training: $preset"
before=$SECONDS
train "$preset" "$out"
trained=$((SECONDS - before))
step "Evaluating on the 9,673 test questions"
seeing=$(accuracy "$out")
"$python" tools/plot_loss.py "$out/metrics.jsonl" "$out/loss.png" --log >&2
awk 'NR % 201 == 1' "$out/answers.jsonl" >"$out/sample.jsonl"  # neighbours ask about the same picture
"$python" tools/contact_sheet.py "$out/sample.jsonl" "$out/answers.png" >&2

step "Asking it questions"
pictures=("$data"/images/test/*.png)
picture=${pictures[0]}
for question in "what shape is in the image?" "what color is the shape?" "is there a red shape in the image?"; do
  "$bin/generate" --checkpoint "$out/last" --image "$picture" --prompt "$question" --greedy --generations 1 --max_new_tokens 8
done

if [ "$blind" = 1 ]; then
  step "The same training without pictures"
  train "$preset" "$out/blind" --blind true --epochs 2
  unseeing=$(accuracy "$out/blind" --blind)
fi

step "Done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
"$python" - "$out/eval.json" "$seeing" "${unseeing:-}" "$trained" <<'PY'
import json, sys
result = json.load(open(sys.argv[1]))
print(f"test accuracy            {100 * float(sys.argv[2]):.2f} %   (training took {sys.argv[4]} s)")
if sys.argv[3]:
    print(f"without pictures         {100 * float(sys.argv[3]):.2f} %")
print(f"commonest answer always  {100 * result['commonest_share']:.2f} %   (by question: {100 * result['commonest_by_question_share']:.2f} %)")
PY
echo "look at $out/answers.png and $out/loss.png; ask your own: $bin/generate --checkpoint $out/last --image FILE --prompt \"what shape is in the image?\" --greedy"
