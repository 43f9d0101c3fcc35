// inspect forward: one forward pass over a batch, every stage's shape, and on request every number.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/device_option.h"
#include "apps/common/loaded_model.h"
#include "apps/common/output.h"
#include "apps/common/pretrained.h"
#include "apps/inspect/sections.h"
#include "data/batch_file.h"
#include "engine/autograd.h"
#include "model/weights.h"

namespace nanovlm::inspect {
namespace {

struct Settings {
  CheckpointOption model;
  std::string batch, out, dtype = "f32";
  DeviceOption device;
  int64_t index = 0;
  bool gradients = false, dense = false, packed = false, json = false;
};

using Named = std::vector<std::pair<std::string, Tensor>>;

struct Result {
  Named activations, gradients;
  double loss = 0;
};

bool begins_with(const std::string& name, const char* start) { return name.rfind(start, 0) == 0; }

// [B * h * w, C] -> [B, C, h, w], PyTorch's order.
Tensor channels_first(const Tensor& rows, int64_t B, int64_t side) {
  const int64_t C = rows.size(1), P = side * side;
  const std::vector<float> from = to_host(rows);
  std::vector<float> to(from.size());
  for (int64_t b = 0; b < B; ++b)
    for (int64_t p = 0; p < P; ++p)
      for (int64_t c = 0; c < C; ++c)
        to[static_cast<size_t>((b * C + c) * P + p)] = from[static_cast<size_t>((b * P + p) * C + c)];
  return from_host(to, {B, C, side, side}, rows.device());
}

// Activations come as rows. In a dense pass they get back the shapes that the reference's have.
class Recorder {
 public:
  Recorder(const VLMConfig& config, int64_t B, Padding padding) : config_(config), B_(B), padding_(padding) {}

  void operator()(const std::string& name, const Tensor& x) {
    if (!x.defined()) return;
    if (begins_with(name, "rope.")) {
      add(name, x.viewed({1, x.size(0), x.size(1)}));
    } else if (name == "vision.patch_conv") {
      add(name, channels_first(x, B_, config_.patches_per_side()));
    } else if (begins_with(name, "vision.") || begins_with(name, "mp.") || padding_ == Padding::dense) {
      add(name, x.viewed({B_, x.size(0) / B_, x.size(1)}));
    } else {
      add(name, x);
    }
  }
  const Named& activations() const { return activations_; }

 private:
  void add(const std::string& name, const Tensor& x) { activations_.emplace_back(name, x.detach()); }

  const VLMConfig& config_;
  int64_t B_;
  Padding padding_;
  Named activations_;
};

// [B, T, V] -> its last T - picture tokens, the places of the text
Tensor text_part(const Tensor& head, int64_t picture_tokens) {
  const int64_t B = head.size(0), T = head.size(1), V = head.size(2);
  const Tensor text = empty({B, T - picture_tokens, V}, head.dtype(), head.device());
  for (int64_t b = 0; b < B; ++b) {
    const Tensor from = head.slice(0, b, b + 1).slice(1, picture_tokens, T);
    std::vector<float> values = to_host(from);
    copy_from_host(text.slice(0, b, b + 1), values.data(), text.bytes() / B);
  }
  return text;
}

// The loss, and with it gradients and packed activations; a dense pass through the head shows the dense ones.
Result forward(VisionLanguageModel& model, const Batch& batch, const Settings& s) {
  const Padding padding = s.packed ? Padding::packed : Padding::dense;
  Recorder recorder(model.config, batch.size(), padding);
  Forward quiet, shown;
  quiet.dtype = shown.dtype = dtype_of(s.dtype);
  shown.trace = [&](const std::string& name, const Tensor& x) { recorder(name, x); };

  Result result;
  if (padding == Padding::dense) {
    const NoGrad no_grad(model.device());
    model.logits(batch, shown);
  }
  const Forward& run = padding == Padding::dense ? quiet : shown;
  if (s.gradients) {
    const Tensor loss = model.loss(batch, run, padding);
    result.loss = loss.item();
    backward(loss);
    walk(model, "", [&](const std::string& name, Tensor& x) {
      result.gradients.emplace_back(name, x.grad().defined() ? x.grad() : zeros_like(x.detach()));
    });
  } else {
    const NoGrad no_grad(model.device());
    result.loss = model.loss(batch, run, padding).item();
  }
  result.activations = recorder.activations();
  if (padding == Padding::dense)
    result.activations.emplace_back("logits", text_part(result.activations.back().second, model.config.image_tokens()));
  return result;
}

const Tensor& find(const Named& tensors, const std::string& name) {
  for (const auto& [key, x] : tensors)
    if (key == name) return x;
  fail("forward: no activation ", name);
}

// The milestones of the way through the model.
void print_stages(const Batch& batch, const Named& activations) {
  Table stages({{""}, {""}});
  const auto stage = [&](const char* title, const std::string& name) {
    stages.row({title, text(find(activations, name).shape())});
  };
  stages.row({"VLM - image shape", text(batch.images.shape())});
  stage("after patch_embedding", "vision.patch_embedding");
  stage("after vision_encoder", "vision.post_layernorm");
  stage("Before pixel_shuffle", "vision.post_layernorm");
  stage("After pixel_shuffle", "mp.pixel_shuffle");
  stage("after modality projector", "mp.proj");
  stage("after token_embedding", "decoder.token_embedding");
  stage("after concatenation", "decoder.inputs_embeds");
  stage("after decoder", "decoder.norm");
  for (const auto& [name, x] : activations)
    if (name == "logits") stages.row({"logits", text(x.shape())});
  stages.print();
}

void print_tensors(const char* title, const Named& tensors) {
  Table table({{title}, {"shape"}, {"dtype"}, {"norm", true}, {"largest", true}});
  for (const auto& [name, x] : tensors) {
    const std::vector<float> values = to_host(x);
    float largest = 0;
    for (const float v : values) largest = std::isnan(v) ? v : std::max(largest, std::abs(v));
    table.row({name, text(x.shape()), name_of(x.dtype()), fixed(norm_of(values), 4), fixed(largest, 4)});
  }
  std::cout << "\n";
  table.print();
}

nlohmann::ordered_json to_json(const Named& tensors) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& [name, x] : tensors)
    list.push_back(
        {{"name", name}, {"shape", x.shape()}, {"dtype", name_of(x.dtype())}, {"norm", norm_of(to_host(x))}});
  return list;
}

