#include "data/survey.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <variant>

#include "engine/random.h"

namespace nanovlm {
namespace {

constexpr size_t kSkipsKept = 20;

struct RecordCounts {
  std::string source;
  int64_t turns = 0, pictures = 0, tokens = 0, labels = 0;
  int32_t length = 0;
  bool over_long = false;
  uint64_t content = 0;  // a hash
};

class Surveyor {
 public:
  Surveyor(const Dataset& dataset, const PromptTokenizer& text, const SurveyOptions& options)
      : dataset_(dataset), options_(options), collator_(text, options.collate.uncut()) {}

  std::variant<RecordCounts, Skip> look(int64_t row) const {
    try {
      const std::string place = dataset_.place(row);
      const Record record = dataset_.read(row);
      const Sample sample =
          options_.decode_pictures ? collator_.prepare(record, place) : collator_.prepare_text(record, place);
      return counts_of(record, sample, row);
    } catch (const BadRecord& bad) {
      return Skip{bad.fault, bad.what()};
    }
  }

 private:
  RecordCounts counts_of(const Record& record, const Sample& sample, int64_t row) const {
    RecordCounts counts;
    const std::string& source = record.texts[0].source;
    counts.source = source.empty() ? dataset_.subset_of(row).name : source;
    counts.turns = static_cast<int64_t>(record.texts.size());
    counts.pictures = static_cast<int64_t>(record.images.size());
    const auto n = static_cast<int64_t>(sample.ids.size()), limit = options_.collate.max_length;
    counts.length = static_cast<int32_t>(n);
    counts.over_long = n > limit;
    const OverLong rule = options_.collate.over_long;
    const bool dropped =
        counts.over_long && (rule == OverLong::drop || (rule == OverLong::truncate && sample.first_target >= limit));
    counts.tokens = dropped ? 0 : std::min(n, limit);
    counts.labels =
        counts.over_long && rule == OverLong::mask ? 0 : std::max<int64_t>(counts.tokens - sample.first_target, 0);
    counts.content = content_of(record, sample);
    return counts;
  }

  static uint64_t content_of(const Record& record, const Sample& sample) {
    uint64_t hash = hash_of(sample.question + '\0' + sample.answer);
    if (record.images.empty()) return hash;
    const Picture& picture = record.images[0];
    const std::string_view bytes(reinterpret_cast<const char*>(picture.bytes.data()), picture.bytes.size());
    return hash * 31 + (bytes.empty() ? hash_of(picture.folder + "/" + picture.path) : hash_of(bytes));
  }

  const Dataset& dataset_;
  const SurveyOptions& options_;
  const VqaCollator collator_;
};

void add(SurveyCounts& counts, const RecordCounts& record, bool duplicate) {
  ++counts.records;
  ++counts.samples;
  counts.turns += record.turns;
  counts.pictures += record.pictures;
  counts.duplicates += duplicate;
  counts.over_long += record.over_long;
  counts.without_loss += record.labels == 0;
  counts.tokens += record.tokens;
  counts.labels += record.labels;
  counts.lengths.push_back(record.length);
}

void add(SurveyCounts& counts, const Skip& skip) {
  ++counts.records;
  ++counts.broken[static_cast<size_t>(skip.fault)];
}
}  // namespace

int32_t SurveyCounts::length_at(double share) const {
  if (lengths.empty()) return 0;
  const auto rank = static_cast<int64_t>(std::ceil(share * static_cast<double>(lengths.size())));
  return lengths[static_cast<size_t>(std::clamp<int64_t>(rank, 1, static_cast<int64_t>(lengths.size())) - 1)];
}

double SurveyCounts::without_loss_share() const {
  return samples ? static_cast<double>(without_loss) / static_cast<double>(samples) : 0;
}

Survey survey(const Dataset& dataset, const std::vector<int64_t>& rows, const PromptTokenizer& text,
              const SurveyOptions& options) {
  const Surveyor surveyor(dataset, text, options);
  const auto n = static_cast<int64_t>(rows.size());
  OrderedWorkers<std::variant<RecordCounts, Skip>> workers(
      options.workers, 256, n, [&](int64_t i) { return surveyor.look(rows[static_cast<size_t>(i)]); });
  Survey result;
  std::unordered_set<uint64_t> seen;
  for (int64_t i = 0; i < n; ++i) {
    const auto looked = workers.next();
    if (const Skip* skip = std::get_if<Skip>(&looked)) {
      add(result.all, *skip);
      add(result.sources[dataset.subset_of(rows[static_cast<size_t>(i)]).name], *skip);
      if (result.skipped.size() < kSkipsKept) result.skipped.push_back(*skip);
    } else {
      const RecordCounts& record = std::get<RecordCounts>(looked);
      const bool duplicate = !seen.insert(record.content).second;
      add(result.all, record, duplicate);
      add(result.sources[record.source], record, duplicate);
    }
    if (options.progress) options.progress(i + 1, n);
  }
  std::sort(result.all.lengths.begin(), result.all.lengths.end());
  for (auto& [name, counts] : result.sources) std::sort(counts.lengths.begin(), counts.lengths.end());
  return result;
}

}  // namespace nanovlm
