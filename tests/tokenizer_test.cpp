// The tokenizer against Hugging Face's: every id and every decoded character, for thousands of strings and for settings
// that the committed tokenizer does not use.
#include "data/tokenizer.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <thread>

#include <unistd.h>

#include "data/byte_pair_merger.h"
#include "data/unicode.h"
#include "engine/json.h"
#include "tests/support/catch.h"
#include "tests/support/messages.h"

using namespace nanovlm;
using nlohmann::json;
using Ids = std::vector<int32_t>;

namespace {

const std::string kFolder = NANOVLM_FIXTURES "/tokenizer";
const std::string kLarge = NANOVLM_ASSETS "/tokenizer";
const std::string kTiny = kFolder + "/tiny";

std::vector<json> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(parse_json(line, path));
  REQUIRE(!lines.empty());
  return lines;
}

// A tokenizer.json that lives as long as the object.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content)
      : path_(std::filesystem::temp_directory_path() / ("nanovlm-tokenizer-" + std::to_string(getpid()) + ".json")) {
    std::ofstream(path_, std::ios::binary) << content;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

Tokenizer load_text(const std::string& content) { return Tokenizer::load(TemporaryFile(content).path()); }

// Ascending ranges inside the text, whose gaps hold only bytes without a token.
bool in_order(const Tokenizer::Encoding& encoding, const std::string& text) {
  int done = 0;
  for (const auto& [begin, end] : encoding.offsets) {
    if (begin < done || end < begin || end > static_cast<int>(text.size())) return false;
    done = end;
  }
  return encoding.offsets.size() == encoding.ids.size();
}

// A line of a fixture: text, ids and, where they differ from the text, decoded and decoded_skip_special.
void check_string(const Tokenizer& tokenizer, const json& line) {
  const std::string text = line["text"];
  CAPTURE(text);
  const Tokenizer::Encoding encoding = tokenizer.encode_with_offsets(text);
  CHECK(encoding.ids == line["ids"].get<Ids>());
  CHECK(tokenizer.encode(text) == encoding.ids);
  CHECK(tokenizer.decode(encoding.ids) == line.value("decoded", text));
  CHECK(tokenizer.decode(encoding.ids, true) == line.value("decoded_skip_special", text));
  CHECK(in_order(encoding, text));
}

json tiny_document() { return read_json_file(kTiny + "/tokenizer.json"); }

// The message with which a changed tiny tokenizer is refused, without its path.
template <class F>
std::string refusal(F&& change) {
  json document = tiny_document();
  change(document);
  const TemporaryFile file(document.dump());
  const std::string message = message_of([&] { Tokenizer::load(file.path()); });
  REQUIRE(message.starts_with(file.path() + ": "));
  return message.substr(file.path().size() + 2);
}

}  // namespace

TEST_CASE("every string of the fixtures has the reference's ids and texts") {
  const Tokenizer large = Tokenizer::load(kLarge), tiny = Tokenizer::load(kTiny + "/tokenizer.json");
  CHECK(large.vocab_size() == 49152);
  CHECK(tiny.vocab_size() == 512);
  for (const json& line : lines_of(kFolder + "/strings.jsonl")) check_string(large, line);
  for (const json& line : lines_of(kFolder + "/tiny-strings.jsonl")) check_string(tiny, line);
}

TEST_CASE("ids decode to the reference's text, cut characters to U+FFFD") {
  const Tokenizer tokenizer = Tokenizer::load(kLarge);
  for (const json& line : lines_of(kFolder + "/decode.jsonl")) {
    const Ids ids = line["ids"];
    CAPTURE(ids);
    CHECK(tokenizer.decode(ids) == line["text"]);
    CHECK(tokenizer.decode(ids, true) == line["text_skip_special"]);
  }
}

TEST_CASE("every supported setting is read from the file") {
  for (const json& variant : read_json_file(kFolder + "/variants.json")) {
    CAPTURE(variant["name"]);
    json document = tiny_document();
    document.merge_patch(variant["patch"]);
    const Tokenizer tokenizer = load_text(document.dump());
    for (const json& line : variant["strings"]) check_string(tokenizer, line);
  }
}

