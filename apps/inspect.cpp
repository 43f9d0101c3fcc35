// inspect: what the model is given and what it makes of it, stage by stage. The sections are in apps/inspect/.
#include "apps/inspect/sections.h"

int main(int argc, char** argv) {
  using namespace nanovlm;
  CommandLine line("inspect", "Shows what a model sees and does. Exit code 1 means that the input is unsound.");
  inspect::add_image(line);
  inspect::add_text(line);
  inspect::add_data(line);
  inspect::add_batch(line);
  inspect::add_forward(line);
  inspect::add_checkpoint(line);
  inspect::add_config(line);
  return line.run(argc, argv);
}
