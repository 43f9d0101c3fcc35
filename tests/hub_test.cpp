// The parts of hub/ that need no Hub. tests/hub_cli_test.py has the rest, over a socket.

#include <filesystem>
#include <map>

#include <stdlib.h>

#include "engine/error.h"
#include "hub/cache.h"
#include "hub/digest.h"
#include "hub/http.h"
#include "hub/repository.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"

using namespace nanovlm;
using namespace nanovlm::hub;
namespace fs = std::filesystem;

namespace {

// Variables for as long as this lives; all others of the Hub are unset.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& values) {
    for (const char* name : {"HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME",
                             "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE",
                             "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HOME"}) {
      const char* value = getenv(name);
      if (value != nullptr) before_[name] = value;
      unsetenv(name);
      names_.push_back(name);
    }
    for (const auto& [name, value] : values) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const std::string& name : names_)
      before_.contains(name) ? setenv(name.c_str(), before_[name].c_str(), 1) : unsetenv(name.c_str());
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::vector<std::string> names_;
  std::map<std::string, std::string> before_;
};

Settings settings_of(const std::map<std::string, std::string>& values) {
  const Environment environment(values);
  return Settings::from_environment();
}

const std::string kCommit(40, 'a'), kBlob(40, 'b'), kSha(64, 'c');

}  // namespace

