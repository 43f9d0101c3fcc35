// Batches equal to the reference's, number for number, and what the default does differently.
#include "data/collate.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>

#include "engine/file.h"
#include "engine/json.h"
#include "engine/ops.h"
#include "engine/safetensors.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/messages.h"

using namespace nanovlm;
using nlohmann::json;

namespace {
const std::string kFixtures = NANOVLM_FIXTURES "/collate/";

PromptTokenizer tokenizer_of(const std::string& name) {
  return PromptTokenizer::load(name == "tokenizer" ? NANOVLM_ASSETS "/tokenizer" : NANOVLM_FIXTURES "/" + name);
}

// The smallest picture there is.
Picture pixel() {
  Picture picture;
  picture.bytes = encode_png({1, 1, {255, 128, 0}});
  return picture;
}

Record record_of(const std::string& user, const std::string& assistant) {
  Record record;
  record.images.push_back(pixel());
  record.texts.push_back({user, assistant, ""});
  return record;
}

std::vector<int64_t> numbers(const Tensor& x) {
  if (x.dtype() == DType::u8) return {x.u8(), x.u8() + x.numel()};
  return {x.i32(), x.i32() + x.numel()};
}

void check_tensor(const Tensor& x, const SafetensorsFile& expected, const std::string& name) {
  CAPTURE(name);
  REQUIRE(x.shape() == expected.entry(name).shape);
  CHECK(numbers(x) == expected.read_i64(name));
}

Fault fault_of(const Collator& collator, const Record& record) {
  try {
    collator.prepare(record, "f:1");
  } catch (const BadRecord& bad) {
    return bad.fault;
  }
  FAIL("expected a bad record");
  return Fault::no_target;
}

std::string answer_of(const PromptTokenizer& text, const Sample& sample) {
  return text.tokenizer.decode(std::span(sample.ids).subspan(static_cast<size_t>(sample.first_target)));
}
}  // namespace

TEST_CASE("training batches equal the reference's") {
  const Device cpu = Device::open("cpu");
  for (const std::string name : {"vqa-79", "vqa-24", "vqa-tiny-64"}) {
    const json fixture = read_json_file(kFixtures + name + ".json");
    const auto expected = SafetensorsFile::open(kFixtures + name + ".safetensors");
    const VqaCollator collator(tokenizer_of(fixture["tokenizer"]),
                               CollateOptions::nanovlm_v1(4, fixture["max_length"]));
    REQUIRE(expected.entries().size() == 3 * fixture["batches"].size());
    for (size_t b = 0; b < fixture["batches"].size(); ++b) {
      std::vector<Sample> samples;
      for (const auto& r : fixture["batches"][b])
        samples.push_back(collator.prepare(record_of(r["user"], r["assistant"]), "f:1"));
      const Batch batch = collator.collate(samples, cpu);
      CAPTURE(name);
      check_tensor(batch.input_ids, expected, text(b, ".input_ids"));
      check_tensor(batch.attention_mask, expected, text(b, ".attention_mask"));
      check_tensor(batch.labels, expected, text(b, ".labels"));
      CHECK(batch.images.shape() == Shape{batch.size(), 3, 4, 4});
    }
  }
}

TEST_CASE("question batches equal the reference's") {
  const Device cpu = Device::open("cpu");
  for (const std::string name : {"mmstar", "mmstar-tiny"}) {
    const json fixture = read_json_file(kFixtures + name + ".json");
    const auto expected = SafetensorsFile::open(kFixtures + name + ".safetensors");
    const QuestionCollator collator(tokenizer_of(fixture["tokenizer"]), CollateOptions::nanovlm_v1(224, 79),
                                    mmstar_prompt);
    for (size_t b = 0; b < fixture["batches"].size(); ++b) {
      std::vector<Sample> samples;
      for (const auto& r : fixture["batches"][b])
        samples.push_back(collator.prepare(record_of(r["question"], r["answer"]), "f:1"));
      const Batch batch = collator.collate(samples, cpu);
      check_tensor(batch.input_ids, expected, text(b, ".input_ids"));
      check_tensor(batch.attention_mask, expected, text(b, ".attention_mask"));
      check_tensor(collator.answers(samples, cpu), expected, text(b, ".labels"));
      CHECK_FALSE(batch.labels.defined());
    }
  }
}

