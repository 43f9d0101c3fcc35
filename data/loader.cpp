#include "data/loader.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "data/reference_order.h"
#include "engine/random.h"

namespace nanovlm {
namespace {

// An over-long record says something about the limit, not about the data.
bool is_bad(Fault fault) { return fault != Fault::over_long && fault != Fault::no_target; }

std::string skipped_by_reason(const LoaderReport& report) {
  std::string reasons;
  for (int f = 0; f < kFaults; ++f)
    if (const int64_t n = report.skipped[static_cast<size_t>(f)])
      reasons += text(reasons.empty() ? "" : ", ", n, " ", name_of(static_cast<Fault>(f)));
  return reasons.empty() ? "none left out" : reasons;
}

// Batches kept ready. Without threads of its own a loader prepares what it is asked for.
int64_t batches_ahead(const LoaderOptions& options) {
  return options.workers > 0 ? std::max<int64_t>(options.prefetch, 1) : 0;
}
}  // namespace

std::string LoaderReport::text() const {
  const int64_t left_out = rows - samples;
  return nanovlm::text(left_out, " of ", rows, " records left out: ", skipped_by_reason(*this),
                       cut ? nanovlm::text("; ", cut, " cut") : "");
}

Loader::Loader(std::shared_ptr<const RecordSource> source, std::vector<int64_t> rows,
               std::shared_ptr<const Collator> collator, const LoaderOptions& options, LoaderPosition from)
    : source_(std::move(source)),
      rows_(std::move(rows)),
      collator_(std::move(collator)),
      options_(options),
      host_(Device::open("cpu")),
      position_(from),
      epoch_first_row_(from.row) {
  const auto n = static_cast<int64_t>(rows_.size());
  check(options_.batch_size > 0 && options_.epochs > 0 && options_.bad_window > 0, "loader: batch size ",
        options_.batch_size, ", ", options_.epochs, " epochs, window of ", options_.bad_window,
        ": expected positive numbers");
  check(n > 0, "loader: expected records, found none");
  check(!options_.drop_last || n >= options_.batch_size, "loader: expected at least one batch of ", options_.batch_size,
        " records, found ", n);
  check(from.epoch >= 0 && from.row >= 0 && from.row <= n, "loader: epoch ", from.epoch, ", row ", from.row,
        ": expected a place in epochs of ", n, " rows");

  check(from.rows == 0 || (from.rows == n && from.seed == options_.seed), "loader: expected a position among ", n,
        " rows with seed ", options_.seed, ", found one among ", from.rows, " with seed ", from.seed);
  position_.rows = n;
  position_.seed = options_.seed;

  const int64_t first = std::min(from.epoch, options_.epochs) * n + (from.epoch < options_.epochs ? from.row : 0);
  samples_ = std::make_unique<OrderedWorkers<Prepared>>(
      options_.workers, options_.batch_size * (batches_ahead(options_) + 1), options_.epochs * n - first,
      [this, first](int64_t k) { return prepare(first + k); });
  batches_ = std::make_unique<OrderedWorkers<Item>>(
      options_.workers > 0 ? 1 : 0, std::max<int64_t>(batches_ahead(options_), 1), std::numeric_limits<int64_t>::max(),
      [this](int64_t) { return assemble(); });
}

Loader::~Loader() {
  samples_->stop();  // or the thread that assembles could wait for a whole batch more
}

int64_t Loader::batches_per_epoch() const {
  return options_.drop_last ? rows() / options_.batch_size : ceil_div(rows(), options_.batch_size);
}

std::vector<int64_t> Loader::order_of(int64_t epoch) const {
  const uint64_t counted = options_.same_order_every_epoch ? 0 : static_cast<uint64_t>(epoch);
  if (options_.reference_order) return torch_permutation(rows(), options_.seed + counted);
  const uint64_t stream = counted + 1;  // stream 0 of a seed has shuffled the data set
  return options_.rows_mixed > 0 ? blockwise_order(stream) : permutation(rows(), options_.seed, stream);
}

std::vector<int64_t> Loader::blockwise_order(uint64_t stream) const {
  const std::vector<int64_t> rank = permutation(source_->blocks(), options_.seed, stream);
  std::vector<std::pair<int64_t, int64_t>> ranked;  // by the rank of its block: an index of rows_
  for (int64_t i = 0; i < rows(); ++i)
    ranked.emplace_back(rank[static_cast<size_t>(source_->block_of(rows_[static_cast<size_t>(i)]))], i);
  std::sort(ranked.begin(), ranked.end());

  std::vector<int64_t> order;
  for (const auto& [block, i] : ranked) order.push_back(i);
  Random random(options_.seed, stream + hash_of("rows mixed"));
  for (size_t begin = 0, end = 1; begin < order.size(); begin = end++) {
    const auto ends_here = [&] {
      return end == order.size() ||
             (end - begin >= static_cast<size_t>(options_.rows_mixed) && ranked[end].first != ranked[end - 1].first);
    };
    while (!ends_here()) ++end;
    for (size_t i = end - begin; i-- > 1;) std::swap(order[begin + i], order[begin + random.below(i + 1)]);
  }
  return order;
}

// Rows are numbered through all epochs.
int64_t Loader::row_at(int64_t index) {
  const int64_t epoch = index / rows();
  if (!options_.shuffle) return rows_[static_cast<size_t>(index % rows())];
  std::shared_ptr<const std::vector<int64_t>> order;
  {
    const std::lock_guard lock(order_mutex_);
    auto& slot = orders_[options_.same_order_every_epoch ? 0 : epoch];
    if (!slot) slot = std::make_shared<const std::vector<int64_t>>(order_of(epoch));
    order = slot;
    while (orders_.size() > 2) orders_.erase(orders_.begin());
  }
  return rows_[static_cast<size_t>((*order)[static_cast<size_t>(index % rows())])];
}

Loader::Prepared Loader::prepare(int64_t index) {
  const int64_t row = row_at(index);
  try {
    Sample sample = collator_->prepare(source_->read(row), source_->place(row));
    sample.row = row;
    return sample;
  } catch (const BadRecord& bad) {
    return Skip{bad.fault, bad.what()};
  }
}

void Loader::count(const Skip& skip, Item& item) {
  ++assembled_.skipped[static_cast<size_t>(skip.fault)];
  item.skipped.push_back(skip);
}

void Loader::watch(bool bad) {
  window_.push_back(bad);
  bad_in_window_ += bad;
  if (static_cast<int64_t>(window_.size()) > options_.bad_window) {
    bad_in_window_ -= window_.front();
    window_.pop_front();
  }
  check(static_cast<double>(bad_in_window_) <= options_.max_bad_share * static_cast<double>(options_.bad_window),
        "loader: ", bad_in_window_, " of the last ", window_.size(), " records are bad, but at most ",
        options_.max_bad_share * 100, " % of ", options_.bad_window, " may be; so far ", assembled_.text());
}

void Loader::end_epoch() {
  check(epoch_batches_ > 0 || epoch_first_row_ > 0, "loader: ", rows(), " records gave no batch of ",
        options_.batch_size, ": ", assembled_.text());
  // A data set smaller than the window is judged as a whole.
  check(static_cast<double>(bad_in_window_) <= options_.max_bad_share * static_cast<double>(window_.size()),
        "loader: ", bad_in_window_, " of ", window_.size(), " records are bad, but at most ",
        options_.max_bad_share * 100, " % may be; so far ", assembled_.text());
  ++position_.epoch;
  position_.row = 0;
  epoch_first_row_ = epoch_batches_ = 0;
  window_.clear();  // the next epoch meets the same bad records again
  bad_in_window_ = 0;
}

// The next batch, or the end of an epoch.
Loader::Item Loader::assemble() {
  Item item;
  std::vector<Sample> samples;
  int64_t targets = 0;
  const auto finish = [&] {
    LoadedBatch loaded{collator_->collate(samples, host_), {}, position_, targets, 0};
    loaded.samples = std::move(samples);
    item.batch = std::move(loaded);
    ++epoch_batches_;
    ++assembled_.batches;
  };
  while (position_.epoch < options_.epochs) {
    if (position_.row == rows()) {
      if (!samples.empty() && !options_.drop_last)
        finish();
      else
        end_epoch();
      break;
    }
    Prepared prepared = samples_->next();
    ++position_.row;
    ++assembled_.rows;
    if (const Skip* skip = std::get_if<Skip>(&prepared)) {
      count(*skip, item);
      watch(is_bad(skip->fault));
      continue;
    }
    watch(false);
    ++assembled_.samples;
    samples.push_back(std::move(std::get<Sample>(prepared)));
    assembled_.cut += samples.back().cut;
    targets += samples.back().targets();
    if (static_cast<int64_t>(samples.size()) < options_.batch_size) continue;
    if (targets > 0 || !options_.skip_without_target) {
      finish();
      break;
    }
    count({Fault::no_target, text("a batch of ", samples.size(), " records up to ", samples.back().place,
                                  ": expected labels that count, found none")},
          item);
    samples.clear();
  }
  item.report = assembled_;
  return item;
}

std::optional<LoadedBatch> Loader::next() {
  const auto begin = std::chrono::steady_clock::now();
  Item item = batches_->next();
  report_ = item.report;
  std::move(item.skipped.begin(), item.skipped.end(), std::back_inserter(skipped_));
  if (item.batch)
    item.batch->wait_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return std::move(item.batch);
}

std::vector<Skip> Loader::take_skipped() { return std::exchange(skipped_, {}); }

}  // namespace nanovlm
