#include "model/backbones.h"

#include <cmath>
#include <functional>
#include <set>

#include "engine/random.h"
#include "engine/safetensors_folder.h"

namespace nanovlm {
namespace {

using Names = std::vector<std::pair<std::string, std::string>>;  // ours, theirs

const std::string kOwnVision = "vision_encoder";  // in a nanoVLM checkpoint

const Names kVisionTop = {{"patch_embedding.conv.", "embeddings.patch_embedding."},
                          {"patch_embedding.position_embedding", "embeddings.position_embedding.weight"},
                          {"layer_norm.", "post_layernorm."}};
const Names kVisionBlock = {
    {"ln1.", "layer_norm1."}, {"ln2.", "layer_norm2."}, {"attn.", "self_attn."}, {"mlp.", "mlp."}};

const Names kLanguageTop = {
    {"token_embedding.", "model.embed_tokens."}, {"norm.", "model.norm."}, {"head.", "lm_head."}};
const Names kLanguageBlock = {{"norm1.", "input_layernorm."},
                              {"norm2.", "post_attention_layernorm."},
                              {"attn.out_proj.", "self_attn.o_proj."},
                              {"attn.", "self_attn."},
                              {"mlp.", "mlp."}};

// The published name of a parameter: the first of `names` that begins it is replaced.
std::string renamed(const std::string& name, const Names& names) {
  for (const auto& [ours, theirs] : names)
    if (name.starts_with(ours)) return theirs + name.substr(ours.size());
  fail("backbones: a parameter called ", name, " has no published name");
}

// The same for the parameters of a whole tower, whose blocks are called blocks.<i> here and `layers`<i> there.
std::string published(const std::string& name, const Names& top, const std::string& layers, const Names& block) {
  const std::string prefix = "blocks.";
  if (!name.starts_with(prefix)) return renamed(name, top);
  const size_t dot = name.find('.', prefix.size());
  return layers + name.substr(prefix.size(), dot + 1 - prefix.size()) + renamed(name.substr(dot + 1), block);
}

// The copies that a load consists of. All of them are checked before the first is made.
class Plan {
 public:
  explicit Plan(const SafetensorsFolder& folder) : folder_(folder) {}

  // The tensor `name` into `x`, which must have its shape.
  void copy(const std::string& name, const Tensor& x) {
    if (const SafetensorsFile* file = find(name, x.shape()); file && file->entry(name).shape != x.shape())
      problem(name, text("shape is ", file->entry(name).shape, ", expected ", x.shape()));
    else if (file)
      then([=] { file->read_f32_into({{name, x}}); });
  }

  // The file that holds `name`, which is from now on no stranger; null, and a problem, where there is none or its
  // numbers can't be read as floats.
  const SafetensorsFile* find(const std::string& name, const Shape& expected) {
    used_.insert(name);
    const SafetensorsFile* file = folder_.find(name);
    if (!file) problem(name, text("missing, expected ", expected));
    if (!file || file->entry(name).is_float()) return file;
    problem(name, text("dtype is ", file->entry(name).dtype, ", expected F32, BF16, F16 or F64"));
    return nullptr;
  }

  bool has(const std::string& name) const { return folder_.find(name) != nullptr; }
  void ignore(const std::string& name) { used_.insert(name); }
  void problem(const std::string& name, const std::string& what) { problems_ += "\n  " + name + ": " + what; }
  void then(std::function<void()> step) { steps_.push_back(std::move(step)); }

  // Tensors below `prefix` that nobody asked for: the file is of another architecture.
  void refuse_strangers(const std::string& prefix, const std::function<bool(const std::string&)>& harmless) {
    for (const auto& [name, unused] : folder_.names())
      if (name.starts_with(prefix) && !used_.contains(name) && !harmless(name))
        problem(name, "this model has no such parameter");
  }

  // Empty, or the file's name and every problem on a line of its own.
  std::string problems() const {
    return problems_.empty() ? "" : text("\n", folder_.path(), ": does not hold such a backbone:", problems_);
  }
  void run() const {
    for (const auto& step : steps_) step();
  }

