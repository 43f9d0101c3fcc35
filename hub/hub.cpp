#include "hub/hub.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <set>

#include "hub/blob.h"
#include "hub/cache.h"
#include "hub/repository.h"

namespace nanovlm::hub {
namespace fs = std::filesystem;
namespace {

std::string in_list(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

// The names without wildcards among the patterns that are not among the files.
std::vector<std::string> absent(const std::vector<std::string>& patterns, const std::vector<std::string>& files) {
  std::vector<std::string> names;
  for (const std::string& pattern : patterns)
    if (!has_wildcards(pattern) && std::find(files.begin(), files.end(), pattern) == files.end())
      names.push_back(pattern);
  return names;
}

// The names in the folder that a pattern is about, or in the topmost one where it does not exist: folders end in "/".
std::string names_beside(const std::string& pattern, const std::vector<std::string>& all) {
  constexpr size_t kNames = 100;
  std::string folder = pattern.substr(0, pattern.rfind('/', pattern.find_first_of("*?[")) + 1);
  const auto inside = [&](const std::string& path) { return path.starts_with(folder); };
  if (std::none_of(all.begin(), all.end(), inside)) folder.clear();
  std::set<std::string> names;
  for (const std::string& path : all) {
    if (!inside(path)) continue;
    const size_t slash = path.find('/', folder.size());
    names.insert(slash == path.npos ? path.substr(folder.size())
                                    : path.substr(folder.size(), slash + 1 - folder.size()));
  }
  std::vector<std::string> listed(names.begin(), names.end());
  if (listed.size() > kNames) {
    listed.resize(kNames);
    listed.push_back("...");
  }
  return in_list(listed);
}

// `files` match the patterns, among those that `all` gives.
void check_found(const std::string& place, const std::vector<std::string>& patterns,
                 const std::vector<std::string>& files, const std::function<std::vector<std::string>()>& all) {
  const std::vector<std::string> missing = absent(patterns, files);
  check(missing.empty(), place, ": expected ", in_list(missing), ", found none of that name");
  if (files.empty())
    fail(place, ": expected a file that matches ", in_list(patterns), ", found none among ",
         names_beside(patterns.front(), all()));
}

std::vector<std::string> paths_of(const Listing& listing) {
  std::vector<std::string> paths;
  for (const Entry& entry : listing.entries) paths.push_back(entry.path);
  return paths;
}

class Resolver {
 public:
  Resolver(const std::string& name, const std::string& revision, const std::vector<std::string>& patterns,
           RepoType type, const Progress& progress, const Settings& settings)
      : client_(settings),
        repository_(client_, name, type),
        cache_(settings.cache, name, type),
        type_(type),
        revision_(revision),
        patterns_(patterns),
        progress_(progress) {
    check(is_revision(revision), name, ": \"", revision, "\": expected a branch, a tag or a commit");
  }

  Snapshot run() {
    if (client_.settings().offline) return from_cache("HF_HUB_OFFLINE is set");
    if (is_commit(revision_))
      if (const auto known = cache_.listing(revision_); known && lacks(*known).empty()) return finish(*known);
    Listing listing;
    try {
      listing = ask();
    } catch (const NetworkError& error) {
      Snapshot snapshot = from_cache(error.what());
      snapshot.notes.push_back(
          text(place(), ": what the cache holds is used, for the Hub can't be reached: ", error.what()));
      return snapshot;
    }
    return fetch(listing);
  }

 private:
  std::string place() const { return text(repository_.name(), " at ", revision_); }

  Listing ask() {
    const std::string commit = is_commit(revision_) ? revision_ : ask_commit();
    if (auto known = cache_.listing(commit)) return *known;
    Listing listing = repository_.list(commit);
    cache_.write_listing(listing);
    return listing;
  }

  // Once only, where the cache holds all that an earlier answer led to: then no user has to wait for a Hub out of
  // reach.
  std::string ask_commit() {
    Settings settings = client_.settings();
    const auto before = cache_.commit_of(revision_);
    const auto known = before ? cache_.listing(*before) : std::nullopt;
    if (known && lacks(*known).empty()) settings.retries = 0;
    HttpClient client(settings);
    return Repository(client, repository_.name(), type_).commit_of(revision_);
  }

  std::vector<const Entry*> wanted(const Listing& listing) const {
    std::vector<const Entry*> entries;
    for (const Entry& entry : listing.entries)
      if (std::any_of(patterns_.begin(), patterns_.end(), [&](const auto& p) { return matches(p, entry.path); }))
        entries.push_back(&entry);
    return entries;
  }

  std::vector<std::string> lacks(const Listing& listing) const {
    std::vector<std::string> paths;
    for (const Entry* entry : wanted(listing))
      if (!cache_.has_file(listing.commit, *entry)) paths.push_back(entry->path);
    return paths;
  }

  Snapshot finish(const Listing& listing) const {
    Snapshot snapshot{cache_.snapshot(listing.commit), listing.commit, {}, {}};
    for (const Entry* entry : wanted(listing)) snapshot.files.push_back(entry->path);
    check_found(place(), patterns_, snapshot.files, [&] { return paths_of(listing); });
    snapshot.folder = fs::canonical(snapshot.folder).string();
    return snapshot;
  }

  Snapshot fetch(const Listing& listing) {
    std::vector<std::string> files;
    for (const Entry* entry : wanted(listing)) files.push_back(entry->path);
    for (const std::string& name : absent(patterns_, files))
      if (is_file_name(name)) cache_.note_missing(listing.commit, name);
    check_found(place(), patterns_, files, [&] { return paths_of(listing); });
    for (const Entry* entry : wanted(listing)) {
      if (cache_.has_file(listing.commit, *entry)) continue;
      fetch_blob(client_, repository_, listing.commit, *entry, cache_, progress_);
      cache_.link_file(listing.commit, *entry);
    }
    if (!is_commit(revision_)) cache_.write_ref(revision_, listing.commit);  // last: what it names is there
    return finish(listing);
  }

  Snapshot from_cache(const std::string& reason) const {
    const auto commit = cache_.commit_of(revision_);
    check(commit && fs::is_directory(cache_.snapshot(*commit)), place(), ": not in the cache ",
          client_.settings().cache, ", and ", reason);
    if (const auto listing = cache_.listing(*commit)) {
      const std::vector<std::string> missing = lacks(*listing);
      check(missing.empty(), place(), ": the cache ", client_.settings().cache, " lacks ", in_list(missing), ", and ",
            reason);
      return finish(*listing);
    }
    // Fetched by a Python client that keeps no listings: what is there counts.
    const std::string folder = fs::canonical(cache_.snapshot(*commit)).string();
    Snapshot snapshot{folder, *commit, files_below(folder, patterns_), {}};
    check_found(text(place(), " in ", folder), patterns_, snapshot.files, [&] { return files_below(folder, {"**"}); });
    return snapshot;
  }

  HttpClient client_;
  Repository repository_;
  Cache cache_;
  RepoType type_;
  std::string revision_;
  std::vector<std::string> patterns_;
  Progress progress_;
};

}  // namespace

Snapshot resolve_snapshot(const std::string& name, const std::string& revision, const std::vector<std::string>& files,
                          RepoType type, const Progress& progress, const Settings& settings) {
  std::error_code error;
  if (fs::is_directory(name, error)) {
    const std::string folder = fs::canonical(name).string();
    Snapshot snapshot{folder, "", files_below(folder, files), {}};
    check_found(name, files, snapshot.files, [&] { return files_below(folder, {"**"}); });
    return snapshot;
  }
  check(is_repo_name(name), "\"", name,
        "\": expected a local folder, or a name on the Hub such as org/name, found neither");
  return Resolver(name, revision, files, type, progress, settings).run();
}

}  // namespace nanovlm::hub
