#include "hub/upload.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include <openssl/evp.h>

#include "engine/json.h"
#include "hub/cache.h"
#include "hub/digest.h"
#include "hub/repository.h"

namespace nanovlm::hub {
namespace fs = std::filesystem;
namespace {

constexpr size_t kFilesAtOnce = 256;                     // in a request that asks about files
constexpr int64_t kSampleBytes = 512;                    // of a file, by which the Hub tells text from binary
constexpr int64_t kMaxRegularBytes = int64_t{64} << 20;  // of a file that goes into the commit itself
constexpr int64_t kPatience = 120;                       // seconds that the Hub may think about what it was sent
constexpr int64_t kMaxPartBytes = int64_t{1} << 40;

std::string base64(const std::vector<uint8_t>& bytes) {
  std::string result((bytes.size() + 2) / 3 * 4 + 1, '\0');  // and the byte 0 that the encoder writes after it
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(result.data()), bytes.data(), static_cast<int>(bytes.size()));
  result.pop_back();
  return result;
}

// Open only while it is read: a folder may hold more files than a process may have open.
struct LocalFile {
  std::string path;    // in the repository
  std::string source;  // on this machine
  int64_t size = 0;    // when the upload began
  bool large = false, unchanged = false;
  std::string sha256 = {};  // of large files

  std::shared_ptr<const File> open() const {
    auto file = std::make_shared<const File>(File::open(source));
    check(file->size() == size, source, ": expected the ", size, " bytes that it had when the upload began, found ",
          file->size());
    return file;
  }

  std::string hex(Digest digest) const {
    digest.update(*open(), size);
    return digest.hex();
  }
};

// Whether a part of the path is .git or .cache, at any depth: a clone's .git/config may hold its password.
bool is_private(const fs::path& path) {
  return std::any_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".git" || part == ".cache"; });
}

std::vector<LocalFile> files_of(const std::string& folder) {
  check(fs::is_directory(folder), folder, ": expected a folder, found none");
  std::vector<LocalFile> files;
  for (const std::string& path : files_below(folder, {"**"})) {
    if (is_private(path)) continue;
    check(is_file_name(path), folder, ": \"", path, "\": expected a name that the Hub takes");
    const std::string source = folder + "/" + path;
    files.push_back({.path = path, .source = source, .size = File::open(source).size()});
  }
  check(!files.empty(), folder, ": expected files to upload, found none");
  return files;
}

class Uploader {
 public:
  Uploader(const std::string& folder, const std::string& name, const UploadOptions& options, const Progress& progress,
           const Settings& settings)
      : client_(settings),
        repository_(client_, name, options.type),
        options_(options),
        progress_(progress),
        files_(files_of(folder)) {
    check(is_revision(options.revision), name, ": \"", options.revision, "\": expected a branch");
    check(!settings.offline, name, ": can't be uploaded to, for HF_HUB_OFFLINE is set");
    check(!settings.token.empty(), name,
          ": expected a token in HF_TOKEN, or in the file that HF_TOKEN_PATH names, found none");
  }

  Commit run() {
    create();
    for_each_chunk(files_, [&](auto begin, auto end) { ask_how(begin, end); });
    std::vector<LocalFile*> large;
    for (LocalFile& file : files_)
      if (file.large && !file.unchanged) large.push_back(&file);
    for_each_chunk(large, [&](auto begin, auto end) { send_large(begin, end); });

    Commit commit{repository_.git_url(), "", 0, 0};
    for (const LocalFile& file : files_) ++(file.unchanged ? commit.files_as_were : commit.files);
    if (commit.files > 0) commit.id = send_commit();
    return commit;
  }

 private:
  template <class T, class F>
  static void for_each_chunk(std::vector<T>& all, F&& body) {
    for (size_t at = 0; at < all.size(); at += kFilesAtOnce)
      body(all.begin() + static_cast<std::ptrdiff_t>(at),
           all.begin() + static_cast<std::ptrdiff_t>(std::min(at + kFilesAtOnce, all.size())));
  }

