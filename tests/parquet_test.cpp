// Parquet: every row of the_cauldron's and MMStar's files in every codec and page layout, what is wrong in rows, and
// files that are cut, foreign or damaged.
#include "data/parquet.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>
#include <thread>

#include "data/collate.h"
#include "data/dataset.h"
#include "engine/random.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/messages.h"
#include "tests/support/skip.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

// Without Arrow there is nothing to test here but the message that says so.
bool skipped() {
  if (parquet_can_be_read()) return false;
  note_skipped("this build has no Arrow");
  return true;
}

std::string file_of(const std::string& name) { return fixture("data/" + name + ".parquet"); }

std::unique_ptr<RecordSource> open(const std::string& path, int64_t cache_bytes = 1 << 20) {
  return open_parquet(path, make_page_cache(cache_bytes));
}

std::string digest_of(const std::vector<uint8_t>& bytes) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx",
                static_cast<unsigned long long>(hash_of({reinterpret_cast<const char*>(bytes.data()), bytes.size()})));
  return text;
}

nlohmann::json golden_rows(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(fixture("data/" + name + ".json")));
}

void check_picture(const Picture& picture, const nlohmann::json& expected) {
  CHECK(picture.bytes.size() == expected["bytes"].get<size_t>());
  CHECK(digest_of(picture.bytes) == expected["fnv1a"]);
  CHECK(picture.path == (expected["path"].is_null() ? "" : expected["path"].get<std::string>()));
  CHECK(image_format(picture.bytes) == expected["format"]);
}

void check_cauldron_row(const Record& record, const nlohmann::json& expected) {
  const auto& images = expected["images"];
  REQUIRE(record.images.size() == images.size());
  for (size_t i = 0; i < images.size(); ++i) check_picture(record.images[i], images[i]);
  const auto& texts = expected["texts"];
  REQUIRE(record.texts.size() == texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    CHECK(record.texts[i].user == texts[i]["user"]);
    CHECK(record.texts[i].assistant == texts[i]["assistant"]);
    CHECK(record.texts[i].source == texts[i]["source"]);
  }
}

void check_mmstar_row(const Record& record, const nlohmann::json& expected) {
  REQUIRE(record.images.size() == 1);
  check_picture(record.images[0], expected["image"]);
  REQUIRE(record.texts.size() == 1);
  CHECK(record.texts[0].user == expected["question"]);
  CHECK(record.texts[0].assistant == expected["answer"]);
}

std::string refusal_of(const RecordSource& source, int64_t row, Fault fault) {
  try {
    source.read(row);
  } catch (const BadRecord& bad) {
    CHECK(bad.fault == fault);
    return bad.what();
  }
  return "no refusal";
}

// Reads everything there is; true if no row was refused. Whatever the bytes are, there is an Error or a record.
bool reads_whole(const std::string& path) {
  try {
    const auto source = open(path);
    for (int64_t row = 0; row < source->size(); ++row) source->read(row);
    return true;
  } catch (const Error&) {
    return false;
  }
}
}  // namespace

TEST_CASE("every row of the_cauldron is as listed, whatever codec, pages and row groups") {
  if (skipped()) return;
  const auto golden = golden_rows("cauldron");
  for (const std::string name : {"cauldron", "cauldron-zstd", "cauldron-plain", "cauldron-gzip"})
    for (const int64_t cache_bytes : {int64_t{1}, int64_t{256} << 20}) {  // a page at a time, and all of them
      CAPTURE(name, cache_bytes);
      const auto source = open(file_of(name), cache_bytes);
      REQUIRE(source->size() == 64);
      for (const int64_t row : permutation(64, 3)) {
        CAPTURE(row);
        check_cauldron_row(source->read(row), golden[static_cast<size_t>(row)]);
      }
    }
}

