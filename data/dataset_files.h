// Which files the name of a data set stands for.
#pragma once
#include <string>
#include <vector>

#include "data/dataset.h"

namespace nanovlm {

enum class DatasetKind { json_lines, json_array, parquet, none };
DatasetKind dataset_kind(const std::string& path);  // by the file's ending

struct DatasetFiles {
  std::string name;
  double weight = 1;
  std::vector<std::string> files;
};

// The subsets that a name stands for (see open_dataset), with at least one file each. Error: there is none.
std::vector<DatasetFiles> find_dataset(const std::string& name, const std::string& split, const FetchDataset& fetch);

}  // namespace nanovlm
