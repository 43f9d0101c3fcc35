// Records from JSON Lines: both schemas, every kind of broken line, hostile picture paths, and how rows are split.
#include "data/dataset.h"
#include "data/json_records.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/messages.h"

using namespace nanovlm;
namespace fs = std::filesystem;

namespace {
std::string line_of(int i) { return text(R"({"texts":[{"user":"q)", i, R"(","assistant":"a)", i, "\"}]}\n"); }

struct Refusal {
  Fault fault;
  std::string message;
};

template <class F>
Refusal refusal_of(F&& f) {
  try {
    f();
  } catch (const BadRecord& bad) {
    return {bad.fault, bad.what()};
  }
  FAIL("expected a bad record");
  return {};
}
}  // namespace

TEST_CASE("a record of the_cauldron has its pictures and turns") {
  const Folder folder;
  const JsonLines source(folder.write(
      "r.jsonl",
      R"({"images": ["a/b.png", null, {"path": "c.png", "bytes": null}, {"path": "d.png", "bytes": "AAEC/w=="}],)"
      R"( "texts": [{"user": "q0", "assistant": "a0", "source": "s"}, {"user": "", "assistant": "\u00e9"}], "id": 7})"));
  REQUIRE(source.size() == 1);
  const Record record = source.read(0);
  REQUIRE(record.images.size() == 3);
  CHECK(record.images[0].path == "a/b.png");
  CHECK(record.images[0].folder == folder.path());
  CHECK(record.images[0].bytes.empty());
  CHECK(record.images[1].path == "c.png");
  CHECK(record.images[2].bytes == std::vector<uint8_t>{0, 1, 2, 255});
  CHECK(picture_bytes(record.images[2], "f:1") == record.images[2].bytes);
  REQUIRE(record.texts.size() == 2);
  CHECK(record.texts[0].user == "q0");
  CHECK(record.texts[0].assistant == "a0");
  CHECK(record.texts[0].source == "s");
  CHECK(record.texts[1].user.empty());
  CHECK(record.texts[1].assistant == "\u00e9");
  CHECK_FALSE(record.null_first);
  const JsonLines nulls(
      folder.write("n.jsonl", R"({"images": [null, "a.png"], "texts": [{"user": "", "assistant": ""}]})"));
  CHECK((nulls.read(0).null_first && nulls.read(0).images.size() == 1));
}

TEST_CASE("a record of MMStar is one turn about one picture") {
  const Folder folder;
  const JsonLines source(
      folder.write("r.jsonl", R"({"index": 0, "question": "Which?\nOptions: A: x", "image": "p.png", "answer": "A"})"));
  const Record record = source.read(0);
  REQUIRE(record.images.size() == 1);
  CHECK(record.images[0].path == "p.png");
  REQUIRE(record.texts.size() == 1);
  CHECK(record.texts[0].user == "Which?\nOptions: A: x");
  CHECK(record.texts[0].assistant == "A");
}

TEST_CASE("a conversation of LLaVA or ShareGPT is turns about its pictures") {
  const Folder folder;
  const auto record_of = [&](const std::string& json) { return JsonLines(folder.write("r.jsonl", json)).read(0); };
  const Record llava = record_of(
      R"({"id": 1, "image": "a/b.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},)"
      R"( {"from": "gpt", "value": "A cat."}, {"from": "human", "value": "Sure?\n<image>"}, {"from": "gpt", "value": "Yes"}]})");
  REQUIRE(llava.images.size() == 1);
  CHECK(llava.images[0].path == "a/b.jpg");
  REQUIRE(llava.texts.size() == 2);
  CHECK(llava.texts[0].user == "What is it?");
  CHECK(llava.texts[0].assistant == "A cat.");
  CHECK(llava.texts[1].user == "Sure?");
  CHECK(llava.texts[1].assistant == "Yes");

  const Record chat = record_of(
      R"({"images": ["1.png", "2.png"], "messages": [{"role": "system", "content": "Be brief."},)"
      R"( {"role": "user", "content": "Left <image> or <image>?"}, {"role": "assistant", "content": "Left"}]})");
  CHECK(chat.images.size() == 2);
  REQUIRE(chat.texts.size() == 1);
  CHECK(chat.texts[0].user == "Be brief.\nLeft  or ?");
  CHECK(record_of(R"({"image": ["1.png", "2.png"], "conversations": [{"from": "human", "value": "q"},)"
                  R"( {"from": "gpt", "value": "a"}]})")
            .images.size() == 2);
  CHECK(record_of(R"({"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]})")
            .images.empty());

  const auto refusal = [&](const std::string& turns) {
    return refusal_of([&] { record_of(R"({"conversations": [)" + turns + "]}"); }).message;
  };
  CHECK(
      refusal(R"({"from": "gpt", "value": "a"})").ends_with("[0].from: expected a question, found the string \"gpt\""));
  CHECK(refusal(R"({"from": "human", "value": "a"}, {"from": "human", "value": "b"})")
            .ends_with("[1].from: expected an answer to the question before, found the string \"human\""));
  CHECK(refusal(R"({"from": "human", "value": "a"})").ends_with("expected an answer to the last question, found none"));
  CHECK(refusal(R"({"from": "human"})").find("[0]") != std::string::npos);
}