TEST_CASE("every row of MMStar is as listed") {
  if (skipped()) return;
  const auto golden = golden_rows("mmstar");
  for (const std::string name : {"mmstar", "mmstar-zstd"}) {
    CAPTURE(name);
    const auto source = open(file_of(name));
    REQUIRE(source->size() == 16);
    for (int64_t row = 0; row < 16; ++row) check_mmstar_row(source->read(row), golden[static_cast<size_t>(row)]);
  }
}

TEST_CASE("row groups are blocks, numbered through all files") {
  if (skipped()) return;
  const auto data = open_dataset({file_of("cauldron"), file_of("mmstar"), file_of("cauldron-zstd")});
  CHECK(data->blocks() == 4 + 1 + 3);
  const std::pair<int64_t, int64_t> blocks[] = {{0, 0}, {19, 0}, {20, 1}, {63, 3}, {64, 4}, {79, 4}, {80, 5}, {143, 7}};
  for (const auto& [row, block] : blocks) CHECK(data->block_of(row) == block);
}

TEST_CASE("row groups and files without rows are passed over") {
  if (skipped()) return;
  const auto source = open(file_of("empty-groups"));
  REQUIRE(source->size() == 5);
  CHECK(open(file_of("no-rows"))->size() == 0);
  const auto data = open_dataset({file_of("no-rows"), file_of("empty-groups"), file_of("no-rows")});
  REQUIRE(data->size() == 5);
  for (const RecordSource* rows : std::initializer_list<const RecordSource*>{source.get(), data.get()})
    for (int64_t row = 0; row < 5; ++row) {
      CAPTURE(row);
      CHECK(rows->read(row).texts.at(0).user == text("q", row));
      CHECK(rows->read(row).images.at(0).bytes == std::vector{static_cast<uint8_t>('0' + row)});
      CHECK((rows->block_of(row) == rows->block_of(0)) == (row < 3));
      CHECK(rows->block_of(row) < rows->blocks());
    }
  CHECK(message_of([] { open_dataset({file_of("no-rows")}); }) ==
        file_of("no-rows") + ": expected records, found none");
}

TEST_CASE("threads that read at once get the same rows") {
  if (skipped()) return;
  const auto golden = golden_rows("cauldron");
  const auto source = open(file_of("cauldron-zstd"), 1 << 16);
  std::vector<std::string> users(64 * 4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (const int64_t row : permutation(64, t))
        users[t * 64 + static_cast<size_t>(row)] = source->read(row).texts[0].user;
    });
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < users.size(); ++i) CHECK(users[i] == golden[i % 64]["texts"][0]["user"]);
}

TEST_CASE("the first pictures are the pixels that the reference trains on") {
  if (skipped()) return;
  const PromptTokenizer text = PromptTokenizer::load(fixture("tokenizer/tiny"));
  const VqaCollator collator(text, CollateOptions::nanovlm_v1(32, 4000));
  for (const std::string name : {"cauldron", "mmstar"}) {
    const auto source = open(file_of(name));
    const SafetensorsFile golden = SafetensorsFile::open(fixture("data/" + name + "_32.safetensors"));
    const std::vector<int64_t> expected = golden.read_i64("images_u8");
    for (int64_t row = 0; row < source->size(); ++row) {
      CAPTURE(name, row);
      const Sample sample = collator.prepare(source->read(row), source->place(row));
      std::vector<int64_t> chw;
      for (size_t c = 0; c < 3; ++c)
        for (size_t i = 0; i < 32 * 32; ++i) chw.push_back(sample.picture->rgb[i * 3 + c]);
      const auto begin = expected.begin() + row * 3 * 32 * 32;
      CHECK(chw == std::vector<int64_t>(begin, begin + 3 * 32 * 32));
    }
  }
}

