// bench/loader [--dataset PATH] [--tokenizer FOLDER] [--image_size 224] [--batch 64] [--workers 0,1,2]
//              [--peer "python3 bench/peers/loader.py"]
//
// From records on disk to batches: each stage alone on one thread, then the whole loader. The pictures, without a
// data set of one's own, are copies of one 640 x 480 JPEG. What bounds it is the decoder, then the resize; where the
// pictures fit the cache, the tokenizer and the conversion to floats are left. A training step needs no more than batch
// / step time. With --peer, PyTorch's DataLoader on the same files with as many worker processes beside it. Both are
// timed by the epoch, with workers that run already.
#include "data/loader.h"

#include <CLI/CLI.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/common/harness.h"
#include "bench/common/peer.h"
#include "data/dataset.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace fs = std::filesystem;

namespace {

struct Settings {
  std::string dataset, tokenizer = NANOVLM_ASSETS "/tokenizer", peer;
  int64_t image_size = 224, batch = 64, records = 2048, rows_mixed = 0;
  std::vector<int> workers{0, 1, 2};
};

// A data set that goes with this: 512 questions about 128 pictures.
class MadeUp {
 public:
  MadeUp() : folder_(fs::temp_directory_path() / ("bench-loader-" + std::to_string(getpid()))) {
    constexpr int kPictures = 128, kRecords = 512;
    fs::create_directories(folder_);
    for (int i = 0; i < kPictures; ++i)
      fs::copy_file(NANOVLM_ASSETS "/../tests/fixtures/images/files/jpeg-640x480.jpg", folder_ / text(i, ".jpg"));
    std::ofstream out(folder_ / "train.jsonl");
    for (int i = 0; i < kRecords; ++i)
      out << R"({"images":[")" << i % kPictures << R"(.jpg"],"texts":[{"user":"What can be seen in picture number )"
          << i << R"(, and where is it?","assistant":"A cat on the left.","source":"bench"}]})"
          << "\n";
  }
  ~MadeUp() { fs::remove_all(folder_); }
  std::string path() const { return folder_.string(); }

 private:
  fs::path folder_;
};

class Bench {
 public:
  Bench(const Settings& settings, Report& report)
      : settings_(settings),
        report_(report),
        source_(open_dataset({settings.dataset})),
        text_(PromptTokenizer::load(settings.tokenizer)),
        n_(std::min(source_->size(), settings.records)) {
    require(n_ >= settings.batch, "a batch: the data set is too small");
  }

  void stages() {
    const VqaCollator plain(text_, options()), cached(text_, options(), cache_);
    std::vector<Record> records;
    std::vector<Sample> samples;
    const int64_t B = settings_.batch;
    for (int64_t i = 0; i < B; ++i) {
      records.push_back(source_->read(i));
      samples.push_back(cached.prepare(records.back(), source_->place(i)));
    }
    const auto each = [&](const Collator& collator) {
      for (const Record& record : records) samples[0] = collator.prepare(record, "");
    };
    add("read the records", B, time([&] {
          for (int64_t i = 0; i < B; ++i) records[static_cast<size_t>(i)] = source_->read(i);
        }));
    add("decode, resize, tokenise", B, time([&] { each(plain); }));
    add("the same, pictures cached", B, time([&] { each(cached); }));
    const Device host = Device::open("cpu");
    add("put a batch together", B, time([&] { plain.collate(samples, host); }));
  }

  void compare(const std::string& peer) {
    std::string command = text(peer, " --json --dataset ", settings_.dataset, " --tokenizer ", settings_.tokenizer,
                               " --image_size ", settings_.image_size, " --batch ", settings_.batch, " --workers");
    for (const int workers : settings_.workers) command += text(" ", workers);
    const nlohmann::json rates = run_peer(command).at("samples_per_s");
    for (const auto& [workers, rate] : rates.items())
      report_.add({{"work", value("peer, " + workers + " workers")}, {"samples/s", value(rate.get<double>(), 0)}});
    for (const int workers : settings_.workers)
      report_.note(text("with ", workers, " workers ours gives ",
                        rates_.at(workers) / rates.at(text(workers)).get<double>(), " times the peer's samples/s"));
  }