TEST_CASE("records of an array are found without reading it whole") {
  const Folder folder;
  const std::string strange = R"({"texts":[{"user":"] } , \" \\","assistant":"[[{{"}]})";
  const std::string path =
      folder.write("r.json", "\n [ " + line_of(0) + " ,\t" + strange + "," + line_of(2) + ", 7]\n");
  const JsonArray source(path);
  REQUIRE(source.size() == 4);
  CHECK(source.read(0).texts[0].user == "q0");
  CHECK(source.read(1).texts[0].user == "] } , \" \\");
  CHECK(source.read(1).texts[0].assistant == "[[{{");
  CHECK(source.read(2).texts[0].user == "q2");
  CHECK(source.place(2) == path + ": record 2");
  CHECK(refusal_of([&] { source.read(3); }).message == path + ": record 3: $: expected an object, found 7");
  CHECK(JsonArray(folder.write("none.json", "[]")).size() == 0);

  // Longer than the block in which records are looked for.
  std::string many = "[";
  int rows = 0;
  for (; many.size() < (9u << 20); ++rows)
    many += text(rows ? "," : "", R"({"texts":[{"user":")", rows, " ",
                 std::string(static_cast<size_t>(rows % 977), 'x'), R"(","assistant":"a"}]})");
  const JsonArray large(folder.write("many.json", many + "]"));
  REQUIRE(large.size() == rows);
  for (int row : {0, 1, rows / 2, rows - 1})
    CHECK(large.read(row).texts[0].user.starts_with(std::to_string(row) + " "));

  const auto refusal = [&](const std::string& bytes) {
    return message_of([&] { JsonArray(folder.write("bad.json", bytes)); });
  };
  for (const char* cut : {"", "[", "[{\"a\": \"]", "[{}"})
    CHECK(refusal(cut).find("expected an array") != std::string::npos);
  CHECK(refusal("{\"a\": 1}") == folder.file("bad.json") + ": byte 0: expected an array of records, found \"{\"");
  CHECK(refusal("[{}] x") == folder.file("bad.json") + ": byte 5: expected nothing behind the array, found more");
}

TEST_CASE("a byte order mark is no part of the first record") {
  const Folder folder;
  const std::string mark = "\xEF\xBB\xBF";
  for (const std::string& lines : {mark + line_of(0) + line_of(1), mark + "\n" + line_of(0) + line_of(1)}) {
    const JsonLines source(folder.write("r.jsonl", lines));
    REQUIRE(source.size() == 2);
    for (int row = 0; row < 2; ++row) CHECK(source.read(row).texts[0].user == text("q", row));
  }
  CHECK(JsonLines(folder.write("r.jsonl", mark)).size() == 0);
  const JsonArray array(folder.write("r.json", mark + "[" + line_of(0) + "," + line_of(1) + "]"));
  REQUIRE(array.size() == 2);
  CHECK(array.read(0).texts[0].user == "q0");
  // Only there, and only whole.
  const JsonLines twice(folder.write("r.jsonl", mark + mark + line_of(0) + mark + line_of(1)));
  REQUIRE(twice.size() == 2);
  for (int row = 0; row < 2; ++row)
    CHECK(refusal_of([&] { twice.read(row); }).message.find("byte order mark") != std::string::npos);
  CHECK(message_of([&] { JsonArray(folder.write("r.json", "\xEF\xBB[]")); }).find("byte 0: expected an array") !=
        std::string::npos);
}

