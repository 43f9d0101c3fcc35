#include "apps/common/dataset_argument.h"

#include "apps/common/output.h"
#include "hub/hub.h"

namespace nanovlm {
namespace {

std::string fetch(const std::string& repository, const std::vector<std::string>& patterns) {
  check(hub::is_repo_name(repository), "\"", repository,
        "\": expected a data set, found no file, no folder and no name that the Hub allows (org/name)");
  Progress progress("fetching " + repository);
  const hub::Snapshot snapshot =
      hub::resolve_snapshot(repository, "main", patterns, hub::RepoType::dataset,
                            [&](const std::string&, int64_t done, int64_t of) { progress.show(done, of); });
  note("data set " + repository, snapshot.notes);
  return snapshot.folder;
}

}  // namespace

std::shared_ptr<const Dataset> open_dataset_argument(const std::vector<std::string>& names, const std::string& split) {
  return open_dataset(names, split, fetch);
}

}  // namespace nanovlm