TEST_CASE("only the first picture and the first turn of a record count") {
  const Device cpu = Device::open("cpu");
  const json cases = read_json_file(kFixtures + "vqa-dataset.json");
  const PromptTokenizer text = tokenizer_of("tokenizer");
  for (const auto& c : cases) {
    const auto size = c["image_shape"][1].get<int>();
    const VqaCollator collator(text, CollateOptions::nanovlm_v1(size, 79));
    Record record;
    for (const auto& turn : c["texts"]) record.texts.push_back({turn["user"], turn["assistant"], turn["source"]});
    // The fixture's first pixel, and other pictures behind it.
    for (int i = 0; i < c["n_images"].get<int>(); ++i) {
      Image image{4, 4, std::vector<uint8_t>(48, static_cast<uint8_t>(7 * i))};
      for (int p = 0; p < 16 && i == 0; ++p)
        for (int channel = 0; channel < 3; ++channel)
          image.rgb[static_cast<size_t>(3 * p + channel)] =
              static_cast<uint8_t>(std::lround(c["image_first_pixel"][channel].get<float>() * 255));
      Picture picture;
      picture.bytes = encode_png(image);
      record.images.push_back(std::move(picture));
    }
    const std::vector<Sample> samples{collator.prepare(record, "f:1")};
    CHECK(vqa_prompt(samples[0].question) == c["text_data"]);
    CHECK(samples[0].answer + text.eos == c["answer"]);
    const Tensor images = unit_range(collator.collate(samples, cpu).images);
    CHECK(images.shape() == Shape{1, 3, size, size});
    for (int channel = 0; channel < 3; ++channel)
      CHECK(images.f32()[channel * size * size] == c["image_first_pixel"][channel].get<float>());
  }
}

TEST_CASE("by default padding is on the right, up to the longest") {
  const Device cpu = Device::open("cpu");
  const PromptTokenizer text = tokenizer_of("tokenizer");
  const VqaCollator collator(text, {4, 79});
  const std::vector<Sample> samples{collator.prepare(record_of("What is it?", "cat"), "f:1"),
                                    collator.prepare(record_of("What colour is the cat?", "black and white"), "f:2")};
  const Batch batch = collator.collate(samples, cpu);
  const auto T = static_cast<int64_t>(samples[1].ids.size()), n = static_cast<int64_t>(samples[0].ids.size());
  REQUIRE(n < T);
  CHECK(batch.input_ids.shape() == Shape{2, T});
  for (int64_t t = 0; t < T; ++t) {
    CAPTURE(t);
    CHECK(batch.attention_mask.u8()[t] == (t < n));
    CHECK(batch.input_ids.i32()[t] == (t < n ? samples[0].ids[static_cast<size_t>(t)] : text.eos_id));
    const bool predicts = t + 1 < n && t + 1 >= samples[0].first_target;
    CHECK(batch.labels.i32()[t] == (predicts ? samples[0].ids[static_cast<size_t>(t) + 1] : kIgnoredLabel));
  }
  CHECK(answer_of(text, samples[0]) == "cat<|endoftext|>");
  CHECK(answer_of(text, samples[1]) == "black and white<|endoftext|>");
}

TEST_CASE("a token that joins question and answer belongs to the answer") {
  const PromptTokenizer text = tokenizer_of("tokenizer");
  const VqaCollator by_offset(text, {4, 79}), by_count(text, CollateOptions::nanovlm_v1(4, 79));
  const json fixture = read_json_file(kFixtures + "vqa-79.json");
  int joined = 0;
  for (const auto& batch : fixture["batches"])
    for (const auto& r : batch) {
      const Record record = record_of(r["user"], r["assistant"]);
      if (r["n_tokens"].get<int>() > 79) continue;
      const Sample sample = by_offset.prepare(record, "f:1");
      CAPTURE(sample.question, sample.answer);
      const std::string expected = sample.answer + text.eos, found = answer_of(text, sample);
      // Whole, and at most what the merged token takes from the question before it.
      REQUIRE(found.ends_with(expected));
      const std::string extra = found.substr(0, found.size() - expected.size());
      CHECK(vqa_prompt(sample.question).ends_with(extra));
      joined += !extra.empty();
      if (extra.empty()) CHECK(sample.first_target == by_count.prepare(record, "f:1").first_target);
    }
  CHECK(joined == 6);
}

TEST_CASE("over-long samples are left out, cut or masked, as asked") {
  const PromptTokenizer text = tokenizer_of("tokenizer");
  const Record record = record_of("What is it?", "a black cat and a white dog on a green field");
  CollateOptions options{4, 79};
  const Sample whole = VqaCollator(text, options).prepare(record, "f:1");
  CHECK_FALSE(whole.cut);
  options.max_length = static_cast<int64_t>(whole.ids.size());
  CHECK(VqaCollator(text, options).prepare(record, "f:1").ids == whole.ids);

  options.max_length -= 1;
  CHECK(fault_of(VqaCollator(text, options), record) == Fault::over_long);
  CHECK(message_of([&] { VqaCollator(text, options).prepare(record, "f:1"); }) ==
        nanovlm::text("f:1: expected at most ", options.max_length, " tokens, found ", whole.ids.size(), " (question ",
                      whole.first_target, ")"));

  options.over_long = OverLong::truncate;
  Sample cut = VqaCollator(text, options).prepare(record, "f:1");
  CHECK(cut.cut);
  CHECK(cut.first_target == whole.first_target);
  CHECK(cut.ids == std::vector<int32_t>(whole.ids.begin(), whole.ids.end() - 1));
  options.max_length = whole.first_target + 1;
  CHECK(VqaCollator(text, options).prepare(record, "f:1").targets() == 1);
  options.max_length = whole.first_target;
  CHECK(fault_of(VqaCollator(text, options), record) == Fault::over_long);

  options.over_long = OverLong::mask;
  CHECK(VqaCollator(text, options).prepare(record, "f:1").targets() == 0);
}

