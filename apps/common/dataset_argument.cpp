#include "apps/common/dataset_argument.h"

#include "apps/common/pretrained.h"

namespace nanovlm {
namespace {

std::string fetch(const std::string& repository, const std::vector<std::string>& patterns) {
  check(hub::is_repo_name(repository), "\"", repository,
        "\": expected a data set, found no file, no folder and no name that the Hub allows (org/name)");
  return fetch_snapshot("data set " + repository, repository, "main", patterns, hub::RepoType::dataset).folder;
}

}  // namespace

std::shared_ptr<const Dataset> open_dataset_argument(const std::vector<std::string>& names, const std::string& split) {
  return open_dataset(names, split, fetch);
}

}  // namespace nanovlm