TEST_CASE("lines are found whatever their ends and lengths") {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 3; ++i) lines += line_of(i);
  lines.pop_back();
  CHECK(JsonLines(folder.write("cut", lines)).size() == 3);
  CHECK(JsonLines(folder.write("none", "")).size() == 0);
  CHECK(
      JsonLines(folder.write("crlf", "{\"texts\":[{\"user\":\"q\",\"assistant\":\"a\"}]}\r\n")).read(0).texts[0].user ==
      "q");

  // Blank lines are no records, but lines: places count them.
  const JsonLines blank(folder.write("blank", "\n \t\r\n" + line_of(0) + "\n" + line_of(1) + line_of(2) + "\r\n  "));
  REQUIRE(blank.size() == 3);
  for (const auto& [row, line] : {std::pair(0, 3), std::pair(1, 5), std::pair(2, 6)}) {
    CHECK(blank.read(row).texts[0].user == text("q", row));
    CHECK(blank.place(row) == text(folder.file("blank"), ":", line));
  }

  // Longer than the block in which lines are looked for, in lines that straddle its ends.
  std::string many;
  int rows = 0;
  for (; many.size() < (9u << 20); ++rows)
    many += text(R"({"texts":[{"user":")", rows, " ", std::string(static_cast<size_t>(rows % 977), 'x'),
                 R"(","assistant":"a"}]})", "\n");
  const JsonLines source(folder.write("many", many));
  REQUIRE(source.size() == rows);
  for (int row : {0, 1, rows / 3, rows / 2, rows - 2, rows - 1})
    CHECK(source.read(row).texts[0].user.starts_with(std::to_string(row) + " "));
  CHECK(source.place(rows - 1) == text(folder.file("many"), ":", rows));
}

TEST_CASE("a broken line says where and why, and the lines round it can be read") {
  const Folder folder;
  const std::pair<const char*, const char*> cases[] = {
      {"{", ""},
      {"[]", "$: expected an object, found an array of 0"},
      {"{\"texts\": 1}", "$.texts: expected an array, found 1"},
      {R"({"texts": [{"user": 1, "assistant": "a"}]})", "$.texts[0].user: expected a string, found 1"},
      {R"({"texts": [{"user": "q"}]})", "$.texts[0]"},
      {R"({"texts": [{"user": "q", "assistant": null}]})", "$.texts[0].assistant: expected a string, found null"},
      {R"({"texts": ["q"]})", "$.texts[0]: expected an object, found the string \"q\""},
      {R"({"texts": [], "texts": []})", "$.texts: expected each key once, found it twice"},
      {R"({"images": "a.png", "texts": []})", "$.images: expected an array, found the string \"a.png\""},
      {R"({"images": [7], "texts": []})", "$.images[0]: expected an object, found 7"},
      {R"({"images": [{"bytes": "!!!="}], "texts": []})",
       "$.images[0].bytes: expected base64, found the string \"!!!=\""},
      {R"({"question": "q", "image": "p"})", "$"},
      {"{\"texts\": [{\"user\": \"\xff\", \"assistant\": \"a\"}]}", ""},
      {R"({"texts": [{"user": "\ud800", "assistant": "a"}]})", ""},
  };
  for (const auto& [line, expected] : cases) {
    CAPTURE(line);
    const JsonLines source(folder.write("r.jsonl", line_of(0) + line + "\n" + line_of(2)));
    REQUIRE(source.size() == 3);
    const Refusal refusal = refusal_of([&] { source.read(1); });
    CHECK(refusal.fault == Fault::broken_record);
    CHECK(refusal.message.starts_with(folder.file("r.jsonl") + ":2: " + expected));
    CHECK(source.read(0).texts[0].user == "q0");
    CHECK(source.read(2).texts[0].user == "q2");
  }
  const JsonLines no_text(folder.write("r.jsonl", "{\"images\": []}\n{\"texts\": []}\n"));
  for (int row : {0, 1}) CHECK(refusal_of([&] { no_text.read(row); }).fault == Fault::no_text);
}

