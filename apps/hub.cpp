// hub: files from the Hugging Face Hub and to it.
//
//   hub download ORG/NAME [--revision REV] [--file PATTERN ...]    into the cache; prints the folder
//   hub upload FOLDER ORG/NAME [--private]                         as one commit; prints the repository's address
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/cli.h"
#include "apps/common/output.h"
#include "apps/common/pretrained.h"
#include "hub/upload.h"

using namespace nanovlm;

namespace {

struct Download {
  std::string name, revision = "main", type = "model";
  std::vector<std::string> files = {"**"};
  int64_t retries = hub::Settings().retries;
  bool json = false;
};

hub::RepoType type_of(const std::string& name) {
  return name == "dataset" ? hub::RepoType::dataset : hub::RepoType::model;
}

void check_name(const std::string& name) {
  if (!hub::is_repo_name(name)) throw UsageError(text("expected ORG/NAME, found ", name));
}

void download(const Download& s) {
  check_name(s.name);
  hub::Settings settings = hub::Settings::from_environment();
  settings.retries = static_cast<int>(s.retries);
  const hub::Snapshot snapshot =
      hub::resolve_snapshot(s.name, s.revision, s.files, type_of(s.type), progress_line(), settings);
  note("hub", snapshot.notes);
  if (s.json)
    print_json({{"folder", snapshot.folder}, {"commit", snapshot.commit}, {"files", snapshot.files}});
  else
    std::cout << snapshot.folder << "\n";
}

void add_download(CommandLine& line) {
  const auto s = std::make_shared<Download>();
  CommandLine section = line.section(
      "download", "fetches a repository's files into the cache, and prints where they are", [s] { download(*s); });
  section.option("NAME", s->name, "ORG/NAME").required();
  section.option("--revision", s->revision, "a branch, a tag or a commit");
  section.option("--file", s->files, "names, or patterns with * and ? (which stand for no slash); **: all");
  section.option("--type", s->type, "of the repository").one_of({"model", "dataset"});
  section.option("--retries", s->retries, "of a request that fails in a way that may pass").in(0, 1000);
  section.flag("--json", s->json, "one JSON object on standard output");
}

struct Upload {
  std::string folder, name, type = "model";
  hub::UploadOptions options;
  bool json = false;
};

void upload(Upload s) {
  check_name(s.name);
  s.options.type = type_of(s.type);
  const hub::Commit commit = hub::upload_folder(s.folder, s.name, s.options, progress_line());
  if (s.json)
    print_json({{"url", commit.repository_url},
                {"commit", commit.id},
                {"files", commit.files},
                {"files_as_were", commit.files_as_were}});
  else
    std::cout << commit.repository_url << ": " << commit.files << " files uploaded, " << commit.files_as_were
              << " were there already\n";
}

void add_upload(CommandLine& line) {
  const auto s = std::make_shared<Upload>();
  CommandLine section = line.section(
      "upload", "uploads a folder's files as one commit, and creates the repository if needed", [s] { upload(*s); });
  section.option("FOLDER", s->folder, "what to upload").required();
  section.option("NAME", s->name, "ORG/NAME").required();
  section.option("--type", s->type, "of the repository").one_of({"model", "dataset"});
  section.option("--revision", s->options.revision, "the branch");
  section.option("--message", s->options.message, "of the commit");
  section.flag("--private", s->options.is_private, "nobody else may see it, if it is created");
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine line("hub",
                   "Files from the Hugging Face Hub. HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN and "
                   "HF_HUB_OFFLINE are those of its Python client.");
  add_download(line);
  add_upload(line);
  return line.run(argc, argv);
}
