// A checkpoint ready to be asked: its weights, and the tokenizer that goes with them.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "data/prompt.h"
#include "model/vision_language_model.h"

namespace nanovlm {

// "f32" or "bf16".
DType dtype_of(const std::string& name);

// Whether `folder` (may be empty) has a tokenizer.json.
bool has_tokenizer(const std::string& folder);

// Whether a configuration's lm_tokenizer stands for the one under assets/, wherever a program is started.
bool is_our_tokenizer(const std::string& lm_tokenizer);

// `given` where it is not empty; else the tokenizer.json in the checkpoint's folder (which may be empty, or the
// config.json in it); else that of the configuration's lm_tokenizer where it is a folder; else the one under assets/,
// with a warning where lm_tokenizer names another. Errors: nothing is there, or it has more tokens than the model.
PromptTokenizer load_tokenizer(const std::string& given, const std::string& checkpoint, const VLMConfig& config,
                               std::vector<std::string>& warnings);

// The files of the tokenizer that load_tokenizer takes, by their names, to be kept with what is trained with it; none
// for the one under assets/, which the programs have.
std::map<std::string, std::string> tokenizer_files(const std::string& given, const std::string& checkpoint,
                                                   const VLMConfig& config);

struct LoadedModel {
  VisionLanguageModel model;  // for inference in `dtype`
  PromptTokenizer text;
  std::vector<std::string> warnings;

  static LoadedModel load(const std::string& checkpoint, const std::string& tokenizer, const Device& device,
                          DType dtype);
};

}  // namespace nanovlm
