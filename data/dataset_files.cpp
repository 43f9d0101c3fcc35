#include "data/dataset_files.h"

#include <glob.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

namespace nanovlm {
namespace {
namespace fs = std::filesystem;

constexpr const char* kEndings[] = {".jsonl", ".json", ".parquet"};

// "name@2" -> "name" and 2; a path that exists is taken as it is.
DatasetFiles without_weight(const std::string& name) {
  const size_t at = name.rfind('@');
  if (at == name.npos || fs::exists(name)) return {name, 1, {}};
  DatasetFiles found{name.substr(0, at), 0, {}};
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + at + 1, end, found.weight);
  check(error == std::errc() && stop == end && found.weight >= 0 && found.weight <= 1000, name,
        ": expected a weight from 0 to 1000 behind the @, found \"", name.substr(at + 1), "\"");
  return found;
}

std::vector<std::string> sorted_entries(const fs::path& folder, bool folders) {
  std::vector<std::string> names;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_directory() == folders) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Files of a split in the Hub's layout: train-00000-of-00002.parquet, or with a hash at the end.
std::vector<std::string> shards(const fs::path& folder, const std::string& split) {
  std::vector<std::string> files;
  for (const std::string& name : sorted_entries(folder, false))
    if (name.starts_with(split + "-") && name.ends_with(".parquet")) files.push_back((folder / name).string());
  return files;
}

// Empty where a folder has nothing of the kind.
std::vector<std::string> files_in(const fs::path& folder, const std::string& split) {
  for (const char* ending : kEndings)
    if (const fs::path file = folder / (split + ending); fs::exists(file)) return {file.string()};
  for (const fs::path& place : {folder, folder / "data"})
    if (auto files = shards(place, split); !files.empty()) return files;
  std::vector<std::string> only;
  for (const std::string& name : sorted_entries(folder, false))
    if (dataset_kind(name) != DatasetKind::none) only.push_back((folder / name).string());
  check(only.size() <= 1, folder.string(), ": expected ", split, ".jsonl, ", split, ".json, ", split, ".parquet, ",
        split, "-*.parquet or a single such file in it, found ", only.size(), " files");
  return only;
}

std::vector<DatasetFiles> in_folder(const DatasetFiles& named, const std::string& folder, const std::string& subset,
                                    const std::string& split) {
  std::vector<DatasetFiles> found;
  const auto add = [&](const std::string& name, const fs::path& path) {
    if (auto files = files_in(path, split); !files.empty()) found.push_back({name, named.weight, std::move(files)});
  };
  if (subset == "all")
    for (const std::string& name : sorted_entries(folder, true)) add(folder + ":" + name, fs::path(folder) / name);
  else
    add(named.name, subset.empty() ? fs::path(folder) : fs::path(folder) / subset);
  if (!found.empty()) return found;
  std::string subsets;
  for (const std::string& name : sorted_entries(folder, true)) subsets += (subsets.empty() ? "" : ", ") + name;
  fail(folder, subset.empty() ? "" : ":" + subset, ": expected a data set (", split, ".jsonl, .json or .parquet, or ",
       split, "-*.parquet), found none", subsets.empty() ? "" : "; its subsets: " + subsets);
}

std::vector<std::string> expand(const std::string& pattern) {
  glob_t found{};
  const int status = glob(pattern.c_str(), GLOB_ERR, nullptr, &found);
  std::vector<std::string> files(found.gl_pathv, found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
  globfree(&found);
  check(status == 0 || status == GLOB_NOMATCH, pattern, ": can't be expanded");
  check(!files.empty(), pattern, ": expected files that match, found none");
  return files;
}

// A name that is no path: a repository of the Hub.
std::vector<DatasetFiles> on_the_hub(const DatasetFiles& named, const std::string& repository,
                                     const std::string& subset, const std::string& split, const FetchDataset& fetch) {
  const auto slash = std::count(repository.begin(), repository.end(), '/');
  check(fetch != nullptr && slash == 1 && !repository.starts_with('/') && !repository.starts_with('.'), named.name,
        ": expected a data set, found no file and no folder of this name",
        fetch ? ", and org/name on the Hub is written otherwise" : "");
  const std::string below = subset.empty() ? "" : subset == "all" ? "*/" : subset + "/";
  std::vector<std::string> patterns = {below + split + "*.parquet"};
  // A repository without subsets may keep its shards in data/, or be one file of any name.
  if (subset.empty()) patterns.insert(patterns.end(), {"data/" + split + "*.parquet", "*.parquet"});
  return in_folder(named, fetch(repository, patterns), subset, split);
}

}  // namespace

DatasetKind dataset_kind(const std::string& path) {
  const fs::path ending = fs::path(path).extension();
  return ending == ".jsonl"     ? DatasetKind::json_lines
         : ending == ".json"    ? DatasetKind::json_array
         : ending == ".parquet" ? DatasetKind::parquet
                                : DatasetKind::none;
}

std::vector<DatasetFiles> find_dataset(const std::string& name, const std::string& split, const FetchDataset& fetch) {
  DatasetFiles named = without_weight(name);
  if (fs::is_directory(named.name)) return in_folder(named, named.name, "", split);
  if (fs::exists(named.name)) {
    named.files = {named.name};
    return {named};
  }
  if (named.name.find_first_of("*?[") != named.name.npos) {
    named.files = expand(named.name);
    return {named};
  }
  const size_t colon = named.name.rfind(':');
  const std::string folder = named.name.substr(0, colon);
  const std::string subset = colon == named.name.npos ? "" : named.name.substr(colon + 1);
  check(subset.find('/') == subset.npos && subset != "..", name,
        ": expected a subset's name behind the colon, found \"", subset, "\"");
  if (!subset.empty() && fs::is_directory(folder)) return in_folder(named, folder, subset, split);
  return on_the_hub(named, folder, subset, split, fetch);
}

}  // namespace nanovlm
