// Batches in a fixed order, made by threads ahead of the one who takes them.
//
// Rows are read, decoded and tokenised by `workers` threads, put together by one more, and delivered in the same order
// whatever their number. Without such threads next() does it all, a batch's rows at once on the host's pool. A record
// that can't be used is left out, counted by reason and reported; where too many are, the loader stops with an error.
//
//     while (auto batch = loader.next()) step(batch->batch);   // one epoch; the next call begins the following one
#pragma once
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "data/collate.h"
#include "data/ordered_workers.h"
#include "data/record.h"

namespace nanovlm {

struct LoaderOptions {
  int64_t batch_size = 1;
  int64_t epochs = 1;  // after these next() returns nothing any more
  bool shuffle = true;
  uint64_t seed = 0;
  bool same_order_every_epoch = false;  // as the reference, whose sampler is never told the epoch
  bool reference_order = false;         // shuffle as torch's DistributedSampler: data/reference_order.h
  // Shuffles blocks of the source (row groups), and rows only among the blocks that hold this many together: what lies
  // together is then read once. 0: rows are shuffled one by one.
  int64_t rows_mixed = 0;
  bool drop_last = true;            // rows at the end of an epoch that don't fill a batch are left out
  bool skip_without_target = true;  // batches in which no label counts; else delivered
  int workers = 2;                  // 0: everything is done in next(), on the host's pool of threads
  int64_t prefetch = 2;             // batches kept ready
  double max_bad_share = 0.1;       // of bad_window rows in a row
  int64_t bad_window = 1000;
};

// Where a loader stands: with its options and rows, the whole state. A loader that begins here delivers what that one
// would have delivered next, without reading what came before.
struct LoaderPosition {
  int64_t epoch = 0, row = 0;  // rows of the epoch that were used up
  // What it was a position in. A loader with another seed or another number of rows refuses it; rows 0: not known.
  uint64_t seed = 0;
  int64_t rows = 0;
  bool operator==(const LoaderPosition&) const = default;
};

struct LoadedBatch {
  Batch batch;
  std::vector<Sample> samples;  // what it was made of
  LoaderPosition position;      // after it
  int64_t targets = 0;          // labels that count; of a VqaCollator
  double wait_seconds = 0;      // how long next() took
};

// A row, or a batch, that was left out.
struct Skip {
  Fault fault;
  std::string message;  // file, line, what was expected and found
};

// What was used up by the batches delivered so far.
struct LoaderReport {
  int64_t rows = 0, samples = 0, batches = 0;
  int64_t cut = 0;  // samples longer than the limit that were cut
  std::array<int64_t, kFaults> skipped{};

  std::string text() const;  // "3 of 100 records left out: 2 broken picture, 1 no text"
};

class Loader {
 public:
  // `rows` of `source`, in this order where shuffle is off. Error: no rows, or fewer than a batch with drop_last; a
  // position that is not one of this loader's.
  Loader(std::shared_ptr<const RecordSource> source, std::vector<int64_t> rows,
         std::shared_ptr<const Collator> collator, const LoaderOptions& options, LoaderPosition from = {});
  ~Loader();

  // The next batch, or nothing at the end of each epoch. Throws what went wrong on the way, bad records aside; Error
  // too when too many records are bad, or an epoch gave no batch.
  std::optional<LoadedBatch> next();

  const LoaderReport& report() const { return report_; }
  std::vector<Skip> take_skipped();  // those behind the batches delivered since the last call

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }
  int64_t batches_per_epoch() const;  // where no record is left out

 private:
  using Prepared = std::variant<Sample, Skip>;
  struct Item {
    std::optional<LoadedBatch> batch;
    std::vector<Skip> skipped;
    LoaderReport report;
  };

  std::vector<int64_t> order_of(int64_t epoch) const;
  std::vector<int64_t> blockwise_order(uint64_t stream) const;
  int64_t row_at(int64_t index);
  Prepared prepare(int64_t index);
  Item assemble();
  void count(const Skip& skip, Item& item);
  void watch(bool bad);
  void end_epoch();

  const std::shared_ptr<const RecordSource> source_;
  const std::vector<int64_t> rows_;
  const std::shared_ptr<const Collator> collator_;
  const LoaderOptions options_;
  const Device host_;

  std::mutex order_mutex_;
  std::map<int64_t, std::shared_ptr<const std::vector<int64_t>>> orders_;  // by epoch, those in use

  // Of the thread that assembles.
  LoaderPosition position_;
  LoaderReport assembled_;
  int64_t epoch_first_row_, epoch_batches_ = 0;
  std::deque<bool> window_;  // of the last rows, which were bad
  int64_t bad_in_window_ = 0;

  // Of the thread that takes.
  LoaderReport report_;
  std::vector<Skip> skipped_;

  std::unique_ptr<OrderedWorkers<Prepared>> samples_;
  std::unique_ptr<OrderedWorkers<Item>> batches_;
};

}  // namespace nanovlm
