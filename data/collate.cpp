#include "data/collate.h"

#include <algorithm>

namespace nanovlm {
namespace {
constexpr int kReferenceBlackSize = 224;  // the reference's picture for a record without one, whatever the config says

enum class Side { left, right };

// Rows of different lengths in one [B, T] tensor.
Tensor padded(std::span<const std::vector<int32_t>> rows, int64_t T, Side side, int32_t fill, const Device& host) {
  const auto B = static_cast<int64_t>(rows.size());
  Tensor x = empty({B, T}, DType::i32, host);
  std::fill_n(x.i32(), x.numel(), fill);
  for (int64_t b = 0; b < B; ++b) {
    const auto& row = rows[static_cast<size_t>(b)];
    const int64_t begin = side == Side::left ? T - static_cast<int64_t>(row.size()) : 0;
    std::copy(row.begin(), row.end(), x.i32() + b * T + begin);
  }
  return x;
}

// 1 where `padded` has put a token of the row.
Tensor mask_of(std::span<const std::vector<int32_t>> rows, int64_t T, Side side, const Device& host) {
  const auto B = static_cast<int64_t>(rows.size());
  Tensor mask = empty({B, T}, DType::u8, host);
  std::fill_n(mask.u8(), mask.numel(), uint8_t{0});
  for (int64_t b = 0; b < B; ++b) {
    const auto n = static_cast<int64_t>(rows[static_cast<size_t>(b)].size());
    std::fill_n(mask.u8() + b * T + (side == Side::left ? T - n : 0), n, uint8_t{1});
  }
  return mask;
}

int64_t longest(std::span<const std::vector<int32_t>> rows) {
  size_t T = 0;
  for (const auto& row : rows) T = std::max(T, row.size());
  return static_cast<int64_t>(T);
}

Side side_of(TextPadding padding) { return padding == TextPadding::right_to_longest ? Side::right : Side::left; }

template <class F>
std::vector<std::vector<int32_t>> rows_of(std::span<const Sample> samples, F&& ids) {
  std::vector<std::vector<int32_t>> rows;
  for (const Sample& sample : samples) rows.push_back(ids(sample));
  return rows;
}

// The first token that reaches beyond byte `end`: one that joins the question's end and the answer's begin counts as
// the answer's.
int64_t first_token_beyond(const Tokenizer::Encoding& encoding, size_t end) {
  const auto beyond = std::find_if(encoding.offsets.begin(), encoding.offsets.end(),
                                   [&](const auto& range) { return static_cast<size_t>(range.second) > end; });
  return beyond - encoding.offsets.begin();
}
}  // namespace

CollateOptions CollateOptions::of(const std::string& compat, int64_t image_size, int64_t max_length) {
  if (compat == "nanovlm-v1") return nanovlm_v1(image_size, max_length);
  check(compat == "none", "compat: ", compat, ", but known are none and nanovlm-v1");
  CollateOptions options;
  options.image_size = image_size;
  options.max_length = max_length;
  return options;
}

CollateOptions CollateOptions::nanovlm_v1(int64_t image_size, int64_t max_length) {
  return {image_size, max_length, TextPadding::left_to_max, OverLong::mask, false, true};
}

CollateOptions CollateOptions::uncut() const {
  CollateOptions options = *this;
  options.max_length = int64_t{1} << 40;
  return options;
}

Collator::Collator(PromptTokenizer text, const CollateOptions& options, std::shared_ptr<PictureCache> cache)
    : text_(std::move(text)), options_(options), cache_(std::move(cache)) {
  check(options.image_size > 0 && options.max_length > 0, "collator: image_size is ", options.image_size,
        " and max_length ", options.max_length, ", but both must be positive");
}

Sample Collator::prepare(const Record& record, const std::string& place) const {
  Sample sample = prepare_text(record, place);
  sample.picture = picture_of(record, place);
  return sample;
}

Sample Collator::prepare_text(const Record& record, const std::string& place) const {
  if (record.texts.empty()) throw BadRecord(Fault::no_text, place + ": expected a turn, found none");
  Sample sample;
  sample.place = place;
  sample.question = record.texts[0].user;
  sample.answer = record.texts[0].assistant;
  try {
    tokenize(sample);
  } catch (const BadRecord&) {
    throw;
  } catch (const Error& error) {
    throw BadRecord(Fault::broken_record, text(place, ": ", error.what()));
  }
  return sample;
}

std::shared_ptr<const Image> Collator::picture_of(const Record& record, const std::string& place) const {
  const auto S = static_cast<int>(options_.image_size);
  if (record.images.empty() || (options_.black_without_picture && record.null_first)) {
    if (!options_.black_without_picture || S != kReferenceBlackSize)
      throw BadRecord(Fault::no_picture, place + ": expected a picture, found none");
    return std::make_shared<Image>(Image{S, S, std::vector<uint8_t>(static_cast<size_t>(S) * S * 3)});
  }
  const Picture& source = record.images[0];
  const std::string key = source.bytes.empty() ? source.folder + "/" + source.path : place;
  const bool cacheable = cache_ && !key.empty();
  if (cacheable)
    if (auto picture = cache_->find(key)) return picture;

  const std::vector<uint8_t> bytes = picture_bytes(source, place);
  try {
    const std::string where = source.path.empty() ? place + ": picture" : text(place, ": picture ", source.path);
    const Image whole = apply_orientation(decode_image(bytes, where), exif_orientation(bytes));
    auto picture = std::make_shared<const Image>(resize(whole, S, S));
    if (cacheable) cache_->keep(key, picture);
    return picture;
  } catch (const ImageError& error) {
    throw BadRecord(Fault::broken_picture, error.what());
  }
}

Tensor Collator::stack_pictures(std::span<const Sample> samples, const Device& host) const {
  const int64_t S = options_.image_size;
  Tensor images = empty({static_cast<int64_t>(samples.size()), 3, S, S}, DType::u8, host);
  for (size_t b = 0; b < samples.size(); ++b)
    image_to_tensor(*samples[b].picture, static_cast<int>(S), images.u8() + static_cast<int64_t>(b) * 3 * S * S);
  return images;
}

void VqaCollator::tokenize(Sample& sample) const {
  const std::string question = vqa_prompt(sample.question), whole = question + sample.answer + text_.eos;
  Tokenizer::Encoding encoding = text_.tokenizer.encode_with_offsets(whole);
  const auto n = static_cast<int64_t>(encoding.ids.size());
  const int64_t boundary = options_.boundary_from_offsets
                               ? first_token_beyond(encoding, question.size())
                               : static_cast<int64_t>(text_.tokenizer.encode(question).size());
  const int64_t kept = std::min(n, options_.max_length);
  sample.cut = n > kept;
  if (sample.cut &&
      (options_.over_long == OverLong::drop || (options_.over_long == OverLong::truncate && boundary >= kept)))
    throw BadRecord(Fault::over_long, text(sample.place, ": expected at most ", kept, " tokens, found ", n,
                                           " (question ", std::min(boundary, n), ")"));
  sample.ids = std::move(encoding.ids);
  sample.ids.resize(static_cast<size_t>(kept));
  sample.first_target = sample.cut && options_.over_long == OverLong::mask ? kept : std::min(boundary, kept);
}

Batch VqaCollator::collate(std::span<const Sample> samples, const Device& host) const {
  const auto ids = rows_of(samples, [](const Sample& sample) { return sample.ids; });
  const int64_t T = options_.padding == TextPadding::left_to_max ? options_.max_length : longest(ids);
  const Side side = side_of(options_.padding);
  // The label of a place is the token that follows it.
  const auto labels = rows_of(samples, [](const Sample& sample) {
    std::vector<int32_t> row(sample.ids.size(), kIgnoredLabel);
    for (size_t i = std::max<size_t>(static_cast<size_t>(sample.first_target), 1); i < row.size(); ++i)
      row[i - 1] = sample.ids[i];
    return row;
  });
  return {stack_pictures(samples, host), padded(ids, T, side, text_.eos_id, host), mask_of(ids, T, side, host),
          padded(labels, T, side, kIgnoredLabel, host)};
}

void QuestionCollator::tokenize(Sample& sample) const {
  sample.ids = text_.tokenizer.encode(prompt_(sample.question));
  sample.answer_ids = text_.tokenizer.encode(sample.answer + text_.eos);
}

Batch QuestionCollator::collate(std::span<const Sample> samples, const Device& host) const {
  const auto ids = rows_of(samples, [](const Sample& sample) { return sample.ids; });
  const int64_t T = longest(ids);
  const Side side = side_of(options_.padding);
  return {stack_pictures(samples, host), padded(ids, T, side, text_.eos_id, host), mask_of(ids, T, side, host),
          Tensor()};
}

Tensor QuestionCollator::answers(std::span<const Sample> samples, const Device& host) const {
  const auto ids = rows_of(samples, [](const Sample& sample) { return sample.answer_ids; });
  return padded(ids, longest(ids), Side::left, text_.eos_id, host);
}

}  // namespace nanovlm
