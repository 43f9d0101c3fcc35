// bench/tokenizer [--tokenizer FILE] [--lines FILE.jsonl] [--peer CMD]
//
// Loading a tokenizer.json, texts to ids and ids to texts, on one thread. Lines are the fixture's: text, ids, category.
// Every id is compared before anything is timed. With --peer, a command that does the same on the same files
// (bench/peers/tokenizer.py: Hugging Face tokenizers) is run and its times set beside ours.
#include "data/tokenizer.h"

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/common/harness.h"
#include "bench/common/peer.h"
#include "engine/error.h"
#include "engine/json.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

struct Corpus {
  std::string name;
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::string> decoded;
  int64_t bytes = 0, n_ids = 0;

  void add(const JsonValue& line) {
    texts.push_back(line["text"].string());
    ids.push_back(line["ids"].json().get<std::vector<int32_t>>());
    const auto other = line.find("decoded");
    decoded.push_back(other ? other->string() : texts.back());
    bytes += static_cast<int64_t>(texts.back().size());
    n_ids += static_cast<int64_t>(ids.back().size());
  }
};

// All lines, and apart from them the short English questions and answers that training consists of.
std::vector<Corpus> read_corpora(const std::string& path) {
  std::ifstream file(path);
  check(file.good(), path, ": can't be opened");
  std::vector<Corpus> corpora(2);
  corpora[0].name = "everything";
  corpora[1].name = "questions";
  int64_t number = 0;
  for (std::string text; std::getline(file, text);) {
    const std::string where = nanovlm::text(path, " line ", ++number);
    const nlohmann::json document = parse_json(text, where);
    const JsonValue line(document, where);
    corpora[0].add(line);
    if (const auto category = line.find("category"); category && category->string() == "cauldron") corpora[1].add(line);
  }
  std::erase_if(corpora, [](const Corpus& corpus) { return corpus.bytes == 0; });
  check(!corpora.empty(), path, ": expected at least one line with text, found none");
  return corpora;
}

Report::Row row(const std::string& impl, const std::string& work, const Timing& timing, const Corpus& corpus) {
  return {{"impl", value(impl)},
          {"work", value(work)},
          {"texts", value(corpus.name)},
          {"ms", milliseconds(timing.median)},
          {"p10", milliseconds(timing.p10)},
          {"p90", milliseconds(timing.p90)},
          {"MB/s", value(static_cast<double>(corpus.bytes) / timing.median * 1e-6, 1)},
          {"million ids/s", value(static_cast<double>(corpus.n_ids) / timing.median * 1e-6, 2)}};
}

}  // namespace

int main(int argc, char** argv) try {
  std::string file = NANOVLM_ASSETS "/tokenizer/tokenizer.json", peer;
  std::string lines = NANOVLM_ASSETS "/../tests/fixtures/tokenizer/strings.jsonl";
  Report report("tokenizer");
  report.app().add_option("--tokenizer", file, "a tokenizer.json")->capture_default_str();
  report.app().add_option("--lines", lines, "texts and their ids, a JSON object a line")->capture_default_str();
  report.app().add_option("--peer", peer, "command to compare with; gets --tokenizer FILE --lines FILE --json");
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;

  const Tokenizer tokenizer = Tokenizer::load(file);
  const std::vector<Corpus> corpora = read_corpora(lines);
  for (const Corpus& corpus : corpora)
    for (size_t i = 0; i < corpus.texts.size(); ++i) {
      require(tokenizer.encode(corpus.texts[i]) == corpus.ids[i], "the ids of text " + std::to_string(i));
      require(tokenizer.decode(corpus.ids[i]) == corpus.decoded[i], "the decoded text " + std::to_string(i));
    }

  const Timing load = time([&] { Tokenizer::load(file); });
  report.add({{"impl", value("ours")},
              {"work", value("load")},
              {"ms", milliseconds(load.median)},
              {"p10", milliseconds(load.p10)},
              {"p90", milliseconds(load.p90)}});
  std::vector<double> encode_seconds;
  for (const Corpus& corpus : corpora) {
    int64_t made = 0;  // read below, so that no call can be left out
    const Timing encode = time([&] {
      for (const std::string& text : corpus.texts) made += static_cast<int64_t>(tokenizer.encode(text).size());
    });
    const Timing decode = time([&] {
      for (const auto& ids : corpus.ids) made += static_cast<int64_t>(tokenizer.decode(ids).size());
    });
    require(made > 0, "anything at all");
    encode_seconds.push_back(encode.median);
    report.add(row("ours", "encode", encode, corpus));
    report.add(row("ours", "decode", decode, corpus));
  }

  if (!peer.empty()) {
    const nlohmann::json result = run_peer(text(peer, " --tokenizer '", file, "' --lines '", lines, "' --json"));
    const JsonValue times(result, "the peer's output");
    const double peer_load = times["load_s"].number();
    report.add({{"impl", value("peer")}, {"work", value("load")}, {"ms", milliseconds(peer_load)}});
    report.note(text("load: ", peer_load / load.median, " times the peer's speed"));
    for (size_t i = 0; i < corpora.size(); ++i) {
      Timing encode;
      encode.median = encode.p10 = encode.p90 = times["encode_s"][corpora[i].name].number();
      report.add(row("peer", "encode", encode, corpora[i]));
      report.note(text("encode ", corpora[i].name, ": ", encode.median / encode_seconds[i], " times the peer's speed"));
    }
  }
  return report.finish();
} catch (const std::exception&) {
  return failed("tokenizer", argc, argv);
}
