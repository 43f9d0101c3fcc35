#include "model/generate.h"

#include <algorithm>
#include <optional>

namespace nanovlm {
namespace {

KvCache make_cache(const VisionLanguageModel& model, const Layout& layout, int64_t B, int64_t new_tokens, DType dtype) {
  KvCache cache;
  for (size_t b = 0; b + 1 < layout.bounds.size(); ++b)
    cache.lengths.push_back(layout.bounds[b + 1] - layout.bounds[b]);
  cache.capacity = *std::max_element(cache.lengths.begin(), cache.lengths.end()) + new_tokens;
  cache.lengths.resize(static_cast<size_t>(B), cache.lengths[0]);
  const int64_t width = model.config.lm_n_kv_heads * model.config.lm_head_dim();
  const MemoryScope scope(model.device(), MemoryClass::workspace);
  for (int64_t i = 0; i < model.config.lm_n_blocks; ++i)
    cache.blocks.push_back({empty({B, cache.capacity, width}, dtype, model.device()),
                            empty({B, cache.capacity, width}, dtype, model.device())});
  return cache;
}

// The place in the cache of every row of the layout.
std::vector<int32_t> cache_rows(const Layout& layout, int64_t capacity) {
  std::vector<int32_t> rows;
  for (size_t b = 0; b + 1 < layout.bounds.size(); ++b)
    for (int32_t r = layout.bounds[b]; r < layout.bounds[b + 1]; ++r)
      rows.push_back(static_cast<int32_t>(static_cast<int64_t>(b) * capacity + r - layout.bounds[b]));
  return rows;
}

// Fills sequences 1 .. B - 1 of the cache with what sequence 0 holds.
void copy_first_sequence(const KvCache& cache, int64_t B) {
  const int64_t n = cache.lengths[0];
  for (const BlockCache& block : cache.blocks)
    for (const Tensor* x : {&block.k, &block.v}) {
      const int64_t width = x->size(2);
      const Tensor first = x->slice(0, 0, 1).viewed({cache.capacity, width}).slice(0, 0, n);
      for (int64_t b = 1; b < B; ++b) {
        std::vector<int32_t> rows;
        for (int64_t r = 0; r < n; ++r) rows.push_back(static_cast<int32_t>(b * cache.capacity + r));
        write_rows(first, from_host(rows, {n}, x->device()), *x);
      }
    }
}

// The row of each sequence's last token; all B sequences are the first one where the layout holds no more.
std::vector<int32_t> last_rows(const Layout& layout, int64_t B) {
  std::vector<int32_t> rows;
  for (int64_t b = 0; b < B; ++b) rows.push_back(layout.bounds[static_cast<size_t>(std::min(b, layout.B - 1)) + 1] - 1);
  return rows;
}

// One token more for every sequence: their logits [B, V].
class Decoder {
 public:
  Decoder(const VisionLanguageModel& model, KvCache& cache, const Layout& layout, const RopeTable& rope,
          const Forward& run)
      : model_(model), cache_(cache), rope_(rope), run_(run) {
    for (size_t b = 0; b < cache.lengths.size(); ++b) {
      const size_t source = b + 1 < layout.bounds.size() ? b : 0;
      positions_.push_back(layout.positions[static_cast<size_t>(layout.bounds[source + 1]) - 1]);
    }
  }

  Tensor step(const std::vector<int32_t>& tokens) {
    const int64_t B = static_cast<int64_t>(tokens.size());
    const Device& device = model_.device();
    std::vector<int32_t> rows;
    for (int64_t b = 0; b < B; ++b) {
      const size_t i = static_cast<size_t>(b);
      ++positions_[i];
      rows.push_back(static_cast<int32_t>(b * cache_.capacity + cache_.lengths[i]++));
    }
    Segments one_row_each;
    one_row_each.positions = from_host(positions_, {B}, device);
    const Tensor h = model_.decoder(embedding(model_.decoder.token_embedding, tokens), one_row_each, rope_, run_,
                                    &cache_, from_host(rows, {B}, device), from_host(cache_.lengths, {B}, device));
    return model_.decoder.logits(h, run_);
  }

 private:
  const VisionLanguageModel& model_;
  KvCache& cache_;
  const RopeTable& rope_;
  const Forward& run_;
  std::vector<int32_t> positions_;  // [B] of each sequence's newest token
};

// x, so many times below itself.
Tensor repeated(const Tensor& x, int64_t times) {
  if (times == 1) return x;
  const int64_t n = x.size(0);
  Shape shape = x.shape();
  shape[0] = times * n;
  const Tensor y = empty(shape, x.dtype(), x.device());
  for (int64_t i = 0; i < times; ++i) x.device().copy(y.slice(0, i * n, (i + 1) * n).data(), x.data(), x.bytes());
  return y;
}

// The same logits without a cache. Past lm_max_position_embeddings the frequencies depend on the length, so that every
// token turns all keys anew.
class Recomputation {
 public:
  Recomputation(const VisionLanguageModel& model, const Batch& prompt, int64_t B, const Forward& run)
      : model_(model), run_(run) {
    const int64_t T = prompt.input_ids.size(1), copies = B / prompt.size();
    const std::vector<int32_t> ids = to_host_i32(repeated(prompt.input_ids, copies));
    std::vector<uint8_t> mask(ids.size(), 1);
    if (prompt.attention_mask.defined())
      copy_to_host(repeated(prompt.attention_mask, copies), mask.data(), static_cast<int64_t>(mask.size()));
    for (int64_t b = 0; b < B; ++b) {
      ids_.emplace_back(ids.begin() + b * T, ids.begin() + (b + 1) * T);
      masks_.emplace_back(mask.begin() + b * T, mask.begin() + (b + 1) * T);
    }
    batch_.images = repeated(prompt.images, copies);
    batch_.vision = repeated(model.vision_encoder(to_device(prompt.images, model.device()), run), copies);
  }

