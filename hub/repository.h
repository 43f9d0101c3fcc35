// A repository on the Hub: what may be its name, and what it says of itself. Names that come from it become paths in
// the cache, so each is checked here, once, before anything is made of it.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hub/http.h"
#include "hub/hub.h"

namespace nanovlm::hub {

// A file of a commit.
struct Entry {
  std::string path;
  int64_t size = 0;
  std::string blob_id;  // git's name for it: of the file, or of the pointer to it where sha256 is given
  std::string sha256;   // of large files (LFS); else empty

  const std::string& etag() const { return sha256.empty() ? blob_id : sha256; }  // its name among the cache's blobs
};

struct Listing {
  std::string commit;
  std::vector<Entry> entries;  // sorted by path, each once
};

bool is_commit(std::string_view text);    // 40 hexadecimal digits, small letters
bool is_revision(std::string_view text);  // a branch, a tag or a commit, also "refs/pr/1"

// A relative path of plain names: none of them is "", "." or "..", and none has control characters or backslashes.
bool is_file_name(std::string_view text);

bool has_wildcards(const std::string& pattern);
bool matches(const std::string& pattern, const std::string& path);  // see resolve_snapshot

class Repository {
 public:
  // Errors name the repository.
  Repository(HttpClient& client, const std::string& name, RepoType type);

  std::string commit_of(const std::string& revision);
  Listing list(const std::string& commit);  // Error: a name, a size or a digest in it breaks a rule
  std::string file_url(const std::string& commit, const std::string& path) const;
  std::string api_url() const;
  std::string git_url() const;

  const std::string& name() const { return name_; }

 private:
  HttpClient& client_;
  std::string name_;
  RepoType type_;
};

// A listing as the Python client keeps it (trees/<commit>.json). Error: it is not as it should be.
std::string to_json_text(const Listing& listing);
Listing read_listing(const std::string& path, const std::string& commit);

}  // namespace nanovlm::hub
