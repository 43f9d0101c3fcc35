#include "apps/train/settings.h"

#include "apps/common/pretrained.h"
#include "apps/train/start.h"

namespace nanovlm::training {

void add_options(CommandLine& line, Settings& s) {
  line.option("--config", s.config, "JSON: {\"vlm\": {...}, \"train\": {...}}, or a nanoVLM config.json");
  line.option("--checkpoint", s.checkpoint,
              "start from this folder's weights and its model's configuration, which no flag changes; the same as "
              "--resume_from_vlm_checkpoint true with --vlm_checkpoint_path");
  line.option(
      "--train_dataset", s.train_dataset,
      "files (.jsonl, .json, .parquet), folders, patterns, or org/name[:subset] on the Hub; each may end in @WEIGHT");
  line.option("--batches", s.batches, "micro-batches from a safetensors file, instead of a data set");
  line.option("--micro_batches_per_epoch", s.micro_batches_per_epoch, "of --batches; 0: all, over the epochs")
      .in(0, 1e15);
  line.option(
      "--tokenizer", s.tokenizer,
      "tokenizer.json, or its folder; else that of --checkpoint, else lm_tokenizer where that is a folder (or, where "
      "backbones are loaded, a name on the Hub), else the one in assets/");
  s.device.add_to(line);
  line.flag("--cuda_graph", s.cuda_graph,
            "record a step's launches for batches of one shape, and start them as a whole: as a CUDA graph on cuda; "
            "shapes come again with --dense true");
  line.option("--out", s.out, "folder for the checkpoints and metrics.jsonl").required();
  line.option("--run_name", s.run_name, "else as nanoVLM names its runs");
  line.option("--hub_repo", s.hub_repo,
              "ORG/NAME on the Hugging Face Hub, to which the best model is pushed at the end");
  line.flag("--hub_private", s.hub_private, "nobody else may see it, if it is created");
  line.flag("--json", s.json, "one JSON object on standard output at the end");
  for (const std::string& field : run_config_fields())
    line.option("--" + field, s.fields[field], "").in_group("Fields of the configuration");
}

RunConfig configuration(const Settings& s) {
  if (s.batches.empty() == s.train_dataset.empty()) throw UsageError("give either --train_dataset or --batches");
  if (!s.hub_repo.empty()) check_can_push(s.hub_repo);
  std::map<std::string, std::string> given;
  for (const auto& [field, value] : s.fields)
    if (value) given[field] = *value;
  if (s.checkpoint) {
    given["resume_from_vlm_checkpoint"] = "true";
    given["vlm_checkpoint_path"] = *s.checkpoint;
  }
  RunConfig config = read_run_config(s.config, given);
  if (config.train.resume_from_vlm_checkpoint) take_checkpoint_config(config, given);
  find_backbones(config);
  return config;
}

}  // namespace nanovlm::training
