// The Hugging Face Hub: repositories fetched into the cache that the Python client (huggingface_hub) uses too, and
// folders uploaded as one commit. Knows files, nothing of models or data sets.
//
//     const hub::Snapshot model = hub::resolve_snapshot("HuggingFaceTB/SmolLM2-135M", "main",
//                                                       {"config.json", "*.safetensors"});
//     model.path("config.json")   // a path below the cache
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace nanovlm::hub {

enum class RepoType { model, dataset };

// Where the Hub and its cache are, and how patiently it is asked.
struct Settings {
  std::string endpoint = "https://huggingface.co";  // without a slash at the end
  std::string cache;                                // folder that holds models--org--name/ and .locks/
  std::string token;                                // empty: anonymous. Sent to the endpoint's host, never to another
  bool offline = false;                             // only what is in the cache
  int retries = 5;                                  // of a request that failed in a way that may pass
  double retry_seconds = 0.25;                      // before the first retry; doubled for each further one
  int64_t stall_seconds = 10;                       // without a connection or without data, until a request has failed

  // HF_ENDPOINT; HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
  // ~/.cache/huggingface/hub; HF_TOKEN, HUGGING_FACE_HUB_TOKEN or the file HF_TOKEN_PATH or HF_HOME/token;
  // HF_HUB_OFFLINE; HF_HUB_DOWNLOAD_TIMEOUT. Error: one of them makes no sense.
  static Settings from_environment();
};

// Called while bytes come or go: the file, how many bytes are done, and how many there are.
using Progress = std::function<void(const std::string& file, int64_t done, int64_t of)>;

// The files of one commit.
struct Snapshot {
  std::string folder;              // canonical; below it the files have the names that they have in the repository
  std::string commit;              // 40 hexadecimal digits; empty if `folder` is not the cache's
  std::vector<std::string> files;  // those that were asked for, sorted, relative to `folder`
  std::vector<std::string> notes;  // what the user should know, such as that the Hub was out of reach

  std::string path(const std::string& file) const { return folder + "/" + file; }
};

// "org/name", as the Hub allows names.
bool is_repo_name(const std::string& name);

// The files of repository `name` ("org/name") at `revision` (a branch, a tag or a commit) that match one of `files`;
// what the cache lacks is downloaded. A pattern is a name, or has the wildcards * and ?, which stand for no slash
// ("data/*.parquet"); "**" is every file. Where `name` is an existing folder, it is that folder that is searched.
//
// A file is in the snapshot whole or not at all: size and digest (SHA-256, or git's) agree with the repository's
// listing before it gets its name. A download that was cut, by whatever, goes on where it ended.
// Error: no such repository, revision or file (a name without wildcards must exist; at least one file must match), no
// access, network, full disk, a listing or a file that breaks a rule; offline, something is missing from the cache.
Snapshot resolve_snapshot(const std::string& name, const std::string& revision, const std::vector<std::string>& files,
                          RepoType type = RepoType::model, const Progress& progress = {},
                          const Settings& settings = Settings::from_environment());

}  // namespace nanovlm::hub
