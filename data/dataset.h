// From the paths a user names to rows in an order: which files, how they are mixed, and which rows are for training.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/record.h"

namespace nanovlm {

// Each path is a .jsonl file, or a folder with <split>.jsonl (or with only one .jsonl file) in it; several are put
// one after the other. Error: nothing there, no records, a file of a kind that can't be read.
std::shared_ptr<const RecordSource> open_dataset(const std::vector<std::string>& paths,
                                                 const std::string& split = "train");

// Rows of a data set for training and for validation.
struct Split {
  std::vector<int64_t> train, validation;
};

// The reference's rule on our random numbers: all rows are shuffled (seed), cut to the first data_cutoff_idx, and the
// last int(rows * val_ratio) of these are for validation. Error: val_ratio not in [0, 1), nothing left to train on.
Split split_rows(int64_t rows, uint64_t seed, std::optional<int64_t> data_cutoff_idx, double val_ratio);

// 0, 1, 2, ...: the order of the file.
std::vector<int64_t> all_rows(const RecordSource& source);

}  // namespace nanovlm
