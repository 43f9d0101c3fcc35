#include "hub/cache.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nanovlm::hub {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kMaxRefBytes = 4096;

bool is_file_of(const std::string& path, int64_t size) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_size == size;
}

bool same_file(int fd, const std::string& path) {
  struct stat opened {
  }, named{};
  return fstat(fd, &opened) == 0 && stat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

}  // namespace

void create_folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error, folder.string(), ": can't be created: ", error.message());
}

FileLock::FileLock(const std::string& path) {
  create_folder_of(path);
  while (true) {
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    check(fd_ >= 0, path, ": can't be opened: ", std::strerror(errno));
    int locked = -1;
    do locked = flock(fd_, LOCK_EX);
    while (locked != 0 && errno == EINTR);
    const int error = errno;
    if (locked == 0 && same_file(fd_, path)) return;
    close(fd_);
    check(locked == 0, path, ": can't be locked: ", std::strerror(error));
    // The Python client removes the file when it lets go of it: this lock was on a name that is gone.
  }
}

FileLock::~FileLock() { close(fd_); }

Cache::Cache(const std::string& root, const std::string& repository, RepoType type) {
  const fs::path absolute = fs::absolute(root).lexically_normal();
  std::string name = type == RepoType::model ? "models--" : "datasets--";
  for (const char c : repository) name += c == '/' ? std::string("--") : std::string(1, c);
  folder_ = (absolute / name).string();
  locks_ = (absolute / ".locks" / name).string();
}

bool Cache::has_blob(const Entry& entry) const { return is_file_of(blob(entry), entry.size); }

bool Cache::has_file(const std::string& commit, const Entry& entry) const {
  return is_file_of(snapshot(commit) + "/" + entry.path, entry.size);
}

void Cache::link_file(const std::string& commit, const Entry& entry) const {
  const std::string path = snapshot(commit) + "/" + entry.path;
  create_folder_of(path);
  std::string target = "../../";
  for (const char c : entry.path)
    if (c == '/') target += "../";
  target += "blobs/" + entry.etag();

  if (symlink(target.c_str(), path.c_str()) == 0) return;
  check(errno == EEXIST, path, ": can't be created: ", std::strerror(errno));
  std::error_code error;
  if (fs::read_symlink(path, error) == target) return;
  const std::string temporary = text(path, ".tmp-", getpid());
  unlink(temporary.c_str());
  check(symlink(target.c_str(), temporary.c_str()) == 0 && rename(temporary.c_str(), path.c_str()) == 0, path,
        ": can't be replaced: ", std::strerror(errno));
}

std::optional<std::string> Cache::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  const std::string path = folder_ + "/refs/" + revision;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return {};
  const std::vector<uint8_t> bytes = File::open(path).read_all(kMaxRefBytes);
  std::string commit(bytes.begin(), bytes.end());
  while (commit.ends_with('\n')) commit.pop_back();
  check(is_commit(commit), path, ": expected a commit of 40 hexadecimal digits, found ", commit.size(), " characters");
  return commit;
}

void Cache::write_ref(const std::string& revision, const std::string& commit) const {
  if (commit_of(revision) == commit) return;
  const std::string path = folder_ + "/refs/" + revision;
  create_folder_of(path);
  // Whatever is in refs/ counts as a branch: a temporary file that a killed process leaves must not be there.
  const std::string written = text(folder_, "/.ref-", getpid());
  NewFile file(written);
  file.write(commit);
  file.commit();
  check(rename(written.c_str(), path.c_str()) == 0, path, ": can't be written: ", std::strerror(errno));
}

std::optional<Listing> Cache::listing(const std::string& commit) const {
  const std::string path = folder_ + "/trees/" + commit + ".json";
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return {};
  try {
    return read_listing(path, commit);
  } catch (const Error&) {
    return {};  // another version of the Python client may write it otherwise; the Hub can be asked again
  }
}

void Cache::write_listing(const Listing& listing) const {
  const std::string path = folder_ + "/trees/" + listing.commit + ".json";
  create_folder_of(path);
  NewFile file(path);
  file.write(to_json_text(listing));
  file.commit();
}

void Cache::note_missing(const std::string& commit, const std::string& path) const {
  const std::string name = folder_ + "/.no_exist/" + commit + "/" + path;
  if (fs::exists(name)) return;
  create_folder_of(name);
  NewFile(name).commit();
}

std::vector<std::string> files_below(const std::string& folder, const std::vector<std::string>& patterns) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error), end;
  while (!error && entry != end) {
    const std::string path = entry->path().lexically_relative(folder).string();
    const bool wanted = std::any_of(patterns.begin(), patterns.end(),
                                    [&](const std::string& pattern) { return matches(pattern, path); });
    std::error_code unreadable;
    if (wanted && entry->is_regular_file(unreadable)) files.push_back(path);
    entry.increment(error);
  }
  check(!error, folder, ": can't be read: ", error.message());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace nanovlm::hub
