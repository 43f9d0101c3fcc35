#include "data/dataset.h"

#include <algorithm>
#include <numeric>

#include "data/dataset_files.h"
#include "data/json_records.h"
#include "data/parquet.h"
#include "data/reference_order.h"
#include "engine/random.h"

namespace nanovlm {
namespace {

std::unique_ptr<RecordSource> open_file(const std::string& path, const std::shared_ptr<PageCache>& pages) {
  switch (dataset_kind(path)) {
    case DatasetKind::json_lines:
      return std::make_unique<JsonLines>(path);
    case DatasetKind::json_array:
      return std::make_unique<JsonArray>(path);
    case DatasetKind::parquet:
      return open_parquet(path, pages);
    case DatasetKind::none:
      break;
  }
  fail(path, ": expected a .jsonl, .json or .parquet file, or a folder with one, found a file of another kind");
}

std::vector<int64_t> ordered_rows(int64_t rows, const SplitOptions& options) {
  if (options.order == RowOrder::shuffled) return permutation(rows, options.seed);
  if (options.order == RowOrder::reference) return numpy_permutation(rows, options.seed);
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), int64_t{0});
  return order;
}

Split cut(int64_t rows, const SplitOptions& options) {
  const double val_ratio = options.val_ratio;
  check(val_ratio >= 0 && val_ratio < 1, "val_ratio: expected a share from 0 to below 1, found ", val_ratio);
  check(!options.data_cutoff_idx || *options.data_cutoff_idx > 0,
        "data_cutoff_idx: expected a positive number of rows, found ", options.data_cutoff_idx.value_or(0));
  const int64_t kept = std::min(rows, options.data_cutoff_idx.value_or(rows));
  const int64_t train = kept - static_cast<int64_t>(static_cast<double>(kept) * val_ratio);
  check(train > 0, "data set: expected rows to train on, found ", rows, " rows, of which none is left for it");
  Split split{ordered_rows(rows, options), {}};
  split.validation.assign(split.train.begin() + train, split.train.begin() + kept);
  split.train.resize(static_cast<size_t>(train));
  return split;
}

// Each row as often as its weight says; of a fraction, a random share of the rows once more.
std::vector<int64_t> weighted(const std::vector<int64_t>& rows, const Dataset& dataset, uint64_t seed) {
  const auto& subsets = dataset.subsets();
  if (std::all_of(subsets.begin(), subsets.end(), [](const Subset& s) { return s.weight == 1; })) return rows;
  std::vector<int64_t> result;
  Random random(seed, hash_of("weights"));
  for (const int64_t row : rows) {
    const double weight = dataset.subset_of(row).weight;
    auto times = static_cast<int64_t>(weight);
    times += random.uniform() < weight - static_cast<double>(times);
    result.insert(result.end(), static_cast<size_t>(times), row);
  }
  return result;
}
}  // namespace

Dataset::Dataset(std::vector<Part> parts) {
  std::vector<std::unique_ptr<RecordSource>> files;
  int64_t begin = 0;
  for (Part& part : parts) {
    int64_t rows = 0;
    for (auto& file : part.files) {
      rows += file->size();
      files.push_back(std::move(file));
    }
    subsets_.push_back({part.name, part.weight, begin, rows});
    begin += rows;
  }
  rows_ = std::make_unique<Concatenation>(std::move(files));
}

const Subset& Dataset::subset_of(int64_t row) const {
  return *(std::upper_bound(subsets_.begin(), subsets_.end(), row,
                            [](int64_t r, const Subset& subset) { return r < subset.begin; }) -
           1);
}

std::shared_ptr<const Dataset> open_dataset(const std::vector<std::string>& names, const std::string& split,
                                            const FetchDataset& fetch) {
  check(!names.empty(), "data set: expected at least one path, found none");
  const auto pages = make_page_cache();
  std::vector<Dataset::Part> parts;
  for (const std::string& name : names)
    for (const DatasetFiles& found : find_dataset(name, split, fetch)) {
      Dataset::Part& part = parts.emplace_back(Dataset::Part{found.name, found.weight, {}});
      for (const std::string& file : found.files) part.files.push_back(open_file(file, pages));
    }
  auto data = std::make_shared<const Dataset>(std::move(parts));
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  check(data->size() > 0, all, ": expected records, found none");
  return data;
}

Split split_rows(const Dataset& dataset, const SplitOptions& options) {
  Split split = cut(dataset.size(), options);
  split.train = weighted(split.train, dataset, options.seed);
  check(!split.train.empty(), "data set: expected rows to train on, but all have the weight 0");
  return split;
}

std::vector<int64_t> all_rows(const RecordSource& source) {
  std::vector<int64_t> rows(static_cast<size_t>(source.size()));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  return rows;
}

}  // namespace nanovlm
