// The data sets that a user names on a command line.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace nanovlm {

// open_dataset, with names that are no paths looked for on the Hugging Face Hub.
std::shared_ptr<const Dataset> open_dataset_argument(const std::vector<std::string>& names,
                                                     const std::string& split = "train");

}  // namespace nanovlm
