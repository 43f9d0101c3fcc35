#include "hub/repository.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include <fnmatch.h>

#include "engine/json.h"

namespace nanovlm::hub {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 50;
constexpr size_t kMaxNameBytes = 255;  // of one part of a path: what file systems take
constexpr int kMaxPages = 1000;        // of a listing

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string digest(const JsonValue& value, size_t digits) {
  if (!is_hex(value.string(), digits)) value.refuse(text(digits, " hexadecimal digits"));
  return value.string();
}

std::string file_name(const JsonValue& value) {
  if (!is_file_name(value.string())) value.refuse("a relative path without \"..\" in it");
  return value.string();
}

void sort_entries(Listing& listing, const std::string& where) {
  auto& entries = listing.entries;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.path < b.path; });
  for (size_t i = 1; i < entries.size(); ++i)
    check(entries[i - 1].path != entries[i].path, where, ": expected each file once, found \"", entries[i].path,
          "\" twice");
}

// The address in a header such as: <https://...>; rel="next"
std::string next_page(const Response& response) {
  const auto link = response.headers.find("link");
  if (link == response.headers.end() || link->second.find("rel=\"next\"") == std::string::npos) return "";
  const size_t begin = link->second.find('<'), end = link->second.find('>');
  return begin == std::string::npos || end == std::string::npos || end < begin
             ? ""
             : link->second.substr(begin + 1, end - begin - 1);
}

}  // namespace

bool is_repo_name(const std::string& name) {
  constexpr size_t kLongest = 96;
  const auto is_part = [](std::string_view part) {
    const auto is_edge = [](char c) { return c == '-' || c == '.'; };
    return !part.empty() && !is_edge(part.front()) && !is_edge(part.back()) && part.find("--") == part.npos &&
           part.find("..") == part.npos && std::all_of(part.begin(), part.end(), [](char c) {
             return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
                    c == '_' || c == '.';
           });
  };
  const size_t slash = name.find('/');
  return slash != name.npos && name.size() <= kLongest && is_part(name.substr(0, slash)) &&
         is_part(name.substr(slash + 1));
}

bool is_commit(std::string_view text) { return is_hex(text, 40); }

bool is_file_name(std::string_view text) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('/', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    if (part.empty() || part == "." || part == ".." || part.size() > kMaxNameBytes) return false;
    begin = end + 1;
  }
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127 || c == '\\'; });
}

bool is_revision(std::string_view text) { return is_file_name(text) && !text.ends_with(".lock"); }

bool has_wildcards(const std::string& pattern) { return pattern.find_first_of("*?[") != pattern.npos; }

bool matches(const std::string& pattern, const std::string& path) {
  return pattern == "**" || pattern == path ||
         (has_wildcards(pattern) && fnmatch(pattern.c_str(), path.c_str(), FNM_PATHNAME) == 0);
}

Repository::Repository(HttpClient& client, const std::string& name, RepoType type)
    : client_(client), name_(name), type_(type) {
  check(is_repo_name(name), "\"", name, "\": expected a repository's name such as org/name");
}

std::string Repository::api_url() const {
  return text(client_.settings().endpoint, "/api/", type_ == RepoType::model ? "models/" : "datasets/", name_);
}

std::string Repository::git_url() const {
  return text(client_.settings().endpoint, type_ == RepoType::model ? "/" : "/datasets/", name_);
}

std::string Repository::file_url(const std::string& commit, const std::string& path) const {
  return text(git_url(), "/resolve/", commit, "/", url_quote(path, "/"));
}

std::string Repository::commit_of(const std::string& revision) {
  const std::string url = api_url() + "/revision/" + url_quote(revision);
  const nlohmann::json document = parse_json(client_.request({.url = url}).body, url);
  const JsonValue sha = JsonValue(document, url)["sha"];
  return digest(sha, 40);
}

Listing Repository::list(const std::string& commit) {
  Listing listing{commit, {}};
  const std::string first = api_url() + "/tree/" + commit + "?recursive=true";
  std::string url = first;
  for (int page = 0; !url.empty(); ++page) {
    check(page < kMaxPages, first, ": expected at most ", kMaxPages, " pages, found more");
    check(origin_of(url) == origin_of(first), first, ": expected all pages there, found one at ", without_query(url));
    const Response response = client_.request({.url = url});
    const nlohmann::json document = parse_json(response.body, without_query(url));
    const JsonValue files(document, without_query(url));
    for (int64_t i = 0; i < files.array_size(); ++i) {
      const JsonValue file = files.at(i);
      if (file["type"].string() != "file") continue;
      Entry entry{file_name(file["path"]), file["size"].integer(0, kMaxFileBytes), digest(file["oid"], 40), ""};
      if (const auto lfs = file.find("lfs")) {
        entry.sha256 = digest((*lfs)["oid"], 64);
        entry.size = (*lfs)["size"].integer(0, kMaxFileBytes);
      }
      listing.entries.push_back(std::move(entry));
    }
    const std::string next = next_page(response);
    url = next.empty() ? "" : resolve_url(url, next);
  }
  sort_entries(listing, without_query(first));
  return listing;
}

std::string to_json_text(const Listing& listing) {
  nlohmann::json files = nlohmann::json::object();
  for (const Entry& entry : listing.entries) {
    nlohmann::json& file = files[entry.path];
    file = {{"size", entry.size}, {"blob_id", entry.blob_id}};
    if (!entry.sha256.empty()) file.update({{"lfs_sha256", entry.sha256}, {"lfs_size", entry.size}});
  }
  const nlohmann::json document = {{"format_version", 1}, {"files", std::move(files)}};
  return document.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Listing read_listing(const std::string& path, const std::string& commit) {
  const nlohmann::json document = read_json_file(path);
  const JsonValue root(document, path);
  root["format_version"].integer(1, 1);
  Listing listing{commit, {}};
  const JsonValue files = root["files"];
  files.expect_object();
  for (const auto& [name, value] : files.json().items()) {
    const JsonValue file = files[name];
    check(is_file_name(name), path, ": expected relative paths without \"..\" in them, found \"", name, "\"");
    Entry entry{name, file["size"].integer(0, kMaxFileBytes), digest(file["blob_id"], 40), ""};
    if (const auto sha256 = file.find("lfs_sha256")) {
      entry.sha256 = digest(*sha256, 64);
      entry.size = file["lfs_size"].integer(0, kMaxFileBytes);
    }
    listing.entries.push_back(std::move(entry));
  }
  sort_entries(listing, path);
  return listing;
}

}  // namespace nanovlm::hub
