#include "apps/common/train_config.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/common/cli.h"
#include "engine/json.h"

namespace nanovlm {
namespace {

void from_json(const JsonValue& value, int64_t& field) { field = value.integer(); }
void from_json(const JsonValue& value, double& field) { field = value.number(); }
void from_json(const JsonValue& value, bool& field) { field = value.boolean(); }
void from_json(const JsonValue& value, std::string& field) { field = value.is_null() ? "" : value.string(); }
template <class T>
void from_json(const JsonValue& value, std::optional<T>& field) {
  field.reset();
  if (!value.is_null()) from_json(value, field.emplace());
}

// A flag's value as typed. "none" empties an optional field.
template <class T>
void from_number(const std::string& flag, const std::string& typed, T& field, const char* expected) {
  const char* end = typed.data() + typed.size();
  const auto [stop, error] = std::from_chars(typed.data(), end, field);
  if (error != std::errc() || stop != end)
    throw UsageError(text("--", flag, " is \"", typed, "\", expected ", expected));
}
void from_flag(const std::string& flag, const std::string& typed, int64_t& field) {
  from_number(flag, typed, field, "an integer");
}
void from_flag(const std::string& flag, const std::string& typed, double& field) {
  from_number(flag, typed, field, "a number");
}
void from_flag(const std::string& flag, const std::string& typed, bool& field) {
  if (typed != "true" && typed != "false" && typed != "True" && typed != "False")
    throw UsageError(text("--", flag, " is \"", typed, "\", expected true or false"));
  field = typed == "true" || typed == "True";
}
void from_flag(const std::string&, const std::string& typed, std::string& field) { field = typed; }
template <class T>
void from_flag(const std::string& flag, const std::string& typed, std::optional<T>& field) {
  field.reset();
  if (typed != "none" && typed != "None") from_flag(flag, typed, field.emplace());
}

template <class T>
std::string shown(const T& field) {
  return text(field);
}
std::string shown(const bool& field) { return field ? "true" : "false"; }
std::string shown(const std::string& field) { return field.empty() ? "none" : field; }
template <class T>
std::string shown(const std::optional<T>& field) {
  return field ? shown(*field) : "none";
}

void read_train(const nlohmann::json& document, const std::string& where, RunConfig& config) {
  const JsonValue root(document, where);
  root.expect_object();
  std::set<std::string> known;
  config.train.fields([&](const char* name, auto& field) {
    known.insert(name);
    if (document.contains(name)) from_json(root[name], field);
  });
  for (const auto& item : document.items())
    if (!known.contains(item.key()))
      config.warnings.push_back(text(where, ": unknown key \"", item.key(), "\" is ignored"));
}

void read_file(const std::string& file, RunConfig& config) {
  const nlohmann::json document = read_json_file(file, int64_t{1} << 20);
  JsonValue(document, file).expect_object();
  if (!document.contains("vlm") && !document.contains("train")) {
    config.vlm = read_config(document, file, config.warnings);
    return;
  }
  for (const auto& item : document.items()) {
    if (item.key() == "vlm")
      config.vlm = read_config(item.value(), file + ": vlm", config.warnings);
    else if (item.key() == "train")
      read_train(item.value(), file + ": train", config);
    else
      config.warnings.push_back(text(file, ": unknown key \"", item.key(), "\" is ignored"));
  }
}

// Calls rules(config), which may mend it; what flags have broken is bad usage, what the file had broken is not.
template <class Config, class Rules>
void check_with_flags(Config& config, Config without_flags, const Rules& rules) {
  try {
    rules(config);
  } catch (const Error& error) {
    try {
      rules(without_flags);
    } catch (const Error&) {
      throw error;
    }
    throw UsageError(error.what());
  }
}

}  // namespace

void TrainConfig::validate() const {
  std::string problems;
  const auto rule = [&](bool ok, const char* name, const auto& value, const char* rule) {
    if (!ok) problems += text("\n  ", name, " is ", value, ", but must be ", rule);
  };
  const auto rate = [&](const char* name, double value) {
    rule(std::isfinite(value) && value >= 0, name, value, "0 or more");
  };
  rate("lr_mp", lr_mp);
  rate("lr_backbones", lr_backbones);
  rate("lr_vision_backbone", lr_vision_backbone.value_or(lr_backbones));
  rate("lr_language_backbone", lr_language_backbone.value_or(lr_backbones));
  rate("weight_decay", weight_decay);
  rule(beta2 >= 0 && beta2 < 1, "beta2", beta2, "at least 0 and below 1");
  rule(!data_cutoff_idx || *data_cutoff_idx > 0, "data_cutoff_idx", data_cutoff_idx.value_or(0), "above 0, or none");
  rule(val_ratio >= 0 && val_ratio < 1, "val_ratio", val_ratio, "at least 0 and below 1");
  rule(batch_size > 0 && batch_size <= 65536, "batch_size", batch_size, "1 to 65536");
  // Bounds, so that products of these with a number of rows hold in 64 bits.
  rule(gradient_accumulation_steps > 0 && gradient_accumulation_steps <= 1 << 20, "gradient_accumulation_steps",
       gradient_accumulation_steps, "1 to 1048576");
  rule(!max_grad_norm || (std::isfinite(*max_grad_norm) && *max_grad_norm > 0), "max_grad_norm",
       max_grad_norm.value_or(0), "above 0, or none");
  rule(eval_interval > 0, "eval_interval", eval_interval, "above 0");
  rule(epochs > 0 && epochs <= 1 << 20, "epochs", epochs, "1 to 1048576");
  rule(dtype == "bf16" || dtype == "f32", "dtype", dtype, "bf16 or f32");
  rule(init == "nanovlm" || init == "balanced", "init", init, "nanovlm or balanced");
  rule(compat == "none" || compat == "nanovlm-v1", "compat", compat, "none or nanovlm-v1");
  rule(workers >= 0 && workers <= 256, "workers", workers, "0 to 256");
  rule(picture_cache_mib >= 0 && picture_cache_mib <= 1 << 24, "picture_cache_mib", picture_cache_mib, "0 to 16777216");
  rule(vision_cache_mib >= 0 && vision_cache_mib <= 1 << 24, "vision_cache_mib", vision_cache_mib, "0 to 16777216");
  rule(eval_batches >= 0, "eval_batches", eval_batches, "0 (all) or more");
  rule(shuffle == "own" || shuffle == "blocks" || shuffle == "reference" || shuffle == "none", "shuffle", shuffle,
       "own, blocks, reference or none");
  rule(max_no_loss_share >= 0 && max_no_loss_share <= 1, "max_no_loss_share", max_no_loss_share, "0 to 1");
  rule(max_bad_share >= 0 && max_bad_share <= 1, "max_bad_share", max_bad_share, "0 to 1");
  rule(max_training_steps >= 0, "max_training_steps", max_training_steps, "0 (no limit) or more");
  check(problems.empty(), "not a usable training configuration:", problems);
}

bool RunConfig::begins_with_backbones() const {
  return vlm.vlm_load_backbone_weights && !train.resume_from_vlm_checkpoint &&
         !(vlm.vit_model_type.empty() && vlm.lm_model_type.empty());
}

RunConfig read_run_config(const std::string& file, const std::map<std::string, std::string>& flags) {
  RunConfig config;
  if (!file.empty()) read_file(file, config);
  const RunConfig from_file = config;
  const auto apply = [&](const char* name, auto& field) {
    if (const auto flag = flags.find(name); flag != flags.end()) from_flag(name, flag->second, field);
  };
  config.vlm.fields(apply);
  config.train.fields(apply);
  check_with_flags(config.train, from_file.train, [](const TrainConfig& train) { train.validate(); });
  // A checkpoint's own is looked at where it is read; backbones overwrite what is said here first.
  if (config.train.resume_from_vlm_checkpoint || config.begins_with_backbones()) return config;
  const std::string where = file.empty() ? "the model's configuration" : file + " with the flags";
  check_with_flags(config.vlm, from_file.vlm, [&](VLMConfig& vlm) { settle_config(vlm, where, config.warnings); });
  return config;
}

std::vector<std::string> run_config_fields() {
  std::vector<std::string> names;
  RunConfig config;
  config.vlm.fields([&](const char* name, auto&) { names.push_back(name); });
  config.train.fields([&](const char* name, auto&) { names.push_back(name); });
  return names;
}

std::string describe(const RunConfig& config) {
  std::string out = "--- VLM Config ---\n";
  config.vlm.fields([&](const char* name, const auto& field) { out += text("  ", name, " = ", shown(field), "\n"); });
  out += "--- Train Config ---\n";
  TrainConfig train = config.train;
  train.fields([&](const char* name, const auto& field) { out += text("  ", name, " = ", shown(field), "\n"); });
  return out;
}

}  // namespace nanovlm