  // `count` new tokens a sequence; the end token stands in for those that a sequence lacks.
  Tensor logits(const std::vector<std::vector<int32_t>>& texts, int64_t count) {
    const auto B = static_cast<int64_t>(ids_.size());
    std::vector<int32_t> ids;
    std::vector<uint8_t> mask;
    for (size_t b = 0; b < ids_.size(); ++b) {
      std::vector<int32_t> text = texts[b];
      text.resize(static_cast<size_t>(count), static_cast<int32_t>(model_.config.lm_eos_token_id));
      const auto end = std::find(masks_[b].rbegin(), masks_[b].rend(), 1).base() - masks_[b].begin();
      append(ids, ids_[b], end, text);
      append(mask, masks_[b], end, std::vector<uint8_t>(text.size(), 1));
    }
    const Device host = Device::open("cpu");
    const int64_t T = static_cast<int64_t>(ids.size()) / B;
    batch_.input_ids = from_host(ids, {B, T}, host);
    batch_.attention_mask = empty({B, T}, DType::u8, host);
    copy_from_host(batch_.attention_mask, mask.data(), batch_.attention_mask.bytes());
    const Layout layout =
        layout_of(batch_, model_.config.image_tokens(), model_.config.lm_vocab_size, Padding::packed, model_.device());
    const Inputs in = model_.inputs(batch_, layout);
    const Tensor h = model_.decoder(model_.embed(in, run_), in.texts, in.rope, run_);
    return model_.decoder.logits(gather_rows(h, last_rows(layout, B)), run_);
  }

 private:
  // `row` with `more` behind its last token, before the padding on its right.
  template <class T>
  static void append(std::vector<T>& to, const std::vector<T>& row, ptrdiff_t end, const std::vector<T>& more) {
    to.insert(to.end(), row.begin(), row.begin() + end);
    to.insert(to.end(), more.begin(), more.end());
    to.insert(to.end(), row.begin() + end, row.end());
  }

  const VisionLanguageModel& model_;
  const Forward& run_;
  std::vector<std::vector<int32_t>> ids_;  // [B] of the prompts
  std::vector<std::vector<uint8_t>> masks_;
  Batch batch_;
};

}  // namespace

std::vector<std::vector<int32_t>> generate(const VisionLanguageModel& model, const Batch& batch,
                                           const GenerateOptions& options, int64_t copies) {
  options.sampling.validate();
  check(options.max_new_tokens >= 0, "generate: max_new_tokens is ", options.max_new_tokens);
  check(copies >= 1 && (copies == 1 || batch.size() == 1), "generate: ", copies, " copies of a batch of ",
        batch.size());
  const NoGrad no_grad(model.device());
  Batch prompt = batch;
  prompt.labels = {};
  const Layout layout =
      layout_of(prompt, model.config.image_tokens(), model.config.lm_vocab_size, Padding::packed, model.device());
  const int64_t B = std::max(layout.B, copies);
  std::vector<std::vector<int32_t>> texts(static_cast<size_t>(B));
  if (options.max_new_tokens == 0) return texts;

  // Rows, of a cache or recomputed, are counted in 32 bits.
  check(options.max_new_tokens <= INT32_MAX - layout.T && B <= INT32_MAX / (layout.T + options.max_new_tokens),
        "generate: ", B, " sequences of ", layout.T, " tokens and ", options.max_new_tokens,
        " new ones: expected at most ", INT32_MAX, " in all");
  Forward run;
  run.dtype = options.dtype;
  // Tokens that can still be appended before the frequencies change with the length.
  const int64_t appended = options.max_new_tokens - 1;
  const int64_t cached = std::clamp<int64_t>(model.decoder.rotary_embd.max_positions - layout.T, 0, appended);
  KvCache cache = make_cache(model, layout, B, cached, options.dtype);
  const Inputs in = model.inputs(prompt, layout, cached);
  const std::vector<int32_t> rows = cache_rows(layout, cache.capacity);
  const Tensor h = model.decoder(model.embed(in, run), in.texts, in.rope, run, &cache,
                                 from_host(rows, {layout.rows()}, model.device()));
  if (copies > 1) copy_first_sequence(cache, B);
  Tensor logits = model.decoder.logits(gather_rows(h, last_rows(layout, B)), run);

  std::vector<Random> random;
  for (int64_t b = 0; b < B; ++b) random.emplace_back(options.seed, static_cast<uint64_t>(b));
  Decoder decoder(model, cache, layout, in.rope, run);
  std::optional<Recomputation> recomputation;
  std::vector<bool> ended(static_cast<size_t>(B), false);
  std::vector<int32_t> tokens(static_cast<size_t>(B), static_cast<int32_t>(model.config.lm_eos_token_id));
  for (int64_t step = 0; step < options.max_new_tokens; ++step) {
    if (step > cached && !recomputation) recomputation.emplace(model, prompt, B, run);
    if (step > 0) logits = step > cached ? recomputation->logits(texts, step) : decoder.step(tokens);
    if (options.on_logits) options.on_logits(logits);
    const std::vector<int32_t> chosen = sample(logits, options.sampling, random);
    for (int64_t b = 0; b < B; ++b) {
      const size_t i = static_cast<size_t>(b);
      if (ended[i]) continue;
      tokens[i] = chosen[i];
      texts[i].push_back(tokens[i]);
      if (options.on_token) options.on_token(b, tokens[i]);
      ended[i] = options.stop_at_eos && tokens[i] == model.config.lm_eos_token_id;
    }
    if (std::all_of(ended.begin(), ended.end(), [](bool done) { return done; })) break;
  }
  return texts;
}

}  // namespace nanovlm