TEST_CASE("offsets tile the text, and the pieces between them are the tokens' own bytes") {
  const Tokenizer tokenizer = Tokenizer::load(kTiny);
  for (const json& line : lines_of(kFolder + "/tiny-strings.jsonl")) {
    const std::string text = line["text"];
    const Tokenizer::Encoding encoding = tokenizer.encode_with_offsets(text);
    int done = 0;
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      const auto [begin, end] = encoding.offsets[i];
      REQUIRE(begin == done);
      done = end;
      const std::string bytes = text.substr(begin, end - begin);
      REQUIRE(tokenizer.decode(std::vector{encoding.ids[i]}) == replace_invalid_utf8(bytes));
    }
    REQUIRE(done == static_cast<int>(text.size()));
  }
}

TEST_CASE("offsets skip bytes without a token and give an added space none") {
  const Tokenizer large = Tokenizer::load(kLarge);
  const auto dropped = large.encode_with_offsets("a\x04 b");  // 0x04 is not in the vocabulary
  CHECK(dropped.offsets == std::vector<std::pair<int, int>>{{0, 1}, {2, 4}});

  json document = tiny_document();
  document["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}};
  const auto spaced = load_text(document.dump()).encode_with_offsets("\tQ");
  CHECK(spaced.offsets == std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 2}});
}

TEST_CASE("pieces, ids and special tokens") {
  const Tokenizer tokenizer = Tokenizer::load(kLarge);
  CHECK(tokenizer.piece(260) == "Ġthe");
  CHECK(tokenizer.token_to_id("Ġthe") == 260);
  CHECK(tokenizer.token_to_id("<|im_end|>") == 2);
  CHECK(!tokenizer.token_to_id("no such piece"));
  CHECK(tokenizer.is_special(0));
  CHECK(!tokenizer.is_special(260));
  CHECK(message_of([&] { tokenizer.piece(49152); }) == "tokenizer: expected ids from 0 to 49151, found 49152");
  CHECK(message_of([&] { tokenizer.is_special(-1); }) == "tokenizer: expected ids from 0 to 49151, found -1");
  CHECK(message_of([&] { tokenizer.decode(Ids{5, 99999}); }) == "tokenizer: expected ids from 0 to 49151, found 99999");
}

TEST_CASE("a file without added tokens has no special ones") {
  json document = tiny_document();
  document.erase("added_tokens");
  const Tokenizer tokenizer = load_text(document.dump());
  const Ids ids = tokenizer.encode("<|im_end|> a");
  CHECK(ids.size() > 3);
  CHECK(tokenizer.decode(ids, true) == "<|im_end|> a");
  CHECK(!tokenizer.is_special(0));
}

TEST_CASE("a text that is not UTF-8 is refused") {
  const Tokenizer tokenizer = Tokenizer::load(kTiny);
  const std::pair<std::string, int> cases[] = {{"ab\xff", 2},        {"a\xc3", 1},     {"\xc0\x80", 0},
                                               {"é\xed\xa0\x80", 2}, {"\xe2\x82 ", 0}, {"\xf4\x90\x80\x80", 0},
                                               {"12345678\x80", 8}};
  for (const auto& [text, byte] : cases)
    CHECK(message_of([&] { tokenizer.encode(text); }) ==
          "tokenizer: expected a text in UTF-8, found an invalid sequence at byte " + std::to_string(byte));
  CHECK(tokenizer.decode(tokenizer.encode(std::string("a\0b", 3))) == std::string("a\0b", 3));
}