double norm_of_all(const Named& tensors) {
  double sum = 0;
  for (const auto& [name, x] : tensors) sum += std::pow(norm_of(to_host(x)), 2);
  return std::sqrt(sum);
}

void write(const std::string& path, const Result& result, const Device& device) {
  Named tensors = result.activations;
  tensors.emplace_back("loss", from_host(std::vector<float>{static_cast<float>(result.loss)}, {}, device));
  tensors.insert(tensors.end(), result.gradients.begin(), result.gradients.end());
  write_safetensors(path, tensors);
}

void inspect_forward(const Settings& s) {
  const BatchFile file(s.batch);
  check(s.index < file.size(), s.batch, ": expected a batch number below ", file.size(), ", found --index ", s.index);
  if (file.size() > 1) note("inspect", {text(s.batch, " holds ", file.size(), " batches; this is number ", s.index)});
  const Batch batch = file.read(s.index);
  check(batch.size() > 0 && batch.input_ids.numel() > 0, s.batch, ": expected a sample with tokens, found input_ids ",
        batch.input_ids.shape());
  std::vector<std::string> warnings;
  const Device device = s.device.open(warnings);
  VisionLanguageModel model = load_checkpoint(s.model.folder("inspect"), device, warnings);
  note("inspect", warnings);
  const Result result = forward(model, batch, s);
  if (!s.out.empty()) write(s.out, result, device);

  if (s.json) {
    nlohmann::ordered_json json = {
        {"checkpoint", s.model.name()}, {"batch", s.batch},    {"dtype", s.dtype},
        {"packed", s.packed},           {"loss", result.loss}, {"activations", to_json(result.activations)}};
    if (s.gradients)
      json.update({{"grad_norm", norm_of_all(result.gradients)}, {"gradients", to_json(result.gradients)}});
    return print_json(json);
  }
  print_stages(batch, result.activations);
  print_tensors("activation", result.activations);
  if (s.gradients) print_tensors("gradient", result.gradients);
  std::cout << "\n" << paint("loss " + fixed(result.loss, 6), Colour::bold);
  if (s.gradients) std::cout << ", gradient norm " << fixed(norm_of_all(result.gradients), 4);
  std::cout << "\n";
}

}  // namespace

void add_forward(CommandLine& line) {
  const auto s = std::make_shared<Settings>();
  CommandLine section = line.section("forward", "a forward pass, stage by stage", [s] { inspect_forward(*s); });
  s->model.add_to(section);
  section.option("--batch", s->batch, "safetensors with images or images_u8, input_ids, attention_mask if any, labels")
      .required();
  section.option("--index", s->index, "which batch, where the file holds several").in(0, 1e15);
  section.option("--out", s->out, "write activations, logits and loss (and gradients) to this safetensors file");
  section.flag("--gradients", s->gradients, "compute the gradient of every parameter too");
  const CommandLine::Option dense = section.flag("--dense", s->dense, "padded rows too, as the reference (default)");
  section.flag("--packed", s->packed, "leave padded rows out: decoder activations are [rows, C]").excludes(dense);
  section.option("--dtype", s->dtype, "of products").one_of({"f32", "bf16"});
  s->device.add_to(section);
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace nanovlm::inspect
