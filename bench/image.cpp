// bench/image [--size 224] [--seconds 0.5] [--peer "python3 bench/peers/image.py --json"]
//
// From an encoded picture to its tensor, on one thread: what a data worker does for each sample. The stages are timed
// apart and together. With --peer, the reference's figures for the same pictures are printed beside ours.
#include <CLI/CLI.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "bench/common/harness.h"
#include "bench/common/peer.h"
#include "data/image.h"
#include "engine/file.h"
#include "engine/json.h"
#include "engine/safetensors.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

const std::string kFolder = NANOVLM_ASSETS "/../tests/fixtures/images";
constexpr const char* kNames[] = {"jpeg-640x480.jpg", "jpeg-1000x700.jpg", "png-225x223.png", "webp-lossy.webp"};

void require_exact(const SafetensorsFile& expected, const std::string& name, const Image& image) {
  constexpr int size = 32;
  std::vector<float> chw(3 * size * size);
  std::vector<uint8_t> bytes(chw.size());
  image_to_tensor(image, size, chw.data());
  expected.read_into(name, std::as_writable_bytes(std::span(bytes)));
  for (size_t i = 0; i < chw.size(); ++i)
    require(chw[i] == static_cast<float>(bytes[i]) / 255.0f, name + ": the tensor is not the reference's");
}

// The peer's milliseconds from bytes to tensor, by picture: median and least.
std::map<std::string, std::pair<double, double>> peer_figures(const std::string& command) {
  std::map<std::string, std::pair<double, double>> figures;
  if (command.empty()) return figures;
  const nlohmann::json document = run_peer(command);
  const JsonValue rows = JsonValue(document, "the peer's output")["rows"];
  for (int64_t i = 0; i < rows.array_size(); ++i)
    figures[rows.at(i)["picture"].string()] = {rows.at(i)["both_ms"].number(), rows.at(i)["least_ms"].number()};
  return figures;
}

}  // namespace

int main(int argc, char** argv) try {
  int size = 224, exit_code = 0;
  double seconds = 0.5;
  std::string peer;
  Report report("image");
  report.app().add_option("--size", size, "side of the tensor")->check(CLI::PositiveNumber);
  report.app().add_option("--seconds", seconds, "for each figure")->check(CLI::PositiveNumber);
  report.app().add_option("--peer", peer, "a command that prints the reference's figures as JSON");
  if (!report.parse(argc, argv, exit_code)) return exit_code;

  const SafetensorsFile expected = SafetensorsFile::open(kFolder + "/expected_32.safetensors");
  const auto peers = peer_figures(peer);
  std::vector<float> chw(static_cast<size_t>(3) * size * size);
  for (const std::string name : kNames) {
    const std::vector<uint8_t> bytes = File::open(kFolder + "/files/" + name).read_all(int64_t{1} << 20);
    const Image image = decode_image(bytes, name);
    require_exact(expected, name, image);
    const std::vector<Timing> timings =
        time_in_turns({[&] { decode_image(bytes, name); }, [&] { image_to_tensor(image, size, chw.data()); },
                       [&] { image_to_tensor(decode_image(bytes, name), size, chw.data()); }},
                      {.min_seconds = seconds});
    const Timing& both = timings[2];
    Report::Row row = {{"picture", value(name)},
                       {"decode ms", milliseconds(timings[0].median)},
                       {"tensor ms", milliseconds(timings[1].median)},
                       {"both ms", milliseconds(both.median)},
                       {"least ms", milliseconds(both.least)},
                       {"noise", value(both.noise(), 2)}};
    if (peers.contains(name)) {
      const auto& [median, least] = peers.at(name);
      row.push_back({"peer ms", milliseconds(median / 1e3)});
      row.push_back({"peer least ms", milliseconds(least / 1e3)});
      row.push_back({"times", value(median / 1e3 / both.median, 2)});
      row.push_back({"times least", value(least / 1e3 / both.least, 2)});
    }
    report.add(row);
  }
  report.note("one thread; size " + std::to_string(size) + " x " + std::to_string(size));
  return report.finish();
} catch (const std::exception&) {
  return failed("image", argc, argv);
}
