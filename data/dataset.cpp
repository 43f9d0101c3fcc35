#include "data/dataset.h"

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "engine/random.h"

namespace nanovlm {
namespace {
namespace fs = std::filesystem;

// The file that a folder stands for.
std::string file_in(const std::string& folder, const std::string& split) {
  const fs::path wanted = fs::path(folder) / (split + ".jsonl");
  if (fs::exists(wanted)) return wanted.string();
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".jsonl") found.push_back(entry.path().string());
  check(found.size() == 1, folder, ": expected ", split, ".jsonl or a single .jsonl file in it, found ", found.size(),
        " .jsonl files");
  return found[0];
}

std::unique_ptr<RecordSource> open_one(const std::string& path, const std::string& split) {
  check(fs::exists(path), path, ": expected a data set, found nothing there");
  const std::string file = fs::is_directory(path) ? file_in(path, split) : path;
  check(fs::path(file).extension() == ".jsonl", file,
        ": expected a .jsonl file or a folder with one, found a file of another kind");
  auto source = std::make_unique<JsonLines>(file);
  check(source->size() > 0, file, ": expected records, found none");
  return source;
}
}  // namespace

std::shared_ptr<const RecordSource> open_dataset(const std::vector<std::string>& paths, const std::string& split) {
  check(!paths.empty(), "data set: expected at least one path, found none");
  std::vector<std::unique_ptr<RecordSource>> parts;
  for (const auto& path : paths) parts.push_back(open_one(path, split));
  if (parts.size() == 1) return std::move(parts[0]);
  return std::make_shared<Concatenation>(std::move(parts));
}

Split split_rows(int64_t rows, uint64_t seed, std::optional<int64_t> data_cutoff_idx, double val_ratio) {
  check(val_ratio >= 0 && val_ratio < 1, "val_ratio: expected a share from 0 to below 1, found ", val_ratio);
  check(!data_cutoff_idx || *data_cutoff_idx > 0, "data_cutoff_idx: expected a positive number of rows, found ",
        data_cutoff_idx.value_or(0));
  Split split{permutation(rows, seed), {}};
  const int64_t kept = std::min(rows, data_cutoff_idx.value_or(rows));
  const int64_t train = kept - static_cast<int64_t>(static_cast<double>(kept) * val_ratio);
  check(train > 0, "data set: expected rows to train on, found ", rows, " rows, of which none is left for it");
  split.validation.assign(split.train.begin() + train, split.train.begin() + kept);
  split.train.resize(static_cast<size_t>(train));
  return split;
}

std::vector<int64_t> all_rows(const RecordSource& source) {
  std::vector<int64_t> rows(static_cast<size_t>(source.size()));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  return rows;
}

}  // namespace nanovlm