TEST_CASE("one tokenizer serves several threads") {
  const Tokenizer tokenizer = Tokenizer::load(kTiny);
  const std::vector<json> lines = lines_of(kFolder + "/tiny-strings.jsonl");
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& count : wrong)
    threads.emplace_back([&lines, &count, copy = tokenizer] {
      for (const json& line : lines)
        count += copy.encode(line["text"].get_ref<const std::string&>()) != line["ids"].get<Ids>();
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("long words take the same merges as short ones, and not longer than they should") {
  // Joins a run by halves and thirds, so that ties and overtaken candidates abound.
  BytePairMerger merger(6);
  const auto join = [&](int left, int right, int rank) { merger.add(left, right, {rank, left + right}); };
  join(1, 1, 1), join(2, 1, 0), join(2, 2, 2), join(3, 3, 4), join(4, 2, 3), join(3, 1, 5);
  const auto merged = [&](int n) {
    std::vector<Symbol> symbols;
    for (int i = 0; i < n; ++i) symbols.push_back({1, i, i + 1});
    merger.apply(symbols);
    return symbols;
  };
  // The rule, spelled out: the lowest rank anywhere, of equal ones the leftmost.
  const auto plain = [&](int n) {
    std::vector<int> ids(n, 1);
    while (true) {
      size_t best = ids.size();
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const Merge merge = merger.find(ids[i], ids[i + 1]);
        if (merge && (best == ids.size() || merge.rank < merger.find(ids[best], ids[best + 1]).rank)) best = i;
      }
      if (best == ids.size()) return ids;
      ids[best] += ids[best + 1];
      ids.erase(ids.begin() + best + 1);
    }
  };
  for (int n = 1; n < 120; ++n) {
    const std::vector<int> expected = plain(n);
    const std::vector<Symbol> found = merged(n);
    REQUIRE(found.size() == expected.size());
    int done = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      REQUIRE(found[i].id == expected[i]);
      REQUIRE(found[i].begin == done);
      done = found[i].end;
    }
    REQUIRE(done == n);
  }

  // A million equal letters without a space: quadratic work would not end.
  const Tokenizer tokenizer = Tokenizer::load(kLarge);
  const std::string run(1'000'000, 'a');
  CHECK(tokenizer.decode(tokenizer.encode(run)) == run);
}

TEST_CASE("character classes are those that the reference tells apart") {
  const json expected = read_json_file(kFolder + "/unicode_classes.json");
  const CharacterClasses& classes = CharacterClasses::get();
  for (const auto& [name, bit] : {std::pair{"L", kLetter}, {"N", kNumber}, {"space", kSpace}}) {
    std::vector<bool> wanted(0x110000);
    for (const json& range : expected[name])
      for (int code = range[0]; code <= range[1]; ++code) wanted[code] = true;
    int wrong = 0;
    for (char32_t code = 0; code < 0x110000; ++code) wrong += wanted[code] != ((classes[code] & bit) != 0);
    CHECK(wrong == 0);
  }
}

TEST_CASE("UTF-8: every character survives, every maximal invalid part becomes one U+FFFD") {
  std::string all;
  for (char32_t code = 0; code < 0x110000; ++code)
    if (code < 0xD800 || code > 0xDFFF) append_utf8(all, code);
  CHECK(find_invalid_utf8(all) == std::string::npos);
  CHECK(replace_invalid_utf8(all) == all);
  char32_t expected = 0;
  for (size_t i = 0; i < all.size();) {
    const Character character = Character::at(all, i);
    REQUIRE(character.code == expected);
    i += character.size;
    REQUIRE(Character::before(all, i).code == expected);
    expected = expected == 0xD7FF ? 0xE000 : expected + 1;
  }

  const std::string bad = "\xEF\xBF\xBD";
  const std::pair<std::string, std::string> cases[] = {
      {"a\xff"
       "b",
       "a" + bad + "b"},
      {"\xe2\x82", bad},
      {"\xe2\x82x", bad + "x"},
      {"\xf0\x9f\x98", bad},
      {"\xf0\x9f\x98\xe2\x82\xac", bad + "€"},
      {"\xed\xa0\x80", bad + bad + bad},
      {"\xc0\xaf", bad + bad},
      {"\xf4\x91", bad + bad},
      {"\x80\x80", bad + bad},
  };
  for (const auto& [bytes, text] : cases) CHECK(replace_invalid_utf8(bytes) == text);
}