TEST_CASE("a file that is cut after it was opened gives broken records, not a crash") {
  const Folder folder;
  const JsonLines source(folder.write("r.jsonl", line_of(0) + line_of(1)));
  fs::resize_file(folder.file("r.jsonl"), line_of(0).size() + 3);
  CHECK(source.read(0).texts[0].user == "q0");
  CHECK(refusal_of([&] { source.read(1); }).fault == Fault::broken_record);
}

TEST_CASE("a picture's path may not leave its folder, nor lead to anything but a file") {
  const Folder outside;
  outside.write("secret.png", "secret");
  const Folder folder;
  folder.write("inside/a.png", "picture");
  folder.write("a.png", "picture");
  fs::create_symlink("inside/a.png", folder.file("link"));
  fs::create_symlink(outside.file("secret.png"), folder.file("link-out"));
  fs::create_symlink(outside.path(), folder.file("folder-out"));
  fs::create_symlink("../../../../../../etc/passwd", folder.file("passwd"));
  fs::create_symlink("loop", folder.file("loop"));
  fs::create_symlink("gone", folder.file("dangling"));
  fs::create_symlink("/dev/zero", folder.file("zero"));
  fs::create_symlink("/proc/self/fd/0", folder.file("stdin"));
  REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{AF_UNIX, {}};
  folder.file("socket").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(listener, 1) == 0);

  const auto read = [&](const std::string& path) { return picture_bytes({{}, folder.path(), path}, "f:1"); };
  for (const char* path : {"a.png", "inside/a.png", "./a.png", "inside//a.png", "inside/./a.png", "link"}) {
    CAPTURE(path);
    const auto bytes = read(path);
    CHECK(std::string(bytes.begin(), bytes.end()) == "picture");
  }
  const std::string outer = fs::path(outside.path()).filename().string();
  const std::string hostile[] = {"",
                                 ".",
                                 "/",
                                 "..",
                                 "/etc/passwd",
                                 "//etc/passwd",
                                 outside.file("secret.png"),
                                 "../" + outer + "/secret.png",
                                 "inside/../../" + outer + "/secret.png",
                                 "inside/../a.png",
                                 "a.png/..",
                                 "./..",
                                 "link-out",
                                 "folder-out/secret.png",
                                 "passwd",
                                 "loop",
                                 "dangling",
                                 "zero",
                                 "stdin",
                                 "pipe",
                                 "socket",
                                 "inside",
                                 "inside/",
                                 "a.png/",
                                 "a.png/x",
                                 std::string("a.png\0.txt", 10),
                                 "file:///etc/passwd",
                                 "http://127.0.0.1/a.png",
                                 "~/a.png",
                                 "$HOME/a.png",
                                 std::string(5000, 'x'),
                                 "\xff\xfe"};
  for (const std::string& path : hostile) {
    CAPTURE(path);
    const Refusal refusal = refusal_of([&] { read(path); });
    CHECK(refusal.fault == Fault::missing_picture);
    CHECK(refusal.message.starts_with("f:1: picture "));
  }
  close(listener);
}

TEST_CASE("a picture file larger than the limit is refused before it is read") {
  const Folder folder;
  folder.write("a.png", "1234567890");
  const Picture picture{{}, folder.path(), "a.png"};
  CHECK(picture_bytes(picture, "f:1", {.max_bytes = 10}).size() == 10);
  CHECK(refusal_of([&] { picture_bytes(picture, "f:1", {.max_bytes = 9}); }).message ==
        "f:1: picture " + folder.file("a.png") + ": expected at most 9 bytes, found 10");
}

TEST_CASE("a data set is a file, a folder, or several of them") {
  const Folder folder;
  folder.write("one/train.jsonl", line_of(0) + line_of(1));
  folder.write("one/test.jsonl", line_of(2));
  folder.write("other/records.jsonl", line_of(3));
  CHECK(open_dataset({folder.file("one")})->size() == 2);
  CHECK(open_dataset({folder.file("one")}, "test")->read(0).texts[0].user == "q2");
  CHECK(open_dataset({folder.file("other")}, "test")->read(0).texts[0].user == "q3");
  CHECK(open_dataset({folder.file("one/test.jsonl")})->size() == 1);

  const auto both = open_dataset({folder.file("one"), folder.file("other"), folder.file("one/test.jsonl")});
  REQUIRE(both->size() == 4);
  const char* users[] = {"q0", "q1", "q3", "q2"};
  for (int row = 0; row < 4; ++row) CHECK(both->read(row).texts[0].user == users[row]);
  CHECK(both->place(1) == folder.file("one/train.jsonl") + ":2");
  CHECK(both->place(2) == folder.file("other/records.jsonl") + ":1");
  CHECK(all_rows(*both) == std::vector<int64_t>{0, 1, 2, 3});
}

