// inspect checkpoint: the tensors of a safetensors file; of a checkpoint folder also whether model and file agree.
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/output.h"
#include "apps/common/pretrained.h"
#include "apps/inspect/sections.h"
#include "engine/safetensors.h"
#include "model/weights.h"

namespace nanovlm::inspect {
namespace {

struct Settings {
  CheckpointOption model;
  bool json = false;
};

struct Line {
  std::string name;
  SafetensorsFile::Entry entry;
  bool has_norm = false;  // a dtype that we read as numbers
  double norm = 0, mean = 0, largest = 0;
};

Line look(const SafetensorsFile& file, const std::string& name) {
  Line line{name, file.entry(name)};
  line.has_norm = line.entry.is_float();
  if (!line.has_norm) return line;
  const std::vector<float> values = file.read_f32(name);
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    check(std::isfinite(values[i]), file.path(), ": tensor ", name, ": element ", i,
          ": expected a finite number, found ", values[i]);
    sum += values[i];
    line.largest = std::max<double>(line.largest, std::abs(values[i]));
  }
  line.norm = norm_of(values);
  line.mean = values.empty() ? 0 : sum / static_cast<double>(values.size());
  return line;
}

void print_text(const SafetensorsFile& file, const std::vector<Line>& lines, int64_t elements, int64_t bytes) {
  Table table({{"tensor"}, {"dtype"}, {"shape"}, {"norm", true}, {"mean", true}, {"largest", true}});
  for (const Line& line : lines) {
    const auto number = [&](double x, int digits) { return line.has_norm ? fixed(x, digits) : std::string(); };
    table.row({line.name, line.entry.dtype, text(line.entry.shape), number(line.norm, 4), number(line.mean, 6),
               number(line.largest, 4)});
  }
  table.print();
  std::cout << "\n";
  for (const auto& [key, value] : file.metadata()) std::cout << "metadata " << key << ": " << value << "\n";
  std::cout << paint(text(lines.size(), " tensors, ", with_separators(elements), " numbers, ", in_bytes(bytes)),
                     Colour::bold)
            << "\n";
}

nlohmann::ordered_json to_json(const SafetensorsFile& file, const std::vector<Line>& lines, int64_t elements,
                               int64_t bytes) {
  nlohmann::ordered_json json = {
      {"file", file.path()}, {"tensors", nlohmann::ordered_json::array()}, {"elements", elements}, {"bytes", bytes}};
  for (const Line& line : lines) {
    nlohmann::ordered_json one = {{"name", line.name}, {"dtype", line.entry.dtype}, {"shape", line.entry.shape}};
    if (line.has_norm) one.update({{"norm", line.norm}, {"mean", line.mean}, {"max_abs", line.largest}});
    json["tensors"].push_back(one);
  }
  json["metadata"] = file.metadata();
  return json;
}

void inspect_checkpoint(const Settings& s) {
  const std::string path = s.model.folder("inspect");
  const bool folder = std::filesystem::is_directory(path);
  std::optional<VisionLanguageModel> model;
  if (folder) {
    std::vector<std::string> warnings;
    model.emplace(load_checkpoint(path, Device::open("cpu"), warnings));
    note("inspect", warnings);
  }
  const SafetensorsFile file = SafetensorsFile::open(folder ? path + "/model.safetensors" : path);
  std::vector<Line> lines;
  int64_t elements = 0, bytes = 0;
  for (const auto& [name, entry] : file.entries()) {
    lines.push_back(look(file, name));
    elements += entry.shape.numel();
    bytes += entry.bytes();
  }
  if (s.json) {
    nlohmann::ordered_json json = to_json(file, lines, elements, bytes);
    if (model) json["parameters"] = model->parameter_count();
    return print_json(json);
  }
  print_text(file, lines, elements, bytes);
  if (model)
    std::cout << "every tensor of the model in config.json is there: " << with_separators(model->parameter_count())
              << " parameters\n";
}

}  // namespace

void add_checkpoint(CommandLine& line) {
  const auto s = std::make_shared<Settings>();
  CommandLine section = line.section("checkpoint", "the tensors of a file, or of a checkpoint and whether they fit",
                                     [s] { inspect_checkpoint(*s); });
  s->model.add_to(section, "PATH", "safetensors file, or folder with config.json and model.safetensors");
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace nanovlm::inspect
