// generate: what a model says about a picture. Flags and output are those of nanoVLM's generate.py.
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/common/cli.h"
#include "apps/common/device_option.h"
#include "apps/common/evaluate.h"
#include "apps/common/loaded_model.h"
#include "apps/common/output.h"
#include "apps/common/pretrained.h"
#include "data/image.h"

using namespace nanovlm;

namespace {

struct Settings {
  CheckpointOption model;
  std::string image, tokenizer;
  std::string prompt = "What is this?", dtype = "f32";
  DeviceOption device;
  int64_t generations = 5, max_new_tokens = 20, top_k = 50, seed = 0;
  double top_p = 0.9, temperature = 0.5;
  bool greedy = false, fixed_length = false, json = false;
};

struct Timing {
  double load = 0, first_token = 0, total = 0;  // seconds since the start
};

void add_options(CommandLine& line, Settings& s) {
  s.model.add_to(line);
  line.option("--image", s.image, "the picture").required();
  line.option("--prompt", s.prompt, "the question");
  line.option("--generations", s.generations, "how many answers").in(1, 4096);
  line.option("--max_new_tokens", s.max_new_tokens, "tokens of an answer at most").in(0, 1 << 20);
  line.flag("--greedy", s.greedy, "always the likeliest token");
  line.option("--top_k", s.top_k, "choose among so many tokens; 0: all").in(0, 1 << 24);
  line.option("--top_p", s.top_p, "choose among the likeliest tokens up to this probability").in(0, 1);
  line.option("--temperature", s.temperature, "below 1: sharper; above: flatter").in(1e-6, 1e6);
  line.option("--seed", s.seed, "of the random choices").in(0, 1e15);
  line.flag("--fixed_length", s.fixed_length, "go on after the end token, as nanoVLM v1 does");
  line.option("--tokenizer", s.tokenizer,
              "tokenizer.json; else the checkpoint's own or that it names, else the one in assets/");
  line.option("--dtype", s.dtype, "of products").one_of({"f32", "bf16"});
  s.device.add_to(line);
  line.flag("--json", s.json, "one JSON object on standard output");
}

Batch question(const Settings& s, const Image& picture, const LoadedModel& loaded, const Device& host) {
  const int64_t S = loaded.model.config.vit_img_size;
  Batch batch;
  batch.images = empty({1, 3, S, S}, DType::f32, host);
  image_to_tensor(picture, static_cast<int>(S), batch.images.f32());
  const std::vector<int32_t> ids = loaded.text.tokenizer.encode(vqa_prompt(s.prompt));
  batch.input_ids = from_host(ids, {1, static_cast<int64_t>(ids.size())}, host);
  return batch;
}

void print_text(const Settings& s, const std::vector<std::string>& answers) {
  std::cout << "\nInput:\n  " << s.prompt << " \n\nOutputs:\n";
  for (size_t i = 0; i < answers.size(); ++i) std::cout << "  >> Generation " << i + 1 << ": " << answers[i] << "\n";
}

nlohmann::ordered_json to_json(const Settings& s, const std::vector<std::string>& answers,
                               const std::vector<std::vector<int32_t>>& tokens, const Timing& timing) {
  nlohmann::ordered_json result = {{"prompt", s.prompt}, {"image", s.image}};
  result["generations"] = nlohmann::ordered_json::array();
  int64_t count = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    result["generations"].push_back({{"text", answers[i]}, {"tokens", tokens[i]}});
    count += static_cast<int64_t>(tokens[i].size());
  }
  result["seconds"] = {{"load", timing.load}, {"first_token", timing.first_token}, {"total", timing.total}};
  const double decoding = timing.total - timing.first_token;
  const int64_t after_first = count - static_cast<int64_t>(tokens.size());
  if (after_first > 0 && decoding > 0)
    result["tokens_per_second"] = static_cast<double>(after_first) / decoding;
  else
    result["tokens_per_second"] = nullptr;
  return result;
}

void generate_answers(const Settings& s) {
  const Stopwatch watch;
  Timing timing;
  const std::string checkpoint = s.model.folder("generate");
  const Image picture = read_image(s.image);
  std::vector<std::string> warnings;
  const Device device = s.device.open(warnings), host = Device::open("cpu");
  note("generate", warnings);
  if (!s.json)
    std::cout << "Using device: " << (device.kind() == DeviceKind::cpu ? "cpu" : s.device.name)
              << "\nLoading weights from: " << checkpoint << "\n"
              << std::flush;
  LoadedModel loaded = LoadedModel::load(checkpoint, s.tokenizer, device, dtype_of(s.dtype));
  note("generate", loaded.warnings);
  timing.load = watch.seconds();

  GenerateOptions options;
  options.sampling = {s.greedy, s.top_k, s.top_p, s.temperature};
  options.max_new_tokens = s.max_new_tokens;
  options.stop_at_eos = !s.fixed_length;
  options.seed = static_cast<uint64_t>(s.seed);
  options.dtype = dtype_of(s.dtype);
  options.on_token = [&](int64_t, int32_t) {
    if (timing.first_token == 0) timing.first_token = watch.seconds();
  };
  const auto tokens = generate(loaded.model, question(s, picture, loaded, host), options, s.generations);
  timing.total = watch.seconds();

  std::vector<std::string> answers;
  for (const auto& one : tokens) answers.push_back(text_of(loaded.text.tokenizer, one));
  if (s.json)
    print_json(to_json(s, answers, tokens, timing));
  else
    print_text(s, answers);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CommandLine line("generate", "Says what a model answers to a question about a picture.");
  add_options(line, settings);
  return line.run(argc, argv, [&] { generate_answers(settings); });
}
