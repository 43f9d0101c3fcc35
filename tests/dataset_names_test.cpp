// What the name of a data set may stand for, how subsets are mixed, and the reference's order of rows.
#include "data/dataset.h"

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "data/reference_order.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/messages.h"

using namespace nanovlm;
using nanovlm::testing::fixture;
namespace fs = std::filesystem;

namespace {
std::string record(const std::string& question) {
  return text(R"({"texts":[{"user":")", question, R"(","assistant":"a"}]})", "\n");
}

std::vector<std::string> questions(const RecordSource& source) {
  std::vector<std::string> all;
  for (const int64_t row : all_rows(source)) all.push_back(source.read(row).texts[0].user);
  return all;
}
using Strings = std::vector<std::string>;
}  // namespace

TEST_CASE("orders are the reference's") {
  const auto golden = nlohmann::json::parse(std::ifstream(fixture("data/order.json")));
  for (const auto& [n, order] : golden["datasets_shuffle_seed0"].items())
    CHECK(numpy_permutation(std::stoll(n), 0) == order.get<std::vector<int64_t>>());
  for (const auto& [n, order] : golden["distributed_sampler_seed0_epoch0"].items())
    CHECK(torch_permutation(std::stoll(n), 0) == order.get<std::vector<int64_t>>());
  CHECK(numpy_permutation(0, 0).empty());
  CHECK(torch_permutation(1, 5) == std::vector<int64_t>{0});
  // numpy.random.default_rng(2**40 + 7).permutation(10)
  CHECK(numpy_permutation(10, (uint64_t{1} << 40) + 7) == std::vector<int64_t>{6, 2, 8, 7, 9, 3, 4, 1, 5, 0});
}

TEST_CASE("the reference's split is the last share of its shuffled rows") {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 64; ++i) lines += record(std::to_string(i));
  const auto data = open_dataset({folder.write("train.jsonl", lines)});
  const auto order = nlohmann::json::parse(std::ifstream(fixture("data/order.json")))["datasets_shuffle_seed0"]["64"]
                         .get<std::vector<int64_t>>();
  const Split split = split_rows(*data, {.val_ratio = 0.27, .order = RowOrder::reference});
  CHECK(split.train == std::vector<int64_t>(order.begin(), order.begin() + 47));
  CHECK(split.validation == std::vector<int64_t>(order.begin() + 47, order.end()));
  const Split cut = split_rows(*data, {.data_cutoff_idx = 5, .order = RowOrder::stored});
  CHECK(cut.train == std::vector<int64_t>{0, 1, 2, 3, 4});
}

TEST_CASE("folders, shards, subsets, patterns") {
  const Folder folder;
  folder.write("set/a/train.jsonl", record("a0") + record("a1"));
  folder.write("set/a/test.jsonl", record("a2"));
  folder.write("set/b/train.json", text("[", record("b0"), ", ", record("b1"), "]"));
  folder.write("set/readme/text.md", "nothing");
  const std::string set = folder.file("set");
  CHECK(questions(*open_dataset({set + ":a"})) == Strings{"a0", "a1"});
  CHECK(questions(*open_dataset({set + ":a"}, "test")) == Strings{"a2"});
  CHECK(questions(*open_dataset({set + ":b", set + ":a"})) == Strings{"b0", "b1", "a0", "a1"});
  CHECK(questions(*open_dataset({set + "/*/train.json*"})) == Strings{"a0", "a1", "b0", "b1"});

  const auto all = open_dataset({set + ":all"});
  CHECK(questions(*all) == Strings{"a0", "a1", "b0", "b1"});
  REQUIRE(all->subsets().size() == 2);
  CHECK(all->subsets()[1].name == set + ":b");
  CHECK(all->subset_of(1).name == set + ":a");
  CHECK(all->subset_of(2).begin == 2);

  CHECK(
      message_of([&] { open_dataset({set}); }) ==
      set +
          ": expected a data set (train.jsonl, .json or .parquet, or train-*.parquet), found none; its subsets: a, b, "
          "readme");
  CHECK(message_of([&] { open_dataset({set + ":c"}); }).find("its subsets: a, b") != std::string::npos);
  CHECK(message_of([&] { open_dataset({set + ":../set/a"}); }).find("expected a subset's name") != std::string::npos);
  CHECK(message_of([&] { open_dataset({set + "/*.none"}); }) == set + "/*.none: expected files that match, found none");
}

TEST_CASE("a weight says how often a row is visited") {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += record(std::to_string(i));
  const std::string a = folder.write("a.jsonl", lines), b = folder.write("b@2.jsonl", lines);
  const auto visits = [&](const Strings& names) {
    const auto data = open_dataset(names);
    std::map<int64_t, int64_t> times;
    for (const int64_t row : split_rows(*data, {.seed = 1}).train) ++times[row];
    std::array<int64_t, 2> sums{};
    for (const auto& [row, n] : times) sums[static_cast<size_t>(row / 1000)] += n;
    return sums;
  };
  CHECK(visits({a, b}) == std::array<int64_t, 2>{1000, 1000});
  CHECK(visits({a + "@2", b + "@0"}) == std::array<int64_t, 2>{2000, 0});
  const auto half = visits({a + "@0.5", b + "@1.25"});
  CHECK(std::abs(half[0] - 500) < 60);
  CHECK(std::abs(half[1] - 1250) < 60);
  // Validation rows come once.
  const auto data = open_dataset({a + "@3"});
  const Split split = split_rows(*data, {.val_ratio = 0.1});
  CHECK(split.validation.size() == 100);
  CHECK(split.train.size() == 2700);

  CHECK(message_of([&] { open_dataset({a + "@x"}); }) ==
        a + "@x: expected a weight from 0 to 1000 behind the @, found \"x\"");
  CHECK(message_of([&] { open_dataset({a + "@-1"}); }).find("expected a weight") != std::string::npos);
  CHECK(message_of([&] { split_rows(*open_dataset({a + "@0"}), {}); }).find("all have the weight 0") !=
        std::string::npos);
}

TEST_CASE("a name that is no path is asked for on the Hub, if there is one") {
  const Folder folder;
  folder.write("cache/ai2d/train-00000-of-00001.jsonl", "");
  folder.write("cache/ai2d/train.jsonl", record("q"));
  std::string asked;
  const FetchDataset fetch = [&](const std::string& repository, const Strings& patterns) {
    asked = repository;
    for (const std::string& pattern : patterns) asked += " " + pattern;
    return folder.file("cache");
  };
  CHECK(questions(*open_dataset({"org/name:ai2d"}, "train", fetch)) == Strings{"q"});
  CHECK(asked == "org/name ai2d/train*.parquet");
  CHECK_THROWS(open_dataset({"org/name"}, "val", fetch));
  CHECK(asked == "org/name val*.parquet data/val*.parquet *.parquet");
  CHECK(message_of([] { open_dataset({"org/name:ai2d"}); }) ==
        "org/name:ai2d: expected a data set, found no file and no folder of this name");
  asked.clear();
  for (const std::string name : {"name", "/org/name", "./org/name", "a/b/c"}) {
    CHECK(message_of([&] { open_dataset({name}, "train", fetch); }).find("found no file") != std::string::npos);
    CHECK(asked.empty());
  }
}