TEST_CASE("rows that the published data does not have are refused one by one") {
  if (skipped()) return;
  const auto edge = open(file_of("cauldron-edge"));
  REQUIRE(edge->size() == 5);
  const auto golden = golden_rows("cauldron");
  for (const int row : {0, 4}) check_cauldron_row(edge->read(row), golden[static_cast<size_t>(row)]);
  CHECK(edge->read(1).images.empty());
  CHECK(refusal_of(*edge, 3, Fault::no_text) == edge->place(3) + ": expected a turn, found none");

  const PromptTokenizer text = PromptTokenizer::load(fixture("tokenizer/tiny"));
  const VqaCollator collator(text, CollateOptions{.image_size = 32});
  const auto fault_of = [&](int64_t row) {
    try {
      collator.prepare(edge->read(row), edge->place(row));
    } catch (const BadRecord& bad) {
      return bad.fault;
    }
    return Fault::no_target;
  };
  CHECK(fault_of(1) == Fault::no_picture);
  CHECK(fault_of(2) == Fault::broken_picture);
}

TEST_CASE("nulls at every level") {
  if (skipped()) return;
  const auto source = open(file_of("nulls"));
  REQUIRE(source->size() == 10);
  CHECK(source->place(7) == file_of("nulls") + ": row 7");
  CHECK(source->read(0).images.size() == 1);
  CHECK(source->read(0).texts[0].source.empty());
  CHECK(source->read(1).images.empty());      // no list
  CHECK(source->read(2).images.size() == 1);  // the first of two is null
  CHECK((source->read(2).null_first && !source->read(0).null_first));
  CHECK(source->read(3).images.empty());  // neither bytes nor path
  CHECK(refusal_of(*source, 5, Fault::no_text).ends_with("row 5: expected a turn, found none"));
  CHECK(refusal_of(*source, 6, Fault::broken_record).ends_with("row 6: texts.user: expected text, found null"));
  CHECK(refusal_of(*source, 7, Fault::broken_record).ends_with("row 7: texts.user: expected text, found null"));
  CHECK(refusal_of(*source, 8, Fault::broken_record).ends_with("row 8: texts.assistant: expected text, found null"));
  CHECK(source->read(9).texts.size() == 2);

  // Paths are below the file's folder, and stay there.
  const auto picture_fault = [&](int64_t row) {
    return message_of([&] { picture_bytes(source->read(row).images[0], source->place(row)); });
  };
  CHECK(picture_fault(4).find("\"../x.png\": expected a path inside ") != std::string::npos);
  CHECK(picture_fault(9).find("gone.png: can't be opened") != std::string::npos);
}

TEST_CASE("pages without values are passed over") {
  if (skipped()) return;
  const auto source = open(file_of("empty-pages"));
  REQUIRE(source->size() == 6);
  for (int64_t row = 0; row < 6; ++row) {
    CAPTURE(row);
    const Record record = source->read(row);
    REQUIRE(record.images.size() == static_cast<size_t>(1 + row % 3));
    CHECK(record.images[0].bytes == std::vector{static_cast<uint8_t>('0' + row)});
    REQUIRE(record.texts.size() == static_cast<size_t>(1 + row % 4));
    const std::string question = text("question ", row, " ", row % 4);
    CHECK(record.texts.back().user == (row % 2 ? question + question : question));
    CHECK(record.texts.back().assistant == text("answer ", row));
  }
}

TEST_CASE("missing and foreign columns are all named") {
  if (skipped()) return;
  CHECK(message_of([] { open(file_of("foreign")); }) ==
        file_of("foreign") +
            ": expected the_cauldron's columns or MMStar's, found no images.bytes, texts.user, "
            "texts.assistant among: images, caption");
  CHECK(message_of([] { open(file_of("types")); }) ==
        file_of("types") + ": answer: expected bytes or text, found INT64");
}

