// The loader: one order whatever the number of threads, bad records left out and counted, no hang and no silence.
#include "data/loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>

#include "data/dataset.h"
#include "data/reference_order.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/messages.h"

using namespace nanovlm;
using namespace std::chrono_literals;

namespace {
constexpr int kWorkers[] = {0, 1, 2, 5};

// Row i asks "i" and is answered "a"; some rows are faulty.
class Rows : public RecordSource {
 public:
  explicit Rows(int64_t size, std::function<void(int64_t)> fault = {}) : size_(size), fault_(std::move(fault)) {}
  int64_t size() const override { return size_; }
  std::string place(int64_t row) const override { return text("rows:", row + 1); }
  Record read(int64_t row) const override {
    if (fault_) fault_(row);
    Record record;
    record.images.emplace_back().bytes = picture_;
    record.texts.push_back({std::to_string(row), "a", ""});
    return record;
  }

 private:
  int64_t size_;
  std::function<void(int64_t)> fault_;
  std::vector<uint8_t> picture_ = encode_png({1, 1, {1, 2, 3}});
};

std::shared_ptr<const Collator> collator(int64_t max_length = 79) {
  static const PromptTokenizer text = PromptTokenizer::load(NANOVLM_FIXTURES "/tokenizer/tiny");
  return std::make_shared<VqaCollator>(text, CollateOptions{2, max_length});
}

std::vector<int64_t> rows_of(const LoadedBatch& batch) {
  std::vector<int64_t> rows;
  for (const Sample& sample : batch.samples) rows.push_back(std::stoll(sample.question));
  return rows;
}

struct Epoch {
  std::vector<std::vector<int64_t>> batches;
  std::vector<LoaderPosition> positions;
  bool operator==(const Epoch&) const = default;
  std::vector<int64_t> rows() const {
    std::vector<int64_t> all;
    for (const auto& batch : batches) all.insert(all.end(), batch.begin(), batch.end());
    return all;
  }
};

Epoch epoch_of(Loader& loader) {
  Epoch epoch;
  while (const auto batch = loader.next()) {
    epoch.batches.push_back(rows_of(*batch));
    epoch.positions.push_back(batch->position);
  }
  return epoch;
}

Loader loader_of(std::shared_ptr<const RecordSource> source, const LoaderOptions& options, LoaderPosition from = {}) {
  return Loader(source, all_rows(*source), collator(), options, from);
}

std::vector<int64_t> numbers(int64_t begin, int64_t end) {
  std::vector<int64_t> n(static_cast<size_t>(end - begin));
  std::iota(n.begin(), n.end(), begin);
  return n;
}

void bad_record(Fault fault, int64_t row) { throw BadRecord(fault, text("rows:", row + 1, ": planted")); }
}  // namespace

TEST_CASE("batches are the same whatever the number of threads") {
  std::vector<std::vector<Epoch>> runs;
  for (const int workers : kWorkers) {
    // Rows take different times, so that threads overtake each other.
    const auto source = std::make_shared<Rows>(53, [](int64_t row) {
      std::this_thread::sleep_for(std::chrono::microseconds(row % 7 * 100));
      if (row % 11 == 3) bad_record(Fault::broken_picture, row);
    });
    Loader loader =
        loader_of(source, {.batch_size = 4, .epochs = 3, .seed = 5, .workers = workers, .max_bad_share = 1});
    std::vector<Epoch> run;
    for (int e = 0; e < 3; ++e) run.push_back(epoch_of(loader));
    CHECK_FALSE(loader.next().has_value());
    CHECK_FALSE(loader.next().has_value());
    CHECK(loader.report().skipped[static_cast<size_t>(Fault::broken_picture)] == 15);
    runs.push_back(run);
  }
  for (const auto& run : runs) CHECK(run == runs[0]);
  CHECK(runs[0][0].batches.size() == 12);
  CHECK(runs[0][0].rows() != runs[0][1].rows());
  CHECK(runs[0][1].rows() != runs[0][2].rows());
}

