// The sheet of samples that people look at: its size, the colours in it, long texts, and what is missing.
#include "data/sample_sheet.h"

#include <algorithm>

#include "data/unicode.h"
#include "tests/support/catch.h"
#include "tests/support/messages.h"

using namespace nanovlm;

namespace {
constexpr Rgb kWhite{255, 255, 255}, kBlue{0, 0, 255};

Image paper(int width, int height) {
  return {width, height, std::vector<uint8_t>(3 * static_cast<size_t>(width) * height, 255)};
}

Rgb at(const Image& image, int x, int y) {
  const uint8_t* pixel = &image.rgb[3 * (static_cast<size_t>(y) * image.width + x)];
  return {pixel[0], pixel[1], pixel[2]};
}

int count(const Image& image, Rgb colour) {
  int n = 0;
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) n += at(image, x, y) == colour;
  return n;
}

// Columns of the picture in which something is drawn.
std::pair<int, int> inked(const Image& image) {
  int first = image.width, last = -1;
  for (int x = 0; x < image.width; ++x)
    for (int y = 0; y < image.height; ++y)
      if (!(at(image, x, y) == kWhite)) {
        first = std::min(first, x);
        last = std::max(last, x);
      }
  return {first, last};
}

const PromptTokenizer& tokenizer() {
  static const PromptTokenizer text = PromptTokenizer::load(NANOVLM_FIXTURES "/tokenizer/tiny");
  return text;
}

// A sample of `read` + `learnt` tokens, and `cut` more in `whole`; the picture is all blue.
struct Samples {
  Sample sample, whole;
};
Samples samples(size_t read, size_t learnt, size_t cut, const std::string& question = "What is this?") {
  Samples made;
  made.whole.ids = tokenizer().tokenizer.encode(question);
  while (made.whole.ids.size() < read + learnt + cut)
    made.whole.ids.insert(made.whole.ids.end(), made.whole.ids.begin(), made.whole.ids.end());
  made.whole.ids.resize(read + learnt + cut);
  made.sample.ids.assign(made.whole.ids.begin(), made.whole.ids.end() - static_cast<int64_t>(cut));
  made.sample.first_target = static_cast<int64_t>(read);
  made.sample.place = "some/folder/train.jsonl:7";
  Image blue = paper(8, 8);
  fill(blue, 0, 0, 8, 8, kBlue);
  made.sample.picture = std::make_shared<const Image>(blue);
  return made;
}

Image sheet_of(const std::vector<Samples>& all, int columns = 6) {
  SampleSheet sheet;
  for (const Samples& s : all) sheet.add(s.sample, s.whole, "vqa", tokenizer().tokenizer);
  return sheet.draw("title", columns);
}
}  // namespace

TEST_CASE("rectangles and pictures are drawn as far as they lie inside") {
  Image image = paper(5, 4);
  fill(image, 3, 2, 9, 9, kBlue);
  CHECK(count(image, kBlue) == 4);
  fill(image, -3, -3, 4, 4, kBlue);
  CHECK(at(image, 0, 0) == kBlue);
  CHECK(count(image, kBlue) == 5);
  fill(image, 6, 0, 3, 3, kBlue);
  CHECK(count(image, kBlue) == 5);

  Image two{2, 1, {1, 2, 3, 4, 5, 6}};
  const Image six = enlarged(two, 3);
  CHECK(six.width == 6);
  CHECK(six.height == 3);
  CHECK(at(six, 2, 2) == Rgb{1, 2, 3});
  CHECK(at(six, 3, 0) == Rgb{4, 5, 6});
  paste(image, two, -1, 3);
  CHECK(at(image, 0, 3) == Rgb{4, 5, 6});
  paste(image, six, 4, -2);
  CHECK(at(image, 4, 0) == Rgb{1, 2, 3});
}