  void whole(bool with_cache) {
    const auto collator = std::make_shared<VqaCollator>(text_, options(), with_cache ? cache_ : nullptr);
    for (const int workers : settings_.workers) {
      check_first_batch(collator, workers);
      Loader loader = open(collator, workers);
      const Timing timing = time([&] {  // of an epoch: the next one's first batches are prepared meanwhile
        while (loader.next()) continue;
      });
      const int64_t samples = n_ / settings_.batch * settings_.batch;
      add(text("loader, ", workers, " workers", with_cache ? ", pictures cached" : ""), samples, timing);
      if (!with_cache) rates_[workers] = static_cast<double>(samples) / timing.median;
    }
  }

 private:
  CollateOptions options() const { return {.image_size = settings_.image_size, .max_length = 79}; }

  Loader open(std::shared_ptr<const Collator> collator, int workers) const {
    std::vector<int64_t> rows = all_rows(*source_);
    rows.resize(static_cast<size_t>(n_));
    return Loader(source_, rows, collator,
                  {.batch_size = settings_.batch,
                   .epochs = int64_t{1} << 30,
                   .rows_mixed = settings_.rows_mixed,
                   .workers = workers});
  }

  // Threads must not change what is learnt from.
  void check_first_batch(const std::shared_ptr<const Collator>& collator, int workers) {
    Loader one = open(collator, 0), other = open(collator, workers);
    const std::optional<LoadedBatch> a = one.next(), b = other.next();
    const auto equal = [](const Tensor& x, const Tensor& y) {
      return x.shape() == y.shape() && std::memcmp(x.data(), y.data(), static_cast<size_t>(x.bytes())) == 0;
    };
    require(equal(a->batch.images, b->batch.images) && equal(a->batch.input_ids, b->batch.input_ids) &&
                equal(a->batch.labels, b->batch.labels),
            text("the same first batch with ", workers, " workers as with none"));
  }

  void add(const std::string& work, int64_t samples, const Timing& timing) {
    report_.add({{"work", value(work)},
                 {"samples", value(samples)},
                 {"ms", milliseconds(timing.median)},
                 {"p10", milliseconds(timing.p10)},
                 {"p90", milliseconds(timing.p90)},
                 {"samples/s", value(static_cast<double>(samples) / timing.median, 0)}});
  }

  const Settings settings_;
  Report& report_;
  const std::shared_ptr<const RecordSource> source_;
  const PromptTokenizer text_;
  const std::shared_ptr<PictureCache> cache_ = std::make_shared<PictureCache>(int64_t{1} << 30);
  const int64_t n_;              // records of the data set that are used
  std::map<int, double> rates_;  // samples a second by number of workers, without the cache
};

}  // namespace

int main(int argc, char** argv) try {
  Settings settings;
  Report report("loader");
  report.app().add_option("--dataset", settings.dataset, "a data set (default: one made up)");
  report.app().add_option("--peer", settings.peer, "command to compare with; needs a folder with train.jsonl");
  report.app().add_option("--tokenizer", settings.tokenizer, "a tokenizer.json or its folder")->capture_default_str();
  report.app()
      .add_option("--image_size", settings.image_size, "side of the picture a model sees")
      ->capture_default_str();
  report.app()
      .add_option("--records", settings.records, "that are used at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  report.app()
      .add_option("--rows_mixed", settings.rows_mixed, "shuffle blocks (row groups) that hold so many; 0: rows")
      ->capture_default_str();
  report.app()
      .add_option("--batch", settings.batch, "samples of a batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  report.app()
      .add_option("--workers", settings.workers, "numbers of threads to try")
      ->check(CLI::NonNegativeNumber)
      ->delimiter(',');
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;

  std::optional<MadeUp> made_up;
  if (settings.dataset.empty()) settings.dataset = made_up.emplace().path();
  Bench bench(settings, report);
  bench.stages();
  bench.whole(false);
  bench.whole(true);
  if (!settings.peer.empty()) bench.compare(settings.peer);
  return report.finish();
} catch (const std::exception&) {
  return failed("loader", argc, argv);
}
