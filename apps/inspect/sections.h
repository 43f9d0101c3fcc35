// The sections of `inspect`. Each looks at one kind of input, prints what is in it, and fails with one line where the
// input is unsound.
#pragma once
#include <string>

#include "apps/common/cli.h"
#include "engine/tensor.h"

namespace nanovlm::inspect {

void add_image(CommandLine& line);
void add_text(CommandLine& line);
void add_batch(CommandLine& line);
void add_forward(CommandLine& line);
void add_checkpoint(CommandLine& line);
void add_config(CommandLine& line);
void add_data(CommandLine& line);

// Euclidean norm, summed in fp64.
double norm_of(const std::vector<float>& values);

}  // namespace nanovlm::inspect
