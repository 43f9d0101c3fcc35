// inspect config: a config.json checked, and the numbers that follow from it.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/output.h"
#include "apps/inspect/sections.h"
#include "model/config.h"

namespace nanovlm::inspect {
namespace {

struct Settings {
  std::string file;
  bool json = false;
};

struct Derived {
  int64_t parameters, vision_blocks, decoder_blocks, embedding, projector;
  int64_t sequence;        // picture tokens and the longest text
  int64_t f32_bytes;       // the weights alone
  int64_t bf16_bytes;      // for generation
  int64_t training_bytes;  // weights, gradients and AdamW's two moments
  int64_t cache_bytes;     // keys and values of one token, f32
  double forward_gflop;    // products of one sample at full length, head included
};

// Multiply-adds count as two operations. A product with a weight does two for each of its numbers and each row;
// attention does four for each pair of rows and each channel, half of that where it is causal.
double forward_flop(const VLMConfig& c, const Derived& d) {
  const auto P = static_cast<double>(c.patches()), T = static_cast<double>(d.sequence);
  const auto I = static_cast<double>(c.image_tokens()), C = static_cast<double>(c.vit_hidden_dim),
             L = static_cast<double>(c.lm_hidden_dim), p = static_cast<double>(c.vit_patch_size);
  const double vision = 2 * P * (static_cast<double>(d.vision_blocks) + 3 * p * p * C) +
                        4 * P * P * C * static_cast<double>(c.vit_n_blocks);
  const double decoder = 2 * T * static_cast<double>(d.decoder_blocks) +
                         2 * T * T * L * static_cast<double>(c.lm_n_blocks) +
                         2 * T * L * static_cast<double>(c.lm_vocab_size);
  return vision + 2 * I * static_cast<double>(d.projector) + decoder;
}

Derived derive(const VLMConfig& c) {
  VLMConfig no_vision = c, no_decoder = c;
  no_vision.vit_n_blocks = no_decoder.lm_n_blocks = 0;
  Derived d{};
  d.parameters = c.parameter_count();
  d.vision_blocks = d.parameters - no_vision.parameter_count();
  d.decoder_blocks = d.parameters - no_decoder.parameter_count();
  d.embedding = c.lm_vocab_size * c.lm_hidden_dim * (c.lm_tie_weights ? 1 : 2);
  d.projector = c.mp_input_dim() * c.lm_hidden_dim;
  d.sequence = c.IMAGE_TOKEN_LENGTH + c.lm_max_length;
  d.f32_bytes = 4 * d.parameters;
  d.bf16_bytes = 2 * d.parameters;
  d.training_bytes = 16 * d.parameters;
  d.cache_bytes = 2 * 4 * c.lm_n_blocks * c.lm_n_kv_heads * c.lm_head_dim();
  d.forward_gflop = forward_flop(c, d) / 1e9;
  return d;
}

void print_text(const VLMConfig& c, const Derived& d) {
  Table fields({{"field"}, {"value"}});
  c.fields([&](const char* name, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, bool>)
      fields.row({name, value ? "true" : "false"});
    else
      fields.row({name, text(value)});
  });
  fields.print();
  std::cout << "\n";

  Table table({{"what follows"}, {""}});
  table.row({"picture",
             text(c.vit_img_size, " x ", c.vit_img_size, " -> ", c.patches_per_side(), " x ", c.patches_per_side(),
                  " patches -> ", c.image_tokens(), " tokens of ", c.mp_input_dim(), " numbers -> ", c.lm_hidden_dim)});
  table.row({"sequence", text(c.IMAGE_TOKEN_LENGTH, " picture + ", c.lm_max_length, " text = ", d.sequence)});
  table.row({"head size", text(c.vit_head_dim(), " vision, ", c.lm_head_dim(), " decoder (", c.lm_n_heads,
                               " query heads share ", c.lm_n_kv_heads, ")")});
  table.row({"parameters", with_separators(d.parameters)}, Colour::bold);
  const int64_t rest = d.parameters - d.vision_blocks - d.decoder_blocks - d.embedding - d.projector;
  for (const auto& [what, n] : {std::pair{"  vision blocks", d.vision_blocks},
                                {"  decoder blocks", d.decoder_blocks},
                                {"  token embedding and head", d.embedding},
                                {"  projector", d.projector},
                                {"  patches, positions, norms", rest}})
    table.row({what, with_separators(n)});
  table.row({"memory of the weights", in_bytes(d.f32_bytes) + " f32, " + in_bytes(d.bf16_bytes) + " bf16"});
  table.row({"with gradients and AdamW", in_bytes(d.training_bytes) + ", activations not counted"});
  table.row({"key-value cache", in_bytes(d.cache_bytes) + " a token in f32"});
  table.row({"forward pass", fixed(d.forward_gflop, 2) + " GFLOP a sample; a training step about three times that"});
  table.print();
}

nlohmann::ordered_json to_json(const VLMConfig& c, const Derived& d) {
  return {{"config", nlohmann::ordered_json::parse(to_json_text(c))},
          {"vit_head_dim", c.vit_head_dim()},
          {"lm_head_dim", c.lm_head_dim()},
          {"patches", c.patches()},
          {"image_tokens", c.image_tokens()},
          {"mp_input_dim", c.mp_input_dim()},
          {"sequence_length", d.sequence},
          {"parameters", d.parameters},
          {"weights_bytes", {{"f32", d.f32_bytes}, {"bf16", d.bf16_bytes}}},
          {"training_bytes", d.training_bytes},
          {"cache_bytes_per_token", d.cache_bytes},
          {"forward_gflop", d.forward_gflop}};
}

void inspect_config(const Settings& s) {
  std::vector<std::string> warnings;
  const VLMConfig config = load_config(s.file, warnings);
  note("inspect", warnings);
  const Derived derived = derive(config);
  if (!s.json) return print_text(config, derived);
  nlohmann::ordered_json json = to_json(config, derived);
  json["warnings"] = warnings;
  print_json(json);
}

}  // namespace

void add_config(CommandLine& line) {
  const auto s = std::make_shared<Settings>();
  CommandLine section =
      line.section("config", "a config.json, checked, and what follows from it", [s] { inspect_config(*s); });
  section.option("FILE", s->file, "config.json or the folder that holds it").required();
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace nanovlm::inspect