TEST_CASE("batches hold what the collator makes of their rows") {
  const auto source = std::make_shared<Rows>(5);
  Loader loader = loader_of(source, {.batch_size = 5, .shuffle = false});
  const auto batch = loader.next();
  REQUIRE(batch);
  CHECK(rows_of(*batch) == numbers(0, 5));
  CHECK(batch->batch.images.shape() == Shape{5, 3, 2, 2});
  CHECK(batch->batch.input_ids.size(0) == 5);
  CHECK(batch->targets == 10);  // the answer and the end token
  int64_t labels = 0;
  for (int64_t i = 0; i < batch->batch.labels.numel(); ++i) labels += batch->batch.labels.i32()[i] != kIgnoredLabel;
  CHECK(labels == batch->targets);
  CHECK(batch->wait_seconds > 0);
  CHECK(batch->samples[2].place == "rows:3");
  CHECK(batch->samples[2].row == 2);
}

TEST_CASE("an epoch visits every row once, in an order of its own") {
  const auto source = std::make_shared<Rows>(40);
  Loader loader = loader_of(source, {.batch_size = 8, .epochs = 2, .seed = 3});
  const Epoch first = epoch_of(loader), second = epoch_of(loader);
  CHECK(first.rows() != second.rows());
  for (const Epoch& epoch : {first, second}) {
    auto rows = epoch.rows();
    CHECK_FALSE(std::is_sorted(rows.begin(), rows.end()));
    std::sort(rows.begin(), rows.end());
    CHECK(rows == numbers(0, 40));
  }

  Loader other_seed = loader_of(source, {.batch_size = 8, .seed = 4});
  CHECK(epoch_of(other_seed).rows() != first.rows());
  Loader same = loader_of(source, {.batch_size = 8, .epochs = 2, .seed = 3, .same_order_every_epoch = true});
  CHECK(epoch_of(same).rows() == first.rows());
  CHECK(epoch_of(same).rows() == first.rows());
}

TEST_CASE("the reference's order is that of its sampler, which is told the epoch only if asked for") {
  const auto source = std::make_shared<Rows>(40);
  LoaderOptions options{
      .batch_size = 40, .epochs = 2, .same_order_every_epoch = true, .reference_order = true, .workers = 0};
  Loader fixed = loader_of(source, options);
  CHECK(epoch_of(fixed).rows() == torch_permutation(40, 0));
  CHECK(epoch_of(fixed).rows() == torch_permutation(40, 0));
  options.same_order_every_epoch = false;
  options.seed = 5;
  Loader told = loader_of(source, options);
  CHECK(epoch_of(told).rows() == torch_permutation(40, 5));
  CHECK(epoch_of(told).rows() == torch_permutation(40, 6));
}

TEST_CASE("shuffled by blocks, rows that lie together come together") {
  // Blocks of 10 rows.
  struct Blocks : Rows {
    using Rows::Rows;
    int64_t blocks() const override { return (size() + 9) / 10; }
    int64_t block_of(int64_t row) const override { return row / 10; }
  };
  const auto source = std::make_shared<Blocks>(205);
  const LoaderOptions options{.batch_size = 5, .epochs = 2, .seed = 3, .rows_mixed = 25};
  Loader loader = loader_of(source, options);
  std::vector<std::vector<int64_t>> epochs;
  for (int e = 0; e < 2; ++e) {
    std::vector<int64_t> rows = epochs.emplace_back(epoch_of(loader).rows());
    // The short block may have been among the first, so windows begin anywhere; each has at most four blocks.
    std::map<int64_t, std::pair<size_t, size_t>> seen;  // where a block's rows come first and last
    for (size_t i = 0; i < rows.size(); ++i) {
      auto& [first, last] = seen.try_emplace(rows[i] / 10, i, i).first->second;
      last = i;
    }
    for (const auto& [block, range] : seen) CHECK(range.second - range.first < 40);
    CHECK_FALSE(std::is_sorted(rows.begin(), rows.begin() + 10));
    std::sort(rows.begin(), rows.end());
    CHECK(rows == numbers(0, 205));
  }
  CHECK(epochs[0] != epochs[1]);
  Loader resumed = loader_of(source, options, {0, 100, 3, 205});
  CHECK(epoch_of(resumed).rows() == std::vector<int64_t>(epochs[0].begin() + 100, epochs[0].end()));
  CHECK(epoch_of(resumed).rows() == epochs[1]);
}