TEST_CASE("files without records are no harm among others, but alone they are no data set") {
  const Folder folder;
  const std::string none = folder.write("none.jsonl", ""), blank = folder.write("blank.jsonl", "\n"),
                    no_array = folder.write("none.json", "[]"),
                    two = folder.write("two.jsonl", line_of(0) + line_of(1));
  const auto data = open_dataset({none, two, blank, two + "@2", no_array});
  REQUIRE(data->size() == 4);
  CHECK(data->blocks() == 4);
  for (int64_t row = 0; row < 4; ++row) {
    CHECK(data->read(row).texts[0].user == text("q", row % 2));
    CHECK(data->place(row) == text(two, ":", row % 2 + 1));
    CHECK(data->block_of(row) == row);
    CHECK(data->subset_of(row).weight == (row < 2 ? 1 : 2));
  }
  CHECK(message_of([&] {
          open_dataset({none, blank, no_array});
        }) == none + ", " + blank + ", " + no_array + ": expected records, found none");
}

TEST_CASE("what is no data set is refused by name") {
  const Folder folder;
  folder.write("empty.jsonl", "");
  folder.write("two/a.jsonl", line_of(0));
  folder.write("two/b.jsonl", line_of(0));
  folder.write("other.txt", line_of(0));
  const auto refusal = [](const std::string& path) { return message_of([&] { open_dataset({path}); }); };
  CHECK(refusal(folder.file("no")) ==
        folder.file("no") + ": expected a data set, found no file and no folder of this name");
  CHECK(refusal(folder.file("empty.jsonl")) == folder.file("empty.jsonl") + ": expected records, found none");
  CHECK(refusal(folder.file("two")) ==
        folder.file("two") +
            ": expected train.jsonl, train.json, train.parquet, train-*.parquet or a single such file in "
            "it, found 2 files");
  CHECK(refusal(folder.file("other.txt")) ==
        folder.file("other.txt") +
            ": expected a .jsonl, .json or .parquet file, or a folder with one, found a file of another kind");
  CHECK(message_of([] { open_dataset({}); }) == "data set: expected at least one path, found none");
}

TEST_CASE("validation takes the last share of the shuffled, cut rows") {
  const Folder folder;
  const auto split_rows = [&](int rows, uint64_t seed, std::optional<int64_t> data_cutoff_idx, double val_ratio) {
    std::string lines;
    for (int i = 0; i < rows; ++i) lines += line_of(i);
    const auto data = open_dataset({folder.write("r.jsonl", lines)});
    return nanovlm::split_rows(*data, {seed, data_cutoff_idx, val_ratio});
  };
  const Split all = split_rows(64, 0, std::nullopt, 0.27);
  CHECK(all.train.size() == 47);
  CHECK(all.validation.size() == 17);
  std::vector<int64_t> rows = all.train;
  rows.insert(rows.end(), all.validation.begin(), all.validation.end());
  CHECK_FALSE(std::is_sorted(rows.begin(), rows.end()));

  const Split cut = split_rows(64, 0, 40, 0.1);
  CHECK(cut.train == std::vector<int64_t>(rows.begin(), rows.begin() + 36));
  CHECK(cut.validation == std::vector<int64_t>(rows.begin() + 36, rows.begin() + 40));
  CHECK(split_rows(64, 1, 40, 0.1).train != cut.train);
  CHECK(split_rows(64, 0, 1000, 0).train == rows);

  std::sort(rows.begin(), rows.end());
  std::vector<int64_t> expected(64);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(rows == expected);

  CHECK(message_of([&] { split_rows(10, 0, std::nullopt, 1); }) ==
        "val_ratio: expected a share from 0 to below 1, found 1");
  CHECK(message_of([&] { split_rows(10, 0, std::nullopt, std::nan("")); }).starts_with("val_ratio: "));
  CHECK(message_of([&] { split_rows(10, 0, 0, 0.1); }) ==
        "data_cutoff_idx: expected a positive number of rows, found 0");
}