TEST_CASE("records that can't be used say why") {
  const PromptTokenizer text = tokenizer_of("tokenizer");
  const VqaCollator collator(text, {4, 79});
  Record no_text = record_of("", ""), no_picture = record_of("q", "a"), broken = record_of("q", "a"), absent = broken;
  no_text.texts.clear();
  no_picture.images.clear();
  broken.images[0].bytes.resize(20);
  absent.images[0] = {{}, std::filesystem::temp_directory_path().string(), "not/there.png"};
  CHECK(fault_of(collator, no_text) == Fault::no_text);
  CHECK(fault_of(collator, no_picture) == Fault::no_picture);
  CHECK(fault_of(collator, broken) == Fault::broken_picture);
  CHECK(fault_of(collator, absent) == Fault::missing_picture);
  CHECK(message_of([&] { collator.prepare(broken, "f:7"); }).starts_with("f:7: picture: PNG: "));
  CHECK(message_of([&] { collator.prepare(no_picture, "f:7"); }) == "f:7: expected a picture, found none");

  // The reference's black picture is 224 x 224 whatever the config says, so with another size its batch fails.
  CHECK(fault_of(VqaCollator(text, CollateOptions::nanovlm_v1(32, 79)), no_picture) == Fault::no_picture);
}

TEST_CASE("a null before a record's pictures is passed over, but black as nanoVLM v1 has it") {
  const PromptTokenizer text = tokenizer_of("tokenizer");
  Record record = record_of("q", "a");
  record.null_first = true;
  const auto rgb = [&](const CollateOptions& options) {
    return VqaCollator(text, options).prepare(record, "f:1").picture->rgb;
  };
  CHECK(rgb({1, 79}) == std::vector<uint8_t>{255, 128, 0});
  CHECK(rgb(CollateOptions::nanovlm_v1(224, 79)) == std::vector<uint8_t>(224 * 224 * 3));
  record.null_first = false;
  CHECK(rgb(CollateOptions::nanovlm_v1(224, 79)) != std::vector<uint8_t>(224 * 224 * 3));
}

TEST_CASE("a picture is turned upright, resized and kept") {
  const Device cpu = Device::open("cpu");
  const PromptTokenizer text = tokenizer_of("tokenizer");
  const auto cache = std::make_shared<PictureCache>(1 << 20);
  const VqaCollator collator(text, {8, 79}, cache);
  Record record = record_of("q", "a");
  const std::string folder = std::filesystem::canonical(NANOVLM_FIXTURES "/images/files").string();
  record.images[0] = {{}, folder, "jpeg-exif-6.jpg"};
  const Sample sample = collator.prepare(record, "f:1");
  const std::vector<uint8_t> bytes = File::open(folder + "/jpeg-exif-6.jpg").read_all(1 << 20);
  const Image upright = apply_orientation(decode_image(bytes, "picture"), exif_orientation(bytes));
  CHECK(sample.picture->rgb == resize(upright, 8, 8).rgb);
  CHECK(collator.prepare(record, "f:2").picture == sample.picture);

  std::vector<float> expected(3 * 8 * 8);
  image_to_tensor(upright, 8, expected.data());
  const std::vector<Sample> samples{sample, sample};
  const Tensor images = unit_range(collator.collate(samples, cpu).images);
  CHECK(std::vector<float>(images.f32(), images.f32() + 192) == expected);
  CHECK(std::vector<float>(images.f32() + 192, images.f32() + 384) == expected);
}

TEST_CASE("that transformers would clean up decoded text is known") {
  const Folder folder;
  folder.write("tokenizer.json", bytes_of(NANOVLM_FIXTURES "/tokenizer/tiny/tokenizer.json"));
  CHECK_FALSE(PromptTokenizer::load(folder.path()).wants_clean_up);
  for (const bool wanted : {true, false}) {
    folder.write("tokenizer_config.json", text(R"({"clean_up_tokenization_spaces": )", wanted ? "true}" : "false}"));
    CHECK(PromptTokenizer::load(folder.file("tokenizer.json")).wants_clean_up == wanted);
  }
}

TEST_CASE("the end token is read beside the tokenizer") {
  const Folder folder;
  folder.write("tokenizer.json", bytes_of(NANOVLM_FIXTURES "/tokenizer/tiny/tokenizer.json"));
  CHECK(PromptTokenizer::load(folder.path()).eos == "<|endoftext|>");
  folder.write("special_tokens_map.json", R"({"eos_token": {"content": "<|im_end|>"}})");
  CHECK(PromptTokenizer::load(folder.path()).eos_id == 2);
  folder.write("tokenizer_config.json", R"({"eos_token": "<nope>"})");
  CHECK(message_of([&] { PromptTokenizer::load(folder.file("tokenizer.json")); }) ==
        folder.file("tokenizer.json") + ": expected the end token <nope> in the vocabulary, found none");
}