TEST_CASE("the rows left over at the end of an epoch are dropped or make a smaller batch") {
  const auto source = std::make_shared<Rows>(10);
  for (const int workers : {0, 2}) {
    Loader dropping = loader_of(source, {.batch_size = 4, .epochs = 2, .shuffle = false, .workers = workers});
    CHECK(dropping.batches_per_epoch() == 2);
    CHECK(epoch_of(dropping).rows() == numbers(0, 8));
    CHECK(epoch_of(dropping).rows() == numbers(0, 8));
    Loader keeping = loader_of(source, {.batch_size = 4, .shuffle = false, .drop_last = false, .workers = workers});
    CHECK(keeping.batches_per_epoch() == 3);
    CHECK(epoch_of(keeping).batches.back() == numbers(8, 10));
  }
}

TEST_CASE("a loader that begins where another stood goes on as that one does") {
  const auto source = std::make_shared<Rows>(23, [](int64_t row) {
    if (row % 5 == 2) bad_record(Fault::no_text, row);
  });
  for (const bool drop_last : {true, false})
    for (const int workers : {0, 2}) {
      LoaderOptions options{
          .batch_size = 4, .epochs = 3, .seed = 9, .drop_last = drop_last, .workers = workers, .max_bad_share = 1};
      std::vector<std::pair<LoaderPosition, std::vector<int64_t>>> whole;
      Loader loader = loader_of(source, options);
      for (int e = 0; e < 3; ++e) {
        const Epoch epoch = epoch_of(loader);
        for (size_t b = 0; b < epoch.batches.size(); ++b) whole.emplace_back(epoch.positions[b], epoch.batches[b]);
      }
      for (size_t k = 0; k + 1 < whole.size(); ++k) {
        CAPTURE(drop_last, workers, k);
        Loader resumed = loader_of(source, options, whole[k].first);
        auto batch = resumed.next();
        if (!batch) batch = resumed.next();  // it stood at the end of an epoch
        REQUIRE(batch);
        CHECK(rows_of(*batch) == whole[k + 1].second);
        CHECK(batch->position == whole[k + 1].first);
      }
      Loader finished = loader_of(source, options, {3, 0});
      CHECK_FALSE(finished.next().has_value());
    }
}

TEST_CASE("bad records are left out, counted by reason and reported in order") {
  const auto faulty = [](int64_t row) {
    if (row % 10 == 1) bad_record(Fault::no_picture, row);
    if (row % 10 == 6) bad_record(Fault::broken_record, row);
  };
  std::vector<int64_t> good;
  for (int64_t row = 0; row < 100; ++row)
    if (row % 10 != 1 && row % 10 != 6) good.push_back(row);
  for (const int workers : kWorkers) {
    CAPTURE(workers);
    const auto source = std::make_shared<Rows>(100, faulty);
    LoaderOptions options{.batch_size = 8, .shuffle = false, .workers = workers, .max_bad_share = 0.2};
    Loader loader = loader_of(source, options);
    const auto first = loader.next();
    REQUIRE(first);
    CHECK(loader.report().rows == 10);
    CHECK(loader.take_skipped().size() == 2);
    const Epoch rest = epoch_of(loader);
    CHECK(loader.report().text() == "20 of 100 records left out: 10 broken record, 10 no picture");
    const auto skipped = loader.take_skipped();
    REQUIRE(skipped.size() == 18);
    CHECK(skipped[0].message == "rows:12: planted");
    CHECK(skipped[1].fault == Fault::broken_record);
    CHECK(loader.take_skipped().empty());

    // The batches are those of a data set without the bad rows.
    const auto clean = std::make_shared<Rows>(100);
    Loader without(clean, good, collator(), options);
    const Epoch expected = epoch_of(without);
    CHECK(rows_of(*first) == expected.batches[0]);
    CHECK(rest.batches == std::vector(expected.batches.begin() + 1, expected.batches.end()));
  }
}