 private:
  const SafetensorsFolder& folder_;
  std::set<std::string> used_;
  std::string problems_;
  std::vector<std::function<void()>> steps_;
};

int64_t side_of(int64_t patches) { return std::llround(std::sqrt(static_cast<double>(patches))); }
bool is_square(int64_t patches) { return patches > 0 && side_of(patches) * side_of(patches) == patches; }

// Query, key and value are three tensors there, one after the other in one tensor here.
void plan_qkv(Plan& plan, const std::string& theirs, const Tensor& x) {
  const std::string fused = "qkv_proj";
  const size_t at = theirs.find(fused);
  const int64_t rows = x.size(0) / 3;
  for (int64_t part = 0; part < 3; ++part)
    plan.copy(std::string(theirs).replace(at, fused.size(), std::string(1, "qkv"[part]) + "_proj"),
              x.detach().slice(0, part * rows, (part + 1) * rows));
}

// [P, C] or [1, P, C] there, [1, P, C] here.
void plan_positions(Plan& plan, const std::string& theirs, const Tensor& x, std::vector<std::string>& notes) {
  const int64_t P = x.size(1), C = x.size(2);
  const SafetensorsFile* file = plan.find(theirs, {P, C});
  if (!file) return;
  Shape shape = file->entry(theirs).shape;
  if (shape.size() == 3 && shape[0] == 1) shape.erase(shape.begin());
  if (shape == Shape{P, C}) {
    plan.then([=] { file->read_f32_into({{theirs, x}}); });
  } else if (shape.size() == 2 && shape[1] == C && is_square(shape[0])) {
    const int64_t from = side_of(shape[0]), to = side_of(P);
    notes.push_back(
        text("Resized the position embedding from ", from, " x ", from, " to ", to, " x ", to, " patches (bicubic)"));
    plan.then([=] {
      const Tensor stored = from_host(file->read_f32(theirs), {1, shape[0], C}, Device::open("cpu"));
      copy_from_host(x, resize_positions(stored, P).data(), x.bytes());
    });
  } else {
    plan.problem(theirs, text("shape is ", shape, ", expected ", Shape{P, C}, ", or another square number of rows"));
  }
}

// The vision tower of a nanoVLM checkpoint, whose names are ours.
void plan_own_vision(Plan& plan, ViT& vit, std::vector<std::string>& notes) {
  walk(vit, kOwnVision, [&](const std::string& name, Tensor& x) {
    name.ends_with("position_embedding") ? plan_positions(plan, name, x, notes) : plan.copy(name, x);
  });
  plan.refuse_strangers(kOwnVision, [](const std::string&) { return false; });
}

// SiglipVisionModel of transformers 5 saves its names without the prefix that every other file has.
void plan_vision(Plan& plan, ViT& vit, std::vector<std::string>& notes) {
  if (plan.has(kOwnVision + ".patch_embedding.conv.weight")) return plan_own_vision(plan, vit, notes);
  const std::string prefix = plan.has("embeddings.patch_embedding.weight") ? "" : "vision_model.";
  walk(vit, "", [&](const std::string& name, Tensor& x) {
    const std::string theirs = prefix + published(name, kVisionTop, "encoder.layers.", kVisionBlock);
    if (name.find("qkv_proj") != name.npos)
      plan_qkv(plan, theirs, x);
    else if (name.ends_with("position_embedding"))
      plan_positions(plan, theirs, x, notes);
    else
      plan.copy(theirs, x);
  });
  plan.refuse_strangers(prefix, [&](const std::string& name) {
    return name.starts_with(prefix + "head.") || name.ends_with("position_ids");
  });
}

// Rows of the vocabulary: as many as the file has; the others are drawn.
void plan_rows(Plan& plan, const std::string& theirs, const std::string& what, const Tensor& x, uint64_t seed,
               std::vector<std::string>& notes) {
  const SafetensorsFile* file = plan.find(theirs, x.shape());
  if (!file) return;
  const int64_t V = x.size(0), L = x.size(1);
  const Shape shape = file->entry(theirs).shape;
  if (shape.size() != 2 || shape[1] != L || shape[0] > V) {
    plan.problem(theirs, text("shape is ", shape, ", expected ", x.shape(), ", or fewer rows"));
    return;
  }
  const int64_t known = shape[0];
  plan.then([=] { file->read_f32_into({{theirs, x.detach().slice(0, 0, known)}}); });
  if (known == V) return;
  notes.push_back(text("Extending ", what, " from ", known, " to ", V));
  notes.push_back(text("Initialized ", V - known, " new ", what));
  plan.then([=] {
    Random random(seed, hash_of("backbones: " + what));
    const Tensor drawn = random_normal({V - known, L}, 0.02f, random, Device::open("cpu"));
    copy_from_host(x.detach().slice(0, known, V), drawn.data(), drawn.bytes());
  });
}

void plan_language(Plan& plan, LanguageModel& decoder, uint64_t seed, std::vector<std::string>& notes) {
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  walk(decoder, "", [&](const std::string& name, Tensor& x) {
    const std::string theirs = published(name, kLanguageTop, "model.layers.", kLanguageBlock);
    if (theirs == embedding) {
      plan_rows(plan, theirs, "token embeddings", x, seed, notes);
    } else if (theirs == head && !plan.has(head)) {
      notes.push_back("The file has no lm_head.weight: the untied head begins as a copy of the embedding");
      plan_rows(plan, embedding, "rows of the head", x, seed, notes);
    } else if (theirs == head) {
      plan_rows(plan, theirs, "rows of the head", x, seed, notes);
    } else {
      plan.copy(theirs, x);
    }
  });
  if (decoder.tied() && plan.has(head))
    notes.push_back("lm_head.weight is not read: lm_tie_weights makes the embedding the head");
  plan.refuse_strangers("model.", [](const std::string& name) { return name.ends_with("rotary_emb.inv_freq"); });
}

template <class Module>
std::string loaded(const std::string& folder, Module& module) {
  int64_t count = 0;
  walk(module, "", [&](const std::string&, const Tensor& x) { count += x.numel(); });
  return text("Successfully loaded ", folder, " weights from safetensors. Model has ", count, " parameters.");
}

// Weight of the neighbour at `distance` pixels.
double cubic(double distance) {
  constexpr double a = -0.75;
  const double x = std::abs(distance);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

// A row of numbers at another length: for each new place its four neighbours and their weights.
struct Neighbours {
  std::vector<int64_t> index;
  std::vector<double> weight;

  Neighbours(int64_t from, int64_t to) {
    for (int64_t i = 0; i < to; ++i) {
      const double place = (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
      const auto first = static_cast<int64_t>(std::floor(place)) - 1;
      for (int64_t k = first; k < first + 4; ++k) {
        index.push_back(std::clamp<int64_t>(k, 0, from - 1));
        weight.push_back(cubic(place - static_cast<double>(k)));
      }
    }
  }
};

}  // namespace

Tensor resize_positions(const Tensor& positions, int64_t patches) {
  check(positions.rank() == 3 && positions.size(0) == 1 && is_square(positions.size(1)) && is_square(patches),
        "resize_positions: from ", positions.shape(), " to ", patches,
        " patches, but both must be square numbers, of a tensor [1, P, C]");
  const int64_t C = positions.size(2), n = side_of(positions.size(1)), m = side_of(patches);
  const std::vector<float> in = to_host(positions);
  std::vector<float> out(static_cast<size_t>(patches * C));
  const Neighbours near(n, m);
  for (int64_t y = 0; y < m; ++y)
    for (int64_t x = 0; x < m; ++x)
      for (int64_t c = 0; c < C; ++c) {
        double sum = 0;
        for (int64_t i = 4 * y; i < 4 * y + 4; ++i)
          for (int64_t j = 4 * x; j < 4 * x + 4; ++j) {
            const int64_t row = near.index[static_cast<size_t>(i)], column = near.index[static_cast<size_t>(j)];
            sum += near.weight[static_cast<size_t>(i)] * near.weight[static_cast<size_t>(j)] *
                   in[static_cast<size_t>((row * n + column) * C + c)];
          }
        out[static_cast<size_t>((y * m + x) * C + c)] = static_cast<float>(sum);
      }
  return from_host(out, {1, patches, C}, positions.device());
}

void load_backbones(const Backbones& backbones, VisionLanguageModel& model, uint64_t seed,
                    std::vector<std::string>& notes) {
  std::vector<SafetensorsFolder> folders;
  std::vector<Plan> plans;
  std::vector<std::string> news;
  folders.reserve(2);  // a plan refers to its folder
  std::string problems;
  const auto plan = [&](const std::string& folder, const auto& f) {
    if (folder.empty()) return;
    try {
      folders.push_back(SafetensorsFolder::open(folder));
      plans.emplace_back(folders.back());
      f(plans.back());
      problems += plans.back().problems();
    } catch (const Error& error) {
      problems += text("\n", error.what());
    }
  };
  plan(backbones.vision, [&](Plan& p) {
    plan_vision(p, model.vision_encoder, news);
    news.push_back(loaded(backbones.vision, model.vision_encoder));
  });
  plan(backbones.language, [&](Plan& p) {
    plan_language(p, model.decoder, seed, news);
    news.push_back(loaded(backbones.language, model.decoder));
  });
  check(problems.empty(), "the backbones can't be loaded:", problems);
  for (const Plan& ready : plans) ready.run();
  notes.insert(notes.end(), news.begin(), news.end());
}

}  // namespace nanovlm
