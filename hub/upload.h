// A folder, uploaded to the Hub as one commit.
#pragma once
#include <cstdint>
#include <string>

#include "hub/hub.h"

namespace nanovlm::hub {

struct UploadOptions {
  RepoType type = RepoType::model;
  bool is_private = false;  // of a repository that is created here; an existing public one is then refused
  std::string revision = "main";
  std::string message = "Upload folder";
};

struct Commit {
  std::string repository_url;
  std::string id;             // 40 hexadecimal digits; empty if the repository already held every file as it is
  int64_t files = 0;          // that the commit changed
  int64_t files_as_were = 0;  // that it did not have to
};

// Uploads every file below `folder`, except those in a .git or .cache at any depth, into repository `name`, which is
// created if it does not exist. Files that the repository has and the folder lacks stay. The Hub says which files are
// large: those go first, to where it tells (in parts if it wants parts), by their SHA-256; then one commit adds all, or
// none.
// Needs a token. Error: no such folder, nothing in it, a name that the Hub would not take, no access, network.
Commit upload_folder(const std::string& folder, const std::string& name, const UploadOptions& options = {},
                     const Progress& progress = {}, const Settings& settings = Settings::from_environment());

}  // namespace nanovlm::hub