TEST_CASE("digests are git's and SHA-256's") {
  Digest sha = Digest::sha256();
  sha.update("abc", 3);
  CHECK(sha.hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Digest git = Digest::git_blob(6);  // printf 'hello\n' | git hash-object --stdin
  git.update("hel", 3);
  git.update("lo\n", 3);
  CHECK(git.hex() == "ce013625030ba8dba906f756967f9e9ca394464a");
  CHECK(Digest::git_blob(0).hex() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

TEST_CASE("the environment is the Python client's") {
  CHECK(settings_of({{"HOME", "/h"}}).cache == "/h/.cache/huggingface/hub");
  CHECK(settings_of({{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}).cache == "/x/huggingface/hub");
  CHECK(settings_of({{"HOME", "/h"}, {"HF_HOME", "~/f"}}).cache == "/h/f/hub");
  CHECK(settings_of({{"HF_HOME", "/f"}, {"HUGGINGFACE_HUB_CACHE", "/g"}}).cache == "/g");
  CHECK(settings_of({{"HF_HUB_CACHE", "/c"}, {"HUGGINGFACE_HUB_CACHE", "/g"}}).cache == "/c");
  CHECK(settings_of({}).endpoint == "https://huggingface.co");
  CHECK(settings_of({{"HF_ENDPOINT", "https://mirror.example/"}}).endpoint == "https://mirror.example");
  CHECK(settings_of({{"HF_HUB_OFFLINE", "true"}}).offline);
  CHECK(!settings_of({{"HF_HUB_OFFLINE", "0"}}).offline);
  CHECK(settings_of({{"HF_HUB_DOWNLOAD_TIMEOUT", "7"}}).stall_seconds == 7);
  for (const char* seconds : {"0", "-1", "x", "1e3", "99999999999999999999"})
    CHECK_THROWS_AS(settings_of({{"HF_HUB_DOWNLOAD_TIMEOUT", seconds}}), Error);
  for (const char* endpoint : {"huggingface.co", "ftp://x", "https://u:p@x", "https://x?y", "file:///etc"})
    CHECK_THROWS_AS(settings_of({{"HF_ENDPOINT", endpoint}}), Error);
}

TEST_CASE("the token comes from a variable or a file, and is one word") {
  const Folder folder;
  folder.write("token", "  hf_file\n");
  const std::string home = folder.path();
  CHECK(settings_of({{"HF_HOME", home}}).token == "hf_file");
  CHECK(settings_of({{"HF_HOME", home}, {"HF_TOKEN", "hf_variable"}}).token == "hf_variable");
  CHECK(settings_of({{"HF_HOME", home}, {"HF_TOKEN_PATH", home + "/none"}}).token.empty());
  CHECK(settings_of({{"HF_HOME", home}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}}).token.empty());
  CHECK_THROWS_AS(settings_of({{"HF_TOKEN", "a\r\nX-Evil: b"}}), Error);
  CHECK_THROWS_AS(settings_of({{"HF_TOKEN_PATH", home}}), Error);
}

TEST_CASE("addresses") {
  CHECK(origin_of("https://Hub.Example/a?b") == "https://hub.example:443");
  CHECK(origin_of("http://127.0.0.1:80/") == origin_of("http://127.0.0.1/x"));
  CHECK(origin_of("https://x") != origin_of("http://x:443"));
  CHECK(origin_of("https://huggingface.co.evil.example/") != origin_of("https://huggingface.co"));
  for (const char* url : {"file:///etc/passwd", "https://huggingface.co@evil.example/", "//x", "", "ftp://x"})
    CHECK_THROWS_AS(origin_of(url), Error);
  CHECK(resolve_url("https://h/a/b?c", "/d") == "https://h/d");
  CHECK(resolve_url("https://h/a/b?c", "d") == "https://h/a/d");
  CHECK(resolve_url("https://h/a", "//evil.example/x") == "https://evil.example/x");
  CHECK(url_quote("a b/c#?%\xc3\xa4", "/") == "a%20b/c%23%3F%25%C3%A4");
  CHECK(url_quote("refs/pr/1") == "refs%2Fpr%2F1");
  CHECK(without_query("https://h/a?signature=x") == "https://h/a");
}

TEST_CASE("an endpoint of https leads to no http") {
  Settings settings;
  settings.endpoint = "https://127.0.0.1:9";
  settings.retries = 0;
  HttpClient client(settings);
  CHECK_THROWS_WITH(client.exchange({.url = "http://127.0.0.1:9/x"}), contains("expected https"));
  CHECK_THROWS_AS(client.exchange({.url = "https://127.0.0.1:9/x"}), NetworkError);
  CHECK_THROWS_WITH(client.exchange({.url = "file:///etc/passwd"}), contains("http or https"));
}

TEST_CASE("names that may become paths") {
  for (const char* good : {"a/b", "HuggingFaceTB/SmolLM2-135M", "a/b.c_d-1"}) CHECK(is_repo_name(good));
  for (const char* bad :
       {"", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/b--c", "a/.b", "a/b-", "a b/c", "a/b\n"})
    CHECK(!is_repo_name(bad));
  CHECK(!is_repo_name("a/" + std::string(100, 'b')));
  for (const char* good : {"a", "a/b.c", "a b", "..a", "a..", "\xc3\xa4"}) CHECK(is_file_name(good));
  for (const char* bad : {"", "/", "/a", "a/", "a//b", ".", "a/./b", "..", "../a", "a/..", "a\\b", "a\nb", "a\x7f"})
    CHECK(!is_file_name(bad));
  CHECK(!is_file_name(std::string("a\0b", 3)));
  CHECK(!is_file_name(std::string(256, 'a')));
  CHECK(is_revision("refs/pr/1"));
  CHECK(!is_revision("main.lock"));
}

TEST_CASE("patterns") {
  CHECK(matches("a.json", "a.json"));
  CHECK(!matches("a.json", "b/a.json"));
  CHECK(matches("*.json", "a.json"));
  CHECK(!matches("*.json", "b/a.json"));
  CHECK(matches("*/a.json", "b/a.json"));
  CHECK(matches("model-0000?-of-00002.safetensors", "model-00001-of-00002.safetensors"));
  CHECK(matches("**", "b/c/a.json"));
  CHECK(!matches("a", "b"));
}

TEST_CASE("a listing comes back from its file as it was") {
  const Folder folder;
  const Listing listing{kCommit, {{"a", 3, kBlob, ""}, {"b/c", int64_t{5} << 32, kBlob, kSha}}};
  const Listing read = read_listing(folder.write("tree.json", to_json_text(listing)), kCommit);
  REQUIRE(read.entries.size() == 2);
  CHECK(read.entries[1].path == "b/c");
  CHECK(read.entries[1].size == int64_t{5} << 32);
  CHECK(read.entries[1].etag() == kSha);
  CHECK(read.entries[0].etag() == kBlob);
  const std::string entry = R"({"size": 1, "blob_id": ")" + kBlob + "\"}";
  for (const char* name : {"../a", "/a", ""})
    CHECK_THROWS_AS(
        read_listing(folder.write("x.json", text(R"({"format_version": 1, "files": {")", name, "\": ", entry, "}}")),
                     kCommit),
        Error);
  for (const char* document :
       {"", "[]", "{}", R"({"format_version": 2, "files": {}})", R"({"format_version": 1, "files": []})"})
    CHECK_THROWS_AS(read_listing(folder.write("x.json", document), kCommit), Error);
}

TEST_CASE("the cache is the Python client's layout") {
  const Folder folder;
  const Cache cache(folder.path(), "org/name", RepoType::model);
  const Entry small{"a.txt", 3, kBlob, ""}, large{"x/y/b.bin", 2, kBlob, kSha};
  CHECK(cache.blob(large) == folder.file("models--org--name/blobs/" + kSha));
  CHECK(Cache(folder.path(), "org/name", RepoType::dataset).blob(small) ==
        folder.file("datasets--org--name/blobs/" + kBlob));
  CHECK(!cache.has_file(kCommit, small));
  CHECK(fs::is_empty(folder.path()));  // asking creates nothing

  folder.write("models--org--name/blobs/" + kBlob, "abc");
  folder.write("models--org--name/blobs/" + kSha, "de");
  for (const Entry& entry : {small, large}) {
    cache.link_file(kCommit, entry);
    cache.link_file(kCommit, entry);  // there already
    CHECK(cache.has_file(kCommit, entry));
  }
  CHECK(fs::read_symlink(cache.snapshot(kCommit) + "/x/y/b.bin") == "../../../../blobs/" + kSha);
  folder.write("models--org--name/blobs/" + kSha, "d");
  CHECK(!cache.has_file(kCommit, large));
  const Entry moved{"a.txt", 1, kBlob, kSha};
  cache.link_file(kCommit, moved);  // in the place of a link to another blob
  CHECK(cache.has_file(kCommit, moved));

  cache.write_ref("main", kCommit);
  cache.write_ref("refs/pr/1", kCommit);
  CHECK(bytes_of(folder.file("models--org--name/refs/main")) == kCommit);
  CHECK(cache.commit_of("refs/pr/1") == kCommit);
  CHECK(!cache.commit_of("other"));
  folder.write("models--org--name/refs/main", "../../..");
  CHECK_THROWS_AS(cache.commit_of("main"), Error);
}

TEST_CASE("what a local folder has is found without a Hub") {
  const Folder folder;
  folder.write("config.json", "{}");
  folder.write("sub/a.json", "{}");
  const Snapshot all = resolve_snapshot(folder.path(), "main", {"**"});
  CHECK(all.files == std::vector<std::string>{"config.json", "sub/a.json"});
  CHECK(all.commit.empty());
  CHECK(bytes_of(all.path("config.json")) == "{}");
  CHECK(resolve_snapshot(folder.path(), "main", {"*.json"}).files == std::vector<std::string>{"config.json"});
  CHECK_THROWS_WITH(resolve_snapshot(folder.path(), "main", {"*.json", "model.safetensors"}),
                    contains("expected model.safetensors, found none"));
  CHECK_THROWS_WITH(resolve_snapshot(folder.path(), "main", {"*.bin"}), contains("matches *.bin"));
  CHECK_THROWS_WITH(resolve_snapshot(folder.path() + "/none", "main", {"**"}), contains("found neither"));
}
