// What a data set holds, and how much of it the loss would see, before anything is trained on it.
#pragma once
#include <array>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/collate.h"
#include "data/dataset.h"
#include "data/loader.h"

namespace nanovlm {

struct SurveyOptions {
  CollateOptions collate;        // as the training would have it
  bool decode_pictures = false;  // else a broken one goes unseen
  int workers = 2;
  std::function<void(int64_t done, int64_t of)> progress = {};
};

// Counts of records. A sample is a record that could be used; training takes its first turn and picture.
struct SurveyCounts {
  int64_t records = 0, samples = 0, turns = 0, pictures = 0;
  std::array<int64_t, kFaults> broken{};  // by reason
  int64_t duplicates = 0;                 // samples whose picture and first turn came before
  int64_t over_long = 0;                  // samples of more tokens than the limit, which are left out, cut or masked
  int64_t without_loss = 0;               // samples none of whose labels count
  int64_t tokens = 0, labels = 0;         // of what is left of the samples: places, and those whose label counts
  std::vector<int32_t> lengths;           // tokens of question and answer, uncut; a sample each, sorted

  int32_t length_at(double share) const;  // at least this share of the samples is no longer; 0 without samples
  double without_loss_share() const;      // of the samples
};

struct Survey {
  SurveyCounts all;
  std::map<std::string, SurveyCounts> sources;  // by the first turn's source, or else the subset's name
  std::vector<Skip> skipped;                    // the first few
};

// Looks at these rows of the data set. The result does not depend on the number of threads.
Survey survey(const Dataset& dataset, const std::vector<int64_t>& rows, const PromptTokenizer& text,
              const SurveyOptions& options);

}  // namespace nanovlm
