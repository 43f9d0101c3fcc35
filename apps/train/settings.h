// The command line of train.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apps/common/cli.h"
#include "apps/common/device_option.h"
#include "apps/common/train_config.h"

namespace nanovlm::training {

struct Settings {
  std::string config, out, batches, tokenizer, run_name, hub_repo;
  DeviceOption device;
  std::optional<std::string> checkpoint;
  std::vector<std::string> train_dataset;
  std::map<std::string, std::optional<std::string>> fields;  // of either configuration, as typed
  int64_t micro_batches_per_epoch = 0;
  bool hub_private = false, json = false, cuda_graph = false;
};

void add_options(CommandLine& line, Settings& settings);

// The file's configuration under the flags', with the model's from the checkpoint or the backbones that it starts from.
// Errors: as read_run_config's and those of apps/train/start.h; UsageError: not exactly one source of data.
RunConfig configuration(const Settings& settings);

}  // namespace nanovlm::training
