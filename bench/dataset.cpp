// bench/dataset --dataset PATH... [--rows 200] [--seed 0] [--cold]
//
// How long a data set takes to open, and any row of it to be reached: rows in random order, then the same number one
// after the other. Bytes of pictures are read, not decoded. What bounds a random row is the page that holds it: a page
// is decompressed as a whole, and with it a dictionary where the page refers to one (tools/make_parquet.py writes what
// to try). Memory is the process's peak. With --cold the files are not in the system's cache when an order begins: then
// what bounds a row is the disk.
#include "data/dataset.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <numeric>

#include "bench/common/harness.h"
#include "data/dataset_files.h"
#include "engine/random.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

rusage usage_now() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}

// Of the processor, the kernel's share included: on a machine with other work, what the clock says is not the reader's.
double processor_seconds() {
  const rusage usage = usage_now();
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void add(Report& report, const std::string& work, std::vector<double> seconds, double processor, int64_t bytes) {
  const double all = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double q) { return seconds[static_cast<size_t>(q * static_cast<double>(seconds.size() - 1))]; };
  report.add({{"work", value(work)},
              {"rows", value(static_cast<int64_t>(seconds.size()))},
              {"median ms", milliseconds(at(0.5))},
              {"p99 ms", milliseconds(at(0.99))},
              {"worst ms", milliseconds(seconds.back())},
              {"processor ms/row", milliseconds(processor / static_cast<double>(seconds.size()))},
              {"rows/s", value(static_cast<double>(seconds.size()) / all, 0)},
              {"MB/s", value(static_cast<double>(bytes) / all * 1e-6, 0)},
              {"peak MiB", value(int64_t{usage_now().ru_maxrss / 1024})}});
}

// Takes the files' bytes out of the system's cache; those not yet on the disk stay.
void forget(const std::vector<std::string>& names) {
  for (const std::string& name : names)
    for (const DatasetFiles& subset : find_dataset(name, "train", {}))
      for (const std::string& path : subset.files) {
        const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        const bool forgotten = file >= 0 && posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0;
        if (file >= 0) close(file);
        require(forgotten, path + " can be taken out of the cache");
      }
}

void read_rows(Report& report, const std::string& work, const Dataset& data, const std::vector<int64_t>& rows) {
  std::vector<double> seconds;
  int64_t bytes = 0;
  const double before = processor_seconds();
  for (const int64_t row : rows) {
    const auto start = std::chrono::steady_clock::now();
    const Record record = data.read(row);
    seconds.push_back(seconds_since(start));
    require(!record.texts.empty(), text("row ", row, " has a turn"));
    for (const Picture& picture : record.images) bytes += static_cast<int64_t>(picture.bytes.size());
  }
  add(report, work, std::move(seconds), processor_seconds() - before, bytes);
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<std::string> names;
  int64_t n = 200;
  uint64_t seed = 0;
  bool cold = false;
  Report report("dataset");
  report.app().add_option("--dataset", names, "files, folders, patterns")->required();
  report.app()
      .add_option("--rows", n, "that are read in each order")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  report.app().add_option("--seed", seed, "of the random order")->capture_default_str();
  report.app().add_flag("--cold", cold, "take the files out of the system's cache before each order");
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;

  if (cold) forget(names);
  const auto start = std::chrono::steady_clock::now();
  const double before = processor_seconds();
  const auto data = open_dataset(names);
  add(report, "open", {seconds_since(start)}, processor_seconds() - before, 0);
  report.note(text(data->size(), " rows"));
  std::vector<int64_t> rows = permutation(data->size(), seed);
  rows.resize(static_cast<size_t>(std::min(n, data->size())));
  if (cold) forget(names);
  read_rows(report, "random rows", *data, rows);
  const int64_t first = (data->size() - static_cast<int64_t>(rows.size())) / 2;
  std::iota(rows.begin(), rows.end(), first);
  if (cold) forget(names);
  read_rows(report, "rows in order", *data, rows);
  return report.finish();
} catch (const std::exception&) {
  return failed("dataset", argc, argv);
}
