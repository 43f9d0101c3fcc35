// inspect text: a text's tokens.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/output.h"
#include "apps/inspect/sections.h"
#include "data/tokenizer.h"
#include "engine/file.h"
#include "engine/json.h"

namespace nanovlm::inspect {
namespace {

struct Settings {
  std::string tokenizer, lines;
  std::optional<std::string> string;
  bool json = false;
};

std::string ids_line(const std::vector<int32_t>& ids) { return nlohmann::json(ids).dump(); }

void inspect_lines(const Tokenizer& tokenizer, const std::string& path) {
  constexpr int64_t kMaxBytes = int64_t{4} << 30;
  const std::vector<uint8_t> bytes = File::open(path).read_all(kMaxBytes);
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  int64_t number = 0;
  for (size_t begin = 0, end; begin < all.size(); begin = end + 1) {
    end = std::min(all.find('\n', begin), all.size());
    const std::string where = text(path, ":", ++number);
    const nlohmann::json line = parse_json(all.substr(begin, end - begin), where);
    std::cout << ids_line(tokenizer.encode(JsonValue(line, where).string())) << "\n";
  }
}

void inspect_string(const Tokenizer& tokenizer, const std::string& string, bool json) {
  const Tokenizer::Encoding encoding = tokenizer.encode_with_offsets(string);
  const auto part = [&](size_t i) {
    const auto [first, second] = encoding.offsets[i];
    return string.substr(static_cast<size_t>(first), static_cast<size_t>(second - first));
  };
  if (json) {
    nlohmann::ordered_json result = {{"text", string}, {"ids", encoding.ids}};
    result["pieces"] = nlohmann::ordered_json::array();
    for (const int32_t id : encoding.ids) result["pieces"].push_back(tokenizer.piece(id));
    result["offsets"] = encoding.offsets;
    result["decoded"] = tokenizer.decode(encoding.ids);
    return print_json(result);
  }
  Table table({{"id", true}, {"piece"}, {"text"}});
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    const int32_t id = encoding.ids[i];
    table.row({std::to_string(id), tokenizer.piece(id), quoted(part(i))},
              tokenizer.is_special(id) ? Colour::yellow : Colour::none);
  }
  table.print();
  std::cout << "\n" << encoding.ids.size() << " tokens: " << ids_line(encoding.ids) << "\n";
  const std::string decoded = tokenizer.decode(encoding.ids);
  if (decoded != string) std::cout << paint("decodes to another text: ", Colour::yellow) << quoted(decoded) << "\n";
}

void inspect_text(const Settings& s) {
  if (s.lines.empty() == !s.string) throw UsageError("expected either STRING or --lines");
  const Tokenizer tokenizer = Tokenizer::load(s.tokenizer);
  if (s.string)
    inspect_string(tokenizer, *s.string, s.json);
  else
    inspect_lines(tokenizer, s.lines);
}

}  // namespace

void add_text(CommandLine& line) {
  const auto s = std::make_shared<Settings>();
  CommandLine section = line.section("text", "a text's tokens", [s] { inspect_text(*s); });
  section.option("--tokenizer", s->tokenizer, "tokenizer.json or its folder").required();
  section.option("STRING", s->string, "the text; after \"--\" if it begins with a dash");
  section.option("--lines", s->lines, "JSON Lines file of strings; prints one JSON array of ids a line");
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace nanovlm::inspect
