// What a survey counts, under each rule for texts that are too long.
#include "data/survey.h"

#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"

using namespace nanovlm;
using nanovlm::testing::fixture;

namespace {

std::string line(const std::string& picture, const std::string& question, const std::string& answer,
                 const std::string& source) {
  return R"({"images":[")" + picture + R"("],"texts":[{"user":")" + question + R"(","assistant":")" + answer +
         R"(","source":")" + source + R"("},{"user":"x","assistant":"y"}]})" + "\n";
}

struct Fixture {
  Fixture() {
    folder.write("a.png", "no picture");
    const std::string longer(400, 'z');
    folder.write("train.jsonl",
                 line("a.png", "what is it?", "a cat", "one") + line("a.png", "what is it?", "a cat", "one") +
                     line("gone.png", "what is it?", "a dog", "") + line("a.png", "why?", longer, "two") + "{\n");
    dataset = open_dataset({folder.file("train.jsonl")});
  }

  Survey look(OverLong rule, bool pictures = false, int workers = 2) const {
    SurveyOptions options;
    options.collate.max_length = 40;
    options.collate.over_long = rule;
    options.decode_pictures = pictures;
    options.workers = workers;
    return survey(*dataset, all_rows(*dataset), text, options);
  }

  const Folder folder;
  const PromptTokenizer text = PromptTokenizer::load(fixture("tokenizer/tiny"));
  std::shared_ptr<const Dataset> dataset;
};

int64_t broken(const SurveyCounts& counts, Fault fault) { return counts.broken[static_cast<size_t>(fault)]; }

}  // namespace

TEST_CASE_METHOD(Fixture, "records are counted, each under its source") {
  for (const int workers : {0, 3}) {
    const Survey found = look(OverLong::drop, false, workers);
    CHECK(found.all.records == 5);
    CHECK(found.all.samples == 4);
    CHECK(broken(found.all, Fault::broken_record) == 1);
    CHECK(found.all.turns == 8);
    CHECK(found.all.pictures == 4);
    CHECK(found.all.duplicates == 1);
    CHECK(found.all.over_long == 1);
    REQUIRE(found.sources.size() == 3);
    CHECK(found.sources.at("one").samples == 2);
    CHECK(found.sources.at("two").over_long == 1);
    const SurveyCounts& unnamed = found.sources.at(folder.file("train.jsonl"));
    CHECK(unnamed.records == 2);
    CHECK(unnamed.samples == 1);
    REQUIRE(found.skipped.size() == 1);
    CHECK(found.skipped[0].message.starts_with(folder.file("train.jsonl") + ":5: "));
  }
}

TEST_CASE_METHOD(Fixture, "pictures are looked at if asked for") {
  const Survey found = look(OverLong::drop, true);
  CHECK(found.all.samples == 0);
  CHECK(broken(found.all, Fault::broken_picture) == 3);
  CHECK(broken(found.all, Fault::missing_picture) == 1);
  CHECK(found.all.without_loss_share() == 0);
  CHECK(found.all.length_at(0.5) == 0);
}

TEST_CASE_METHOD(Fixture, "what is too long carries no loss when it is left out or masked, and some when it is cut") {
  const SurveyCounts dropped = look(OverLong::drop).all, masked = look(OverLong::mask).all,
                     cut = look(OverLong::truncate).all;
  CHECK(dropped.without_loss == 1);
  CHECK(masked.without_loss == 1);
  CHECK(cut.without_loss == 0);
  CHECK(dropped.labels == masked.labels);
  CHECK(masked.tokens == dropped.tokens + 40);
  CHECK(cut.tokens == masked.tokens);
  CHECK(cut.labels > masked.labels);
  CHECK(dropped.without_loss_share() == 0.25);
  CHECK(dropped.lengths == cut.lengths);
  CHECK(dropped.length_at(1) > 40);
  CHECK(dropped.length_at(0.5) < 40);
  CHECK(dropped.length_at(0) == dropped.lengths[0]);
}