TEST_CASE("too many bad records stop the loader") {
  const auto source = std::make_shared<Rows>(2000, [](int64_t row) {
    if (row >= 1000 && row % 5 == 0) bad_record(Fault::broken_picture, row);
  });
  for (const int workers : {0, 2}) {
    const LoaderOptions options{.batch_size = 10, .shuffle = false, .workers = workers};
    Loader loader = loader_of(source, options);
    int64_t batches = 0;
    const std::string message = message_of([&] {
      while (loader.next()) ++batches;
    });
    CHECK(message ==
          "loader: 101 of the last 1000 records are bad, but at most 10 % of 1000 may be; so far 101 of 1501 records "
          "left out: 101 broken picture");
    CHECK(batches == 140);

    LoaderOptions lenient = options;
    lenient.max_bad_share = 0.2;
    Loader all = loader_of(source, lenient);
    CHECK(epoch_of(all).rows().size() == 1800);
  }
}

TEST_CASE("a data set smaller than the window is judged at the end of its epoch") {
  const auto source = std::make_shared<Rows>(50, [](int64_t row) {
    if (row % 8 == 0) bad_record(Fault::broken_picture, row);
  });
  for (const int workers : {0, 2}) {
    LoaderOptions options{.batch_size = 4, .epochs = 2, .workers = workers};
    Loader strict = loader_of(source, options);
    CHECK(
        message_of([&] { epoch_of(strict); }) ==
        "loader: 7 of 50 records are bad, but at most 10 % may be; so far 7 of 50 records left out: 7 broken picture");
    options.max_bad_share = 0.14;
    Loader lenient = loader_of(source, options);
    CHECK(epoch_of(lenient).batches.size() == 10);
    CHECK(epoch_of(lenient).batches.size() == 10);
  }
}

TEST_CASE("over-long records are left out without being bad") {
  const auto source = std::make_shared<Rows>(300);
  std::set<size_t> lengths;
  Loader probe(source, all_rows(*source), collator(), {.batch_size = 300});
  const auto batch = probe.next();
  for (const Sample& sample : batch->samples) lengths.insert(sample.ids.size());
  REQUIRE(lengths.size() > 1);
  Loader loader(source, all_rows(*source), collator(static_cast<int64_t>(*lengths.begin())),
                {.batch_size = 1, .max_bad_share = 0});
  const auto left = static_cast<int64_t>(epoch_of(loader).batches.size());
  CHECK(left < 300);
  CHECK(loader.report().skipped[static_cast<size_t>(Fault::over_long)] == 300 - left);
}

TEST_CASE("without a usable record there is an error, not an empty epoch") {
  const auto all_bad = std::make_shared<Rows>(20, [](int64_t row) { bad_record(Fault::no_text, row); });
  for (const int workers : {0, 2}) {
    Loader loader = loader_of(all_bad, {.batch_size = 2, .epochs = 5, .workers = workers});
    CHECK(message_of([&] { loader.next(); }) ==
          "loader: 20 records gave no batch of 2: 20 of 20 records left out: 20 no text");
  }
  const auto source = std::make_shared<Rows>(3);
  CHECK(message_of([&] { loader_of(source, {.batch_size = 4}); }) ==
        "loader: expected at least one batch of 4 records, found 3");
  CHECK(message_of([&] { Loader(source, {}, collator(), {.batch_size = 4}); }) ==
        "loader: expected records, found none");
  CHECK(message_of([&] { loader_of(source, {.batch_size = 0}); }).starts_with("loader: batch size 0"));
  CHECK(message_of([&] { loader_of(source, {}, {0, 4}); }).starts_with("loader: epoch 0, row 4"));
  CHECK(message_of([&] {
          loader_of(source, {}, {0, 1, 7, 3});
        }) == "loader: expected a position among 3 rows with seed 0, found one among 3 with seed 7");
  CHECK(message_of([&] { loader_of(source, {}, {0, 1, 0, 4}); }).starts_with("loader: expected a position among 3"));
}

TEST_CASE("a batch without a label that counts is left out, unless asked for") {
  const auto source = std::make_shared<Rows>(8);
  const auto masking = std::make_shared<VqaCollator>(PromptTokenizer::load(NANOVLM_FIXTURES "/tokenizer/tiny"),
                                                     CollateOptions::nanovlm_v1(2, 2));
  for (const int workers : {0, 2}) {
    Loader keeping(source, all_rows(*source), masking,
                   {.batch_size = 4, .skip_without_target = false, .workers = workers});
    const auto batch = keeping.next();
    REQUIRE(batch);
    CHECK(batch->targets == 0);
    CHECK(keeping.report().cut == 4);

    Loader skipping(source, all_rows(*source), masking, {.batch_size = 4, .shuffle = false, .workers = workers});
    CHECK(message_of([&] { skipping.next(); }) ==
          "loader: 8 records gave no batch of 4: 0 of 8 records left out: 2 no target; 8 cut");
  }
}

