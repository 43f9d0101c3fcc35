// From the names a user gives to rows in an order: which files, how they are mixed, and which rows are for training.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/record.h"

namespace nanovlm {

// Fetches those files of a repository ("org/name") that match one of the patterns ("data/*.parquet"), and returns the
// folder that holds them under their own names. Error: it can't.
using FetchDataset =
    std::function<std::string(const std::string& repository, const std::vector<std::string>& patterns)>;

// The rows of one name.
struct Subset {
  std::string name;  // as given, without the weight
  double weight;     // how often a row is visited in an epoch
  int64_t begin, rows;
};

// Several subsets, one after the other.
class Dataset final : public RecordSource {
 public:
  struct Part {
    std::string name;
    double weight;
    std::vector<std::unique_ptr<RecordSource>> files;
  };
  explicit Dataset(std::vector<Part> parts);

  int64_t size() const override { return rows_->size(); }
  Record read(int64_t row) const override { return rows_->read(row); }
  std::string place(int64_t row) const override { return rows_->place(row); }
  int64_t blocks() const override { return rows_->blocks(); }
  int64_t block_of(int64_t row) const override { return rows_->block_of(row); }

  const std::vector<Subset>& subsets() const { return subsets_; }
  const Subset& subset_of(int64_t row) const;

 private:
  std::vector<Subset> subsets_;
  std::unique_ptr<Concatenation> rows_;
};

// Opens and concatenates what the names stand for. A name is
//   a file              .jsonl, .json (an array) or .parquet
//   a folder            that has <split>.jsonl, .json or .parquet, or <split>-*.parquet shards (also below data/), or
//                       only one such file
//   FOLDER:SUBSET       its subfolder; FOLDER:all stands for every subfolder, each a subset of its own
//   a pattern           with *, ? or [...], as a shell expands it
//   org/name[:SUBSET]   a repository of the Hub, where no such path exists and `fetch` is given
// and may end in @WEIGHT: "a.parquet@0.5" visits a random half of the rows, "a.parquet@2" each row twice.
// Error: nothing is there (what was tried is named), no records in all of it, a file of a kind that can't be read.
std::shared_ptr<const Dataset> open_dataset(const std::vector<std::string>& names, const std::string& split = "train",
                                            const FetchDataset& fetch = {});

enum class RowOrder {
  shuffled,   // by our random numbers
  reference,  // as nanoVLM's train.py has it: data/reference_order.h
  stored
};

struct SplitOptions {
  uint64_t seed = 0;
  std::optional<int64_t> data_cutoff_idx = std::nullopt;
  double val_ratio = 0;
  RowOrder order = RowOrder::shuffled;
};

// Rows of a data set for training and for validation. Weights count in training only.
struct Split {
  std::vector<int64_t> train, validation;
};

// The reference's rule: all rows in their order, cut to the first data_cutoff_idx; the last int(rows * val_ratio) of
// these are for validation. Error: val_ratio not in [0, 1), nothing left to train on.
Split split_rows(const Dataset& dataset, const SplitOptions& options);

// 0, 1, 2, ...: the order of the files.
std::vector<int64_t> all_rows(const RecordSource& source);

}  // namespace nanovlm
