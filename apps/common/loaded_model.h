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

// `given` where it is not empty; else the tokenizer.json in the checkpoint's folder (which may be empty); else the one
// under assets/. Errors: nothing is there, or it has more tokens than the model.
PromptTokenizer load_tokenizer(const std::string& given, const std::string& checkpoint, const VLMConfig& config,
                               std::vector<std::string>& warnings);

// The files of the tokenizer that load_tokenizer takes, by their names, to be kept with what is trained with it; none
// for the one under assets/, which the programs have.
std::map<std::string, std::string> tokenizer_files(const std::string& given, const std::string& checkpoint);

struct LoadedModel {
  VisionLanguageModel model;  // for inference in `dtype`
  PromptTokenizer text;
  std::vector<std::string> warnings;

  static LoadedModel load(const std::string& checkpoint, const std::string& tokenizer, const Device& device,
                          DType dtype);
};

}  // namespace nanovlm
