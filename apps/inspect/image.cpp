// inspect image: a picture as it is stored, and as the model sees it.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/output.h"
#include "apps/inspect/sections.h"
#include "data/image.h"
#include "engine/file.h"
#include "engine/safetensors.h"
#include "hub/digest.h"
#include "model/config.h"

namespace nanovlm::inspect {
namespace {

struct Settings {
  std::string file, config, out;
  std::optional<int64_t> size;
  bool upright = false, json = false;
};

struct Seen {
  std::string format, mode;  // mode: Pillow's word for how pixels are stored, empty where it is not known
  int64_t bytes = 0;
  int orientation = 1;
  Image whole, resized;
  std::vector<uint8_t> chw;  // resized, [3, S, S]
};

// Of the formats whose header says it at a fixed place or in one marker.
std::string mode_of(const std::string& format, std::span<const uint8_t> bytes) {
  if (format == "PNG" && bytes.size() > 25) {
    const int depth = bytes[24], type = bytes[25];
    if (type == 0) return depth == 1 ? "1" : depth == 16 ? "I;16" : "L";
    return type == 2 ? "RGB" : type == 3 ? "P" : type == 4 ? "LA" : type == 6 ? "RGBA" : "";
  }
  if (format != "JPEG") return "";
  // Markers are FF, a type, and a length that counts itself; the frame header holds the number of components.
  for (size_t at = 2; at + 9 < bytes.size() && bytes[at] == 0xff;) {
    const int type = bytes[at + 1];
    const bool is_frame = type >= 0xc0 && type <= 0xcf && type != 0xc4 && type != 0xc8 && type != 0xcc;
    if (is_frame) return bytes[at + 9] == 1 ? "L" : bytes[at + 9] == 4 ? "CMYK" : "RGB";
    at += type == 0xff ? 1 : 2 + (size_t{bytes[at + 2]} << 8 | bytes[at + 3]);
  }
  return "";
}

int size_of(const Settings& s) {
  if (s.size) return static_cast<int>(*s.size);
  if (s.config.empty()) return static_cast<int>(VLMConfig().vit_img_size);
  std::vector<std::string> warnings;
  return static_cast<int>(load_config(s.config, warnings).vit_img_size);
}

Seen look(const Settings& s) {
  Seen seen;
  const int S = size_of(s);
  const std::vector<uint8_t> bytes = File::open(s.file).read_all(ImageLimits().max_bytes);
  seen.bytes = static_cast<int64_t>(bytes.size());
  seen.whole = decode_image(bytes, s.file);
  seen.format = image_format(bytes);
  seen.mode = mode_of(seen.format, bytes);
  seen.orientation = exif_orientation(bytes);
  if (s.upright) seen.whole = apply_orientation(std::move(seen.whole), seen.orientation);
  seen.resized = resize(seen.whole, S, S);
  seen.chw.resize(seen.resized.rgb.size());
  const size_t pixels = static_cast<size_t>(S) * static_cast<size_t>(S);
  for (size_t p = 0; p < pixels; ++p)
    for (size_t c = 0; c < 3; ++c) seen.chw[c * pixels + p] = seen.resized.rgb[3 * p + c];
  return seen;
}

void write(const std::string& path, const Seen& seen) {
  if (!path.ends_with(".safetensors")) return write_png(path, seen.resized);
  const Device host = Device::open("cpu");
  const Tensor picture = empty({3, seen.resized.height, seen.resized.width}, DType::u8, host);
  copy_from_host(picture, seen.chw.data(), picture.bytes());
  write_safetensors(path, {{"image_u8", picture}});
}

double mean_of_channel(const Seen& seen, size_t c) {
  const size_t pixels = seen.chw.size() / 3;
  double sum = 0;
  for (size_t p = 0; p < pixels; ++p) sum += seen.chw[c * pixels + p];
  return sum / static_cast<double>(pixels) / 255;
}

void print_picture(const Image& image) {
  constexpr int kWidth = 56;
  const int side = std::clamp(image.width / 2 * 2, 2, kWidth);
  const Image small = resize(image, side, side);
  const auto code = [&](int x, int y) {
    const uint8_t* p = &small.rgb[3 * static_cast<size_t>(y * small.width + x)];
    return text(int{p[0]}, ";", int{p[1]}, ";", int{p[2]});
  };
  // A half block shows two pixels: the upper in the colour of the text, the lower in that of the background.
  for (int y = 0; y + 1 < small.height; y += 2) {
    for (int x = 0; x < small.width; ++x)
      std::cout << "\x1b[38;2;" << code(x, y) << "m\x1b[48;2;" << code(x, y + 1) << "m\u2580";
    std::cout << "\x1b[0m\n";
  }
}

std::string sha256(const std::vector<uint8_t>& bytes) {
  hub::Digest digest = hub::Digest::sha256();
  digest.update(bytes.data(), static_cast<int64_t>(bytes.size()));
  return digest.hex();
}

void print_text(const Settings& s, const Seen& seen) {
  Table table({{""}, {""}});
  table.row({"file", s.file + " (" + in_bytes(seen.bytes) + ")"});
  table.row({"format", seen.format + (seen.mode.empty() ? "" : ", " + seen.mode)});
  table.row({"size", text(seen.whole.width, " x ", seen.whole.height)});
  if (seen.orientation != 1)
    table.row({"orientation", text("EXIF ", seen.orientation,
                                   s.upright ? ", turned upright as in training" : ", not applied, as in generate")});
  table.row({"the model sees", text(seen.resized.width, " x ", seen.resized.height, " RGB, values in [0, 1]")});
  table.row({"mean R G B", fixed(mean_of_channel(seen, 0), 4) + "  " + fixed(mean_of_channel(seen, 1), 4) + "  " +
                               fixed(mean_of_channel(seen, 2), 4)});
  table.row({"sha256, decoded", sha256(seen.whole.rgb)});
  table.row({"sha256, seen", sha256(seen.chw)});
  table.print();
  if (colours_wanted()) print_picture(seen.resized);
}

nlohmann::ordered_json to_json(const Settings& s, const Seen& seen) {
  nlohmann::ordered_json json = {{"file", s.file}, {"bytes", seen.bytes}, {"format", seen.format}};
  if (seen.mode.empty())
    json["mode"] = nullptr;
  else
    json["mode"] = seen.mode;
  json.update({{"width", seen.whole.width},
               {"height", seen.whole.height},
               {"orientation", seen.orientation},
               {"upright", s.upright},
               {"rgb_sha256", sha256(seen.whole.rgb)},
               {"size", seen.resized.width},
               {"sha256", sha256(seen.chw)},
               {"mean", {mean_of_channel(seen, 0), mean_of_channel(seen, 1), mean_of_channel(seen, 2)}}});
  return json;
}

void inspect_image(const Settings& s) {
  const Seen seen = look(s);
  if (!s.out.empty()) write(s.out, seen);
  if (s.json)
    print_json(to_json(s, seen));
  else
    print_text(s, seen);
}

}  // namespace

void add_image(CommandLine& line) {
  const auto s = std::make_shared<Settings>();
  CommandLine section =
      line.section("image", "a picture, as stored and as the model sees it", [s] { inspect_image(*s); });
  section.option("FILE", s->file, "the picture").required();
  const CommandLine::Option size = section.option("--size", s->size, "side of the model's picture").in(1, 8192);
  section.option("--config", s->config, "config.json or checkpoint that says the side; else 224").excludes(size);
  section.flag("--upright", s->upright, "apply the EXIF orientation, as training does and generate does not");
  section.option("--out", s->out, "write what the model sees: .png, or .safetensors with image_u8 [3, S, S]");
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace nanovlm::inspect
