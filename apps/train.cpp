// train: trains a vision-language model, as nanoVLM's train.py. Its parts are in apps/train/.
//
//   train --config FILE.json --train_dataset PATH... --out DIR [--device cpu] [any field of either config as --field X]
//   train --batches FILE.safetensors ...   on micro-batches kept in a file, as the reference's: dense rows, and a
//                                          schedule counted in micro-batches
//
// Leaves in DIR: metrics.jsonl, last/ (the model at the end) and best/ (the one with the lowest validation loss).
#include "apps/train/run.h"

int main(int argc, char** argv) {
  using namespace nanovlm;
  training::Settings settings;
  CommandLine line("train", "Trains a vision-language model.");
  training::add_options(line, settings);
  return line.run(argc, argv, [&] {
    training::Run run(settings, training::configuration(settings));
    run.describe();
    run.train();
    run.finish();
  });
}
