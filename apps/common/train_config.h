// What a training run is made of, besides the model: nanoVLM's TrainConfig, its names and defaults, and what we add.
// Read from a file, then from flags; every field is a flag of its name.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/error.h"
#include "model/backbones.h"
#include "model/config.h"

namespace nanovlm {

struct TrainConfig {
  // nanoVLM's fields.
  double lr_mp = 2e-3;
  double lr_backbones = 1e-4;
  std::optional<int64_t> data_cutoff_idx;
  double val_ratio = 0.025;
  int64_t batch_size = 256;
  int64_t gradient_accumulation_steps = 1;
  int64_t mmstar_batch_size = 32;  // without effect: MMStar is left to eval
  std::optional<double> max_grad_norm;
  bool eval_in_epochs = true;
  int64_t eval_interval = 250;
  int64_t epochs = 5;
  bool resume_from_vlm_checkpoint = false;

  // Ours.
  std::optional<double> lr_vision_backbone, lr_language_backbone;  // none: lr_backbones; 0: frozen
  bool resize_position_embedding = false;  // to vit_img_size, instead of taking the vision backbone's picture size

  std::string dtype = "bf16";  // of products: bf16 or f32
  int64_t seed = 0;
  std::string init = "nanovlm";  // or balanced: see Init in model/vision_language_model.h
  std::string compat = "none";   // or nanovlm-v1: the reference's behaviour, its mistakes included
  // own: by our random numbers; blocks: the same, but only so far that row groups are read once; reference: rows in
  // train.py's order; none: as stored
  std::string shuffle = "own";
  bool reshuffle = true;             // another order in every epoch
  bool dense = false;                // compute padded rows too
  int64_t workers = 2;               // threads that prepare batches
  int64_t picture_cache_mib = 256;   // of memory for decoded pictures
  std::string picture_cache_folder;  // where decoded pictures go that memory has no room for; none: nowhere
  int64_t vision_cache_mib = 1024;   // of memory for what a frozen vision encoder made of pictures; 0: none is kept
  int64_t eval_batches = 64;         // of the validation set in each evaluation; 0: all
  double max_bad_share = 0.1;        // of records, before the run stops
  double max_no_loss_share = 0.5;    // of samples without a label that counts; with more the run does not start
  double beta2 = 0.999;              // AdamW's
  double weight_decay = 0.01;        // AdamW's
  bool blind = false;                // pictures replaced by grey: what the questions alone teach
  int64_t max_training_steps = 0;    // optimizer steps; 0: as many as the epochs give

  // Every field, as f(name, field).
  template <class F>
  void fields(F&& f);

  void validate() const;  // throws one Error that lists every field that breaks a rule
};

// Both configurations of a run. With resume_from_vlm_checkpoint the model's is the checkpoint's: see
// take_checkpoint_config in apps/train/start.h.
struct RunConfig {
  VLMConfig vlm;
  TrainConfig train;
  std::string checkpoint;  // the folder that the run resumes from, if it does
  Backbones backbones;     // where the weights are that the run starts from, if it does
  std::vector<std::string> warnings;

  bool begins_with_backbones() const;
};

// `file` (may be empty) holds {"vlm": {...}, "train": {...}}, either of them optional, or a nanoVLM config.json.
// `flags` are field names with their values as typed, and win over the file. Errors name file or flag, field, expected
// and found; UsageError: what the flags say is no value of the field, or breaks what would be sound without them. The
// model's rules are not looked at where a checkpoint decides, nor before backbones are known.
RunConfig read_run_config(const std::string& file, const std::map<std::string, std::string>& flags);

// The fields of both configurations, for the command line.
std::vector<std::string> run_config_fields();

// "--- VLM Config ---" and "--- Train Config ---" with one field a line.
std::string describe(const RunConfig& config);

template <class F>
void TrainConfig::fields(F&& f) {
  f("lr_mp", lr_mp);
  f("lr_backbones", lr_backbones);
  f("data_cutoff_idx", data_cutoff_idx);
  f("val_ratio", val_ratio);
  f("batch_size", batch_size);
  f("gradient_accumulation_steps", gradient_accumulation_steps);
  f("mmstar_batch_size", mmstar_batch_size);
  f("max_grad_norm", max_grad_norm);
  f("eval_in_epochs", eval_in_epochs);
  f("eval_interval", eval_interval);
  f("epochs", epochs);
  f("resume_from_vlm_checkpoint", resume_from_vlm_checkpoint);
  f("lr_vision_backbone", lr_vision_backbone);
  f("lr_language_backbone", lr_language_backbone);
  f("resize_position_embedding", resize_position_embedding);
  f("dtype", dtype);
  f("seed", seed);
  f("init", init);
  f("compat", compat);
  f("shuffle", shuffle);
  f("reshuffle", reshuffle);
  f("dense", dense);
  f("workers", workers);
  f("picture_cache_mib", picture_cache_mib);
  f("picture_cache_folder", picture_cache_folder);
  f("vision_cache_mib", vision_cache_mib);
  f("eval_batches", eval_batches);
  f("max_bad_share", max_bad_share);
  f("max_no_loss_share", max_no_loss_share);
  f("beta2", beta2);
  f("weight_decay", weight_decay);
  f("blind", blind);
  f("max_training_steps", max_training_steps);
}

}  // namespace nanovlm