  Request post(const std::string& url, const nlohmann::json& body, const std::string& type = "application/json") const {
    Request request{.method = "POST", .url = url, .headers = {"Content-Type: " + type}};
    request.body = RequestBody::of(body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    request.stall_seconds = kPatience;
    return request;
  }

  void create() {
    const std::string& name = repository_.name();
    const size_t slash = name.find('/');
    const Request request = post(client_.settings().endpoint + "/api/repos/create",
                                 {{"organization", name.substr(0, slash)},
                                  {"name", name.substr(slash + 1)},
                                  {"type", options_.type == RepoType::model ? "model" : "dataset"},
                                  {"private", options_.is_private}});
    const Response created = client_.answer(request);
    // A repository that exists answers 409; one of an organization whose members may write but not create, 403.
    if (!created.ok() && created.status != 409 && created.status != 403) fail_status(request, created);
    const Request question{.url = repository_.api_url()};
    const Response about = client_.answer(question);
    if (!about.ok() && !created.ok()) fail_status(request, created);
    if (!about.ok()) fail_status(question, about);
    const nlohmann::json document = parse_json(about.body, repository_.api_url());
    check(!options_.is_private || JsonValue(document, repository_.api_url())["private"].boolean(), name,
          ": expected a private repository, found a public one; nothing was uploaded");
  }

  // Which files are large, and which the repository has already as they are.
  template <class It>
  void ask_how(It begin, It end) {
    nlohmann::json asked = nlohmann::json::array();
    for (It file = begin; file != end; ++file) {
      std::vector<uint8_t> sample(static_cast<size_t>(std::min(file->size, kSampleBytes)));
      file->open()->read(sample.data(), static_cast<int64_t>(sample.size()), 0);
      asked.push_back({{"path", file->path}, {"size", file->size}, {"sample", base64(sample)}});
    }
    const std::string url = repository_.api_url() + "/preupload/" + url_quote(options_.revision);
    const nlohmann::json document = parse_json(client_.request(post(url, {{"files", asked}})).body, url);
    const JsonValue answers = JsonValue(document, url)["files"];
    check(answers.array_size() == end - begin, url, ": expected ", end - begin, " files, found ", answers.array_size());
    for (int64_t i = 0; i < answers.array_size(); ++i) {
      const JsonValue answer = answers.at(i);
      const auto file = std::find_if(begin, end, [&](const LocalFile& f) { return f.path == answer["path"].string(); });
      if (file == end) answer.refuse("a file that was asked about");
      take_mode(*file, answer);
    }
  }

  void take_mode(LocalFile& file, const JsonValue& answer) {
    const std::string& mode = answer["uploadMode"].string();
    if (mode != "lfs" && mode != "regular") answer["uploadMode"].refuse("lfs or regular");
    file.large = mode == "lfs" && file.size > 0;
    if (file.large) file.sha256 = file.hex(Digest::sha256());
    const auto there = answer.find("oid");
    file.unchanged = there && there->is_string() &&
                     there->string() == (file.large ? file.sha256 : file.hex(Digest::git_blob(file.size)));
  }

  template <class It>
  void send_large(It begin, It end) {
    nlohmann::json objects = nlohmann::json::array();
    for (It file = begin; file != end; ++file) objects.push_back({{"oid", (*file)->sha256}, {"size", (*file)->size}});
    const std::string url = repository_.git_url() + ".git/info/lfs/objects/batch";
    Request request = post(url,
                           {{"operation", "upload"},
                            {"transfers", {"basic", "multipart"}},
                            {"objects", objects},
                            {"hash_algo", "sha256"},
                            {"ref", {{"name", options_.revision}}}},
                           "application/vnd.git-lfs+json");
    request.headers.push_back("Accept: application/vnd.git-lfs+json");
    const nlohmann::json document = parse_json(client_.request(request).body, url);
    const JsonValue answers = JsonValue(document, url)["objects"];
    for (int64_t i = 0; i < answers.array_size(); ++i) {
      const JsonValue answer = answers.at(i);
      if (const auto error = answer.find("error"))
        fail(url, ": ", answer["oid"].string(), ": ",
             error->find("message") ? (*error)["message"].string() : "refused");
      const auto file =
          std::find_if(begin, end, [&](const LocalFile* f) { return f->sha256 == answer["oid"].string(); });
      if (file == end) answer["oid"].refuse("a file that was asked about");
      if (const auto actions = answer.find("actions")) send_object(**file, *actions);
    }
  }

  void send_object(const LocalFile& file, const JsonValue& actions) {
    const JsonValue upload = actions["upload"];
    const auto header = upload.find("header");
    if (header && header->find("chunk_size"))
      send_parts(file, upload["href"].string(), *header);
    else
      put(file, upload["href"].string(), 0, file.size);
    if (const auto verify = actions.find("verify"))
      client_.request(post((*verify)["href"].string(), {{"oid", file.sha256}, {"size", file.size}}));
  }

  Response put(const LocalFile& file, const std::string& url, int64_t offset, int64_t size) {
    Request request{.method = "PUT", .url = url};
    request.body = RequestBody::of(file.open(), offset, size);
    request.stall_seconds = kPatience;
    request.with_token = false;  // the address itself is the permission
    if (progress_)
      request.body.read = [&, read = request.body.read](char* destination, int64_t count, int64_t at) {
        read(destination, count, at);
        progress_(file.path, offset + at + count, file.size);
      };
    return client_.request(request);
  }

  static int64_t chunk_size(const JsonValue& value) {
    if (!value.is_string()) return value.integer(1, kMaxPartBytes);
    const std::string& digits = value.string();
    if (digits.empty() || digits.size() > 13 || digits.find_first_not_of("0123456789") != digits.npos || digits == "0")
      value.refuse("a number of bytes");
    return std::min<int64_t>(std::stoll(digits), kMaxPartBytes);
  }

  // The header names an address for each part by its number, from 1 on.
  void send_parts(const LocalFile& file, const std::string& completion, const JsonValue& header) {
    const int64_t bytes = chunk_size(header["chunk_size"]), size = file.size;
    nlohmann::json parts = nlohmann::json::array();
    for (int64_t offset = 0; offset < size; offset += bytes) {
      const int64_t number = offset / bytes + 1;
      const std::string& url = header[std::to_string(number)].string();
      const Response sent = put(file, url, offset, std::min(bytes, size - offset));
      const auto tag = sent.headers.find("etag");
      check(tag != sent.headers.end() && !tag->second.empty(), without_query(url), ": expected an ETag, found none");
      parts.push_back({{"partNumber", number}, {"etag", tag->second}});
    }
    Request request = post(completion, {{"oid", file.sha256}, {"parts", parts}}, "application/vnd.git-lfs+json");
    request.headers.push_back("Accept: application/vnd.git-lfs+json");
    client_.request(request);
  }

  std::string send_commit() {
    std::string lines = line("header", {{"summary", options_.message}, {"description", ""}});
    for (const LocalFile& file : files_) {
      if (file.unchanged) continue;
      if (file.large)
        lines += line("lfsFile", {{"path", file.path}, {"algo", "sha256"}, {"oid", file.sha256}, {"size", file.size}});
      else
        lines += line("file", {{"path", file.path},
                               {"encoding", "base64"},
                               {"content", base64(file.open()->read_all(kMaxRegularBytes))}});
    }
    Request request{.method = "POST", .url = repository_.api_url() + "/commit/" + url_quote(options_.revision)};
    request.headers = {"Content-Type: application/x-ndjson"};
    request.body = RequestBody::of(std::move(lines));
    request.stall_seconds = kPatience;
    // Once: where only the answer was lost, another try would commit again.
    const Response response = client_.exchange(request);
    if (!response.ok()) fail_status(request, response);
    const nlohmann::json document = parse_json(response.body, request.url);
    return JsonValue(document, request.url)["commitOid"].string();
  }

  static std::string line(const char* key, const nlohmann::json& value) {
    return nlohmann::json{{"key", key}, {"value", value}}.dump(-1, ' ', false,
                                                               nlohmann::json::error_handler_t::replace) +
           "\n";
  }

  HttpClient client_;
  Repository repository_;
  UploadOptions options_;
  Progress progress_;
  std::vector<LocalFile> files_;
};

}  // namespace

Commit upload_folder(const std::string& folder, const std::string& name, const UploadOptions& options,
                     const Progress& progress, const Settings& settings) {
  return Uploader(folder, name, options, progress, settings).run();
}

}  // namespace nanovlm::hub