TEST_CASE("what goes wrong in a thread is thrown by next, once, in its place") {
  for (const int workers : kWorkers) {
    CAPTURE(workers);
    const auto source = std::make_shared<Rows>(100, [](int64_t row) {
      if (row == 13) throw std::runtime_error("disk on fire");
    });
    Loader loader = loader_of(source, {.batch_size = 5, .shuffle = false, .workers = workers});
    CHECK(rows_of(*loader.next()) == numbers(0, 5));
    CHECK(rows_of(*loader.next()) == numbers(5, 10));
    CHECK_THROWS_WITH(loader.next(), "disk on fire");
  }
}

TEST_CASE("a loader can be given up at any moment") {
  const auto source = std::make_shared<Rows>(1000, [](int64_t) { std::this_thread::sleep_for(1ms); });
  for (const int workers : kWorkers)
    for (const int batches : {0, 1, 3})
      for (const auto pause : {0ms, 5ms}) {
        const auto begin = std::chrono::steady_clock::now();
        {
          Loader loader = loader_of(source, {.batch_size = 4, .workers = workers});
          for (int b = 0; b < batches; ++b) loader.next();
          std::this_thread::sleep_for(pause);
        }
        // A thread that waits for room, or for a batch, must not be waited for in turn.
        CHECK(std::chrono::steady_clock::now() - begin < 5s);
      }
}

TEST_CASE("threads never run further ahead than the window") {
  constexpr int64_t kWindow = 6;
  std::atomic<int64_t> begun{0}, taken{0};
  std::atomic<bool> ahead{false};
  OrderedWorkers<int64_t> workers(3, kWindow, 200, [&](int64_t k) {
    if (begun.fetch_add(1) >= taken + kWindow) ahead = true;
    return k * k;
  });
  std::this_thread::sleep_for(20ms);
  CHECK(begun == kWindow);
  for (int64_t k = 0; k < 200; ++k) {
    ++taken;  // before next(), which makes the room
    REQUIRE(workers.next() == k * k);
  }
  CHECK_FALSE(ahead);
  CHECK(begun == 200);
  CHECK(message_of([&] { workers.next(); }) == "workers: no item is left");
}

TEST_CASE("without threads a call makes the next window on the host's pool, and nothing happens between calls") {
  constexpr int64_t kWindow = 6, kItems = 20;
  const auto faulty = [](int64_t k) { return k == 3 || k == 8; };
  for (const int threads : {1, 4}) {
    CAPTURE(threads);
    std::atomic<int64_t> begun{0};
    std::atomic<int> together{0}, most{0};
    OrderedWorkers<int64_t> workers(0, kWindow, kItems, [&](int64_t k) {
      ++begun;
      const int now = ++together;
      for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) continue;
      std::this_thread::sleep_for(2ms);
      --together;
      check(!faulty(k), "item ", k);
      return k * k;
    });
    CHECK(begun == 0);
    testing::with_threads(threads, [&] {
      for (int64_t k = 0; k < kItems; ++k) {
        if (faulty(k))
          CHECK(message_of([&] { workers.next(); }) == text("item ", k));
        else
          CHECK(workers.next() == k * k);
        CHECK(begun == std::min((k / kWindow + 1) * kWindow, kItems));
      }
      CHECK(message_of([&] { workers.next(); }) == "workers: no item is left");
    });
    CHECK(begun == kItems);
    CHECK((most > 1) == (threads > 1));
  }
}

TEST_CASE("stopping wakes the one who waits") {
  OrderedWorkers<int> workers(1, 1, 10, [](int64_t) {
    std::this_thread::sleep_for(200ms);
    return 0;
  });
  std::thread stopper([&] {
    std::this_thread::sleep_for(20ms);
    workers.stop();
  });
  CHECK(message_of([&] { workers.next(); }) == "workers: stopped");
  stopper.join();
}
