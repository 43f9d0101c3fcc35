#include "model/generate.h"

#include <algorithm>

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

  Forward run;
  run.dtype = options.dtype;
  KvCache cache = make_cache(model, layout, B, options.max_new_tokens, options.dtype);
  const Inputs in = model.inputs(prompt, layout, options.max_new_tokens);
  const std::vector<int32_t> rows = cache_rows(layout, cache.capacity);
  const Tensor h = model.decoder(model.embed(in, run), in.texts, in.rope, run, &cache,
                                 from_host(rows, {layout.rows()}, model.device()));
  if (copies > 1) copy_first_sequence(cache, B);
  std::vector<int32_t> last_rows;
  for (int64_t b = 0; b < B; ++b)
    last_rows.push_back(layout.bounds[static_cast<size_t>(std::min(b, layout.B - 1)) + 1] - 1);
  Tensor logits = model.decoder.logits(gather_rows(h, last_rows), run);

  std::vector<Random> random;
  for (int64_t b = 0; b < B; ++b) random.emplace_back(options.seed, static_cast<uint64_t>(b));
  Decoder decoder(model, cache, layout, in.rope, run);
  std::vector<bool> ended(static_cast<size_t>(B), false);
  std::vector<int32_t> tokens(static_cast<size_t>(B), static_cast<int32_t>(model.config.lm_eos_token_id));
  for (int64_t step = 0; step < options.max_new_tokens; ++step) {
    if (step > 0) logits = decoder.step(tokens);
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