TEST_CASE("a tokenizer.json that can't be used says where and why") {
  CHECK(message_of([] { Tokenizer::load("/nonexistent/t.json"); }).starts_with("/nonexistent/t.json: "));
  CHECK(message_of([] { load_text("{\"model\":"); }).find(": 1:") != std::string::npos);
  CHECK(refusal([](json& d) { d = json::array(); }) == "$: expected an object, found an array of 0");

  CHECK(refusal([](json& d) { d["version"] = "2.0"; }) == "$.version: expected \"1.0\", found the string \"2.0\"");
  CHECK(refusal([](json& d) {
          d["truncation"] = {{"max_length", 8}};
        }) == "$.truncation: expected null (not supported), found an object with 1 key");
  CHECK(refusal([](json& d) { d["padding"] = {{"length", 8}}; }).starts_with("$.padding: expected null"));
  CHECK(refusal([](json& d) {
          d["normalizer"] = {{"type", "NFKC"}};
        }) == "$.normalizer.type: expected no normalizer (none is supported), found the string \"NFKC\"");
  CHECK(refusal([](json& d) {
          d["post_processor"] = {{"type", "TemplateProcessing"}};
        }) == "$.post_processor.type: expected \"ByteLevel\", found the string \"TemplateProcessing\"");
  CHECK(refusal([](json& d) {
          d["decoder"] = {{"type", "Metaspace"}};
        }).starts_with("$.decoder.type: expected \"ByteLevel\""));
}

TEST_CASE("bad models are refused") {
  const auto model = [](auto change) { return refusal([&](json& d) { change(d["model"]); }); };
  CHECK(refusal([](json& d) { d.erase("model"); }) == "$.model: expected a value, found no such key");
  CHECK(model([](json& m) { m["type"] = "Unigram"; }) ==
        "$.model.type: expected \"BPE\" (no other model is supported), found the string \"Unigram\"");
  CHECK(model([](json& m) { m["dropout"] = 0.1; }) == "$.model.dropout: expected no dropout, found 0.1");
  CHECK(model([](json& m) { m["byte_fallback"] = true; }).starts_with("$.model.byte_fallback: expected no setting"));
  CHECK(model([](json& m) {
          m["end_of_word_suffix"] = "</w>";
        }).starts_with("$.model.end_of_word_suffix: expected no affix"));
  CHECK(model([](json& m) { m["ignore_merges"] = 1; }) == "$.model.ignore_merges: expected true or false, found 1");
  CHECK(model([](json& m) { m["unk_token"] = "??"; }) ==
        "$.model.unk_token: expected a piece of the vocabulary, found the string \"??\"");

  CHECK(model([](json& m) { m.erase("vocab"); }) == "$.model.vocab: expected a value, found no such key");
  CHECK(model([](json& m) { m["vocab"] = json::array(); }) == "$.model.vocab: expected an object, found an array of 0");
  CHECK(model([](json& m) { m["vocab"] = json::object(); }) ==
        "$.model.vocab: expected at least one token, found none");
  const auto id_of_a = [&](const json& id) { return model([&](json& m) { m["vocab"]["a"] = id; }); };
  CHECK(id_of_a(512) == "$.model.vocab.a: expected an integer from 0 to 511, found 512");
  CHECK(id_of_a(-1) == "$.model.vocab.a: expected an integer from 0 on, found -1");
  CHECK(id_of_a(1ull << 40) == "$.model.vocab.a: expected an integer from 0 on, found 1099511627776");
  CHECK(id_of_a(1e30) == "$.model.vocab.a: expected an integer from 0 on, found 1e+30");
  CHECK(id_of_a(1.5) == "$.model.vocab.a: expected an integer from 0 on, found 1.5");
  CHECK(id_of_a("7") == "$.model.vocab.a: expected an integer from 0 on, found the string \"7\"");
  CHECK(id_of_a(nullptr) == "$.model.vocab.a: expected an integer from 0 on, found null");
  CHECK(id_of_a({1}) == "$.model.vocab.a: expected a plain value, found an array or object");
  CHECK(model([](json& m) { m["vocab"]["b"] = m["vocab"]["a"]; }) ==
        "$.model.vocab.b: expected an id of its own, found 81");
  std::string twice = tiny_document().dump();
  twice.insert(twice.find("\"vocab\":{") + 9, "\"a\":512,");
  CHECK(message_of([&] { load_text(twice); }).ends_with("$.model.vocab.a: expected each piece once, found 512"));

  CHECK(model([](json& m) { m.erase("merges"); }) == "$.model.merges: expected a value, found no such key");
  CHECK(model([](json& m) { m["merges"] = 3; }) == "$.model.merges: expected an array, found 3");
  CHECK(model([](json& m) {
          m["merges"][2] = {"zz", "e"};
        }) == "$.model.merges[2]: expected pieces of the vocabulary, found \"zze\", which it lacks");
  CHECK(model([](json& m) { m["merges"][2] = "a b c"; }).starts_with("$.model.merges[2]: expected two pieces"));
  CHECK(model([](json& m) { m["merges"][2] = "ab"; }).starts_with("$.model.merges[2]: expected two pieces"));
  CHECK(model([](json& m) { m["merges"][2] = {"a", "b", "c"}; }).starts_with("$.model.merges[2]: expected two pieces"));
  CHECK(model([](json& m) { m["merges"][2] = {"a", 1}; }).starts_with("$.model.merges[2]: expected two pieces"));
  CHECK(model([](json& m) {
          m["merges"][2] = m["merges"][1];
        }).starts_with("$.model.merges[2]: expected each merge once"));
}