TEST_CASE("text is as wide as measured, in UTF-8, and never outside the picture") {
  const Typeface face(12);
  for (const char* text : {"Hello", "größer", "Привет, мир", "a\nb\x01", "\xff\xfe"}) {
    CAPTURE(text);
    Image image = paper(200, 20);
    face.draw(image, 10, 2, text, {0, 0, 0});
    const auto [first, last] = inked(image);
    CHECK(first >= 9);
    CHECK(last <= 10 + face.width(text));
    CHECK(last >= 10 + face.width(text) / 2);
  }
  CHECK(face.width("größer") < face.width("gr  ößer"));
  CHECK(face.width("") == 0);
  Image image = paper(20, 10);
  face.draw(image, -50, -5, "far outside, and then across it", {0, 0, 0});
  face.draw(image, 15, 8, "across the corner", {0, 0, 0});

  const std::string text = "Ñandú — ñandúes";
  for (const int room : {0, 1, 20, 50, 90}) {
    const size_t end = face.fitting(text, room);
    CHECK(find_invalid_utf8(text.substr(0, end)) == std::string::npos);
    CHECK((face.width(text.substr(0, end)) <= room || end == 2));
    CHECK(face.shortened(text, room).ends_with("…"));
  }
  CHECK(face.shortened(text, 500) == text);
}

TEST_CASE("a missing font is named with the places that were searched") {
  CHECK(message_of([] {
          Typeface(12, true, {"/nowhere", "/not/here"});
        }) ==
        "drawing: expected the font DejaVuSans-Bold.ttf in one of /nowhere, /not/here, found none: install "
        "fonts-dejavu-core");
  CHECK(
      message_of([] { SampleSheet({"/nowhere"}); }).starts_with("drawing: expected the font DejaVuSans.ttf in one of"));
}

TEST_CASE("a sheet has a card a sample, and a colour for what is read, learnt and cut") {
  const Image plain = sheet_of({samples(8, 0, 0)});
  CHECK(count(plain, kBlue) == 256 * 256);  // 8 x 8, enlarged
  CHECK(count(plain, SampleSheet::kRead) > 20);
  CHECK(count(plain, SampleSheet::kLearnt) == 0);
  CHECK(count(plain, SampleSheet::kCut) == 0);
  const Image coloured = sheet_of({samples(8, 3, 3)});
  CHECK(count(coloured, SampleSheet::kLearnt) > 5);
  CHECK(count(coloured, SampleSheet::kCut) > 5);

  const std::vector<Samples> five(5, samples(3, 1, 0));
  const Image row = sheet_of(five), column = sheet_of(five, 1), pairs = sheet_of(five, 2);
  CHECK(count(row, kBlue) == 5 * 256 * 256);
  CHECK(row.width - plain.width == 4 * (256 + 24 + 16));
  CHECK(row.height < plain.height + 1);
  CHECK(column.width == plain.width);
  CHECK(pairs.height > 2 * row.height);
  CHECK(pairs.height < column.height);
  CHECK(message_of([] { SampleSheet().draw("title"); }).starts_with("sample sheet: expected samples"));
}

TEST_CASE("a long text is wrapped inside its card, and what is too long is counted") {
  const Image one = sheet_of({samples(3, 0, 0)}), some = sheet_of({samples(60, 0, 0)}),
              many = sheet_of({samples(500, 0, 0)}), more = sheet_of({samples(5000, 0, 0)});
  CHECK(some.height > one.height + 18);
  CHECK(many.height > some.height);
  CHECK(more.height == many.height);
  CHECK(many.width == one.width);
  CHECK(sheet_of({samples(500, 0, 0, std::string(3000, 'w'))}).width == one.width);
  // Nothing is written beyond the card's padding: there the paper is white.
  for (int y = 60; y < many.height - 30; ++y) REQUIRE(at(many, many.width - 24 - 6, y) == kWhite);
}

TEST_CASE("a picture larger than its card is made smaller") {
  Samples large = samples(3, 1, 0);
  Image blue = paper(700, 700);
  fill(blue, 0, 0, 700, 700, kBlue);
  large.sample.picture = std::make_shared<const Image>(blue);
  CHECK(count(sheet_of({large}), kBlue) == 256 * 256);
}