TEST_CASE("columns of nulls alone are none") {
  if (skipped()) return;
  const auto cauldron = open(file_of("null-columns"));
  REQUIRE(cauldron->size() == 3);
  const size_t turns[] = {1, 2, 1}, pictures[] = {1, 0, 1};
  for (size_t row = 0; row < 3; ++row) {
    const Record record = cauldron->read(static_cast<int64_t>(row));
    CHECK(record.texts.size() == turns[row]);
    CHECK(record.texts.back().source.empty());
    REQUIRE(record.images.size() == pictures[row]);
    if (!record.images.empty()) CHECK(record.images[0].path.empty());
  }
  CHECK(cauldron->read(2).images[0].bytes == std::vector<uint8_t>{'1'});
  const auto mmstar = open(file_of("null-columns-mmstar"));
  CHECK(mmstar->read(0).images.at(0).bytes == std::vector<uint8_t>{'0'});
  CHECK(mmstar->read(1).images.empty());
  CHECK(open(file_of("null-columns-paths"))->read(0).images.at(0).path == "a.png");
  CHECK(message_of([] { open(file_of("null-columns-needed")); }) ==
        file_of("null-columns-needed") +
            ": expected the_cauldron's columns or MMStar's, found no images.bytes, texts.assistant among: "
            "images.list.element.bytes (nulls alone), images.list.element.path (nulls alone), "
            "texts.list.element.user, texts.list.element.assistant (nulls alone)");
}

TEST_CASE("what is no whole Parquet file is refused when it is opened") {
  if (skipped()) return;
  const Folder folder;
  const std::string whole = bytes_of(file_of("mmstar-zstd"));
  for (const size_t kept :
       {size_t{0}, size_t{3}, size_t{4}, size_t{8}, whole.size() / 2, whole.size() - 9, whole.size() - 1}) {
    CAPTURE(kept);
    const std::string path = folder.write("cut.parquet", std::string_view(whole).substr(0, kept));
    const std::string message = message_of([&] { open(path); });
    CHECK(message.starts_with(path + ": "));
    CHECK(message.find('\n') == message.npos);
  }
  // The middle is gone, the footer is there.
  const std::string gap = folder.write("gap.parquet", whole.substr(0, 1000) + whole.substr(whole.size() - 6000));
  CHECK_FALSE(reads_whole(gap));
  CHECK(message_of([&] { open(folder.path()); }).find("expected a regular file, found a folder") != std::string::npos);
  CHECK(message_of([&] { open(folder.write("text.parquet", std::string(5000, 'x'))); }).find("arquet") !=
        std::string::npos);
}

TEST_CASE("a file that is cut after it was opened gives broken records") {
  if (skipped()) return;
  const Folder folder;
  const std::string path = folder.write("shrinks.parquet", bytes_of(file_of("cauldron")));
  const auto source = open(path);
  source->read(0);
  std::filesystem::resize_file(path, 100000);
  CHECK(refusal_of(*source, 50, Fault::broken_record).find("expected") != std::string::npos);
}

TEST_CASE("damaged files give errors or records, never a crash") {
  if (skipped()) return;
  const Folder folder;
  for (const std::string name : {"nulls", "cauldron-edge"}) {
    const std::string whole = bytes_of(file_of(name));
    Random random(11);
    int whole_still = 0;
    for (int i = 0; i < 300; ++i) {
      std::string damaged = whole;
      // Half of it where the footer and the page headers are.
      const size_t reach = i % 2 ? whole.size() : std::min<size_t>(whole.size(), 2500);
      for (int k = 0; k <= i % 3; ++k)
        damaged[whole.size() - 1 - random.below(reach)] ^= static_cast<char>(1 << random.below(8));
      whole_still += reads_whole(folder.write("damaged.parquet", damaged));
    }
    CHECK(whole_still < 300);
  }
}

TEST_CASE("a build without Arrow says how to get it") {
  if (parquet_can_be_read()) return;
  const std::string message = message_of([] { open_dataset({file_of("mmstar")}); });
  CHECK(message.find("scripts/setup.sh") != std::string::npos);
  CHECK(message.find('\n') == message.npos);
}