TEST_CASE("bad added tokens and pre-tokenizers are refused") {
  const auto added = [](auto change) { return refusal([&](json& d) { change(d["added_tokens"]); }); };
  CHECK(added([](json& a) { a = 1; }) == "$.added_tokens: expected an array, found 1");
  CHECK(added([](json& a) { a[1] = "x"; }) == "$.added_tokens[1]: expected an object, found the string \"x\"");
  CHECK(added([](json& a) { a[1]["id"] = 3; }) == "$.added_tokens[1].id: expected 1, found 3");
  CHECK(added([](json& a) { a[1]["content"] = "<new>"; }) == "$.added_tokens[1].id: expected 512, found 1");
  CHECK(added([](json& a) {
          a[1]["content"] = "";
        }).starts_with("$.added_tokens[1].content: expected at least one character"));
  CHECK(added([](json& a) { a[1].erase("lstrip"); }) ==
        "$.added_tokens[1].lstrip: expected a value, found no such key");
  CHECK(added([](json& a) { a[1]["special"] = "yes"; }) ==
        "$.added_tokens[1].special: expected true or false, found the string \"yes\"");
  CHECK(added([](json& a) { a[1] = a[0]; }).starts_with("$.added_tokens[1].content: expected each added token once"));

  const auto pre = [](const json& value) { return refusal([&](json& d) { d["pre_tokenizer"] = value; }); };
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  CHECK(pre(nullptr) == "$.pre_tokenizer: expected an object, found null");
  CHECK(pre({{"type", "Whitespace"}}) ==
        "$.pre_tokenizer.type: expected \"ByteLevel\", found the string \"Whitespace\"");
  CHECK(pre({{"type", "ByteLevel"}}) == "$.pre_tokenizer.add_prefix_space: expected a value, found no such key");
  CHECK(pre({{"type", "Sequence"}, {"pretokenizers", json::array()}})
            .starts_with("$.pre_tokenizer: expected a pre-tokenizer"));
  CHECK(pre({{"type", "Sequence"}, {"pretokenizers", {{{"type", "Split"}}, byte_level}}})
            .starts_with("$.pre_tokenizer.pretokenizers[0].type: expected \"Digits\""));
  CHECK(pre({{"type", "Sequence"}, {"pretokenizers", {byte_level, byte_level}}})
            .starts_with("$.pre_tokenizer.pretokenizers[0].type: expected \"Digits\""));
  CHECK(pre({{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}}, byte_level}}}) ==
        "$.pre_tokenizer.pretokenizers[0].individual_digits: expected a value, found no such key");
}

TEST_CASE("a file that is cut or altered anywhere is refused or read, never worse") {
  const std::string whole = tiny_document().dump();
  for (size_t size = 0; size < whole.size(); size += 97)
    CHECK(message_of([&] { load_text(whole.substr(0, size)); }) != "no error");
  for (size_t at = 0; at < whole.size(); at += 31)
    for (const char replacement : {'\0', '"', '}', '9', '\xff'}) {
      std::string altered = whole;
      altered[at] = replacement;
      message_of([&] { load_text(altered).encode("The value is 12.5 <|im_end|>"); });
    }
}
