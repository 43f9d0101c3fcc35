#include "data/sample_sheet.h"

#include <algorithm>

namespace nanovlm {
namespace {
constexpr Rgb kBackground{238, 240, 243}, kPaper{255, 255, 255}, kBorder{213, 217, 224}, kFaint{107, 115, 132};
constexpr int kContent = 256;  // pixels: the side of a picture, and the width of the text below it
constexpr int kPadding = 12, kGap = 16, kMargin = 24, kHead = 56;
constexpr int kTextSize = 12, kTitleSize = 20, kLine = 18, kTokenLines = 16;
constexpr int kCardWidth = kContent + 2 * kPadding;

// Small pictures are enlarged so that every pixel shows.
Image shown(const Image& picture) {
  const int side = std::max(picture.width, picture.height);
  if (side <= kContent) return enlarged(picture, kContent / side);
  const auto scaled = [&](int x) { return std::max(static_cast<int>(int64_t{x} * kContent / side), 1); };
  return resize(picture, scaled(picture.width), scaled(picture.height));
}

std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }
}  // namespace

SampleSheet::SampleSheet(const std::vector<std::string>& font_folders)
    : text_(kTextSize, false, font_folders), title_(kTitleSize, true, font_folders) {}

int SampleSheet::Card::height() const {
  return 3 * kPadding + kContent + kLine * (1 + !source.empty() + static_cast<int>(lines.size()));
}

void SampleSheet::add(const Sample& sample, const Sample& whole, const std::string& source,
                      const Tokenizer& tokenizer) {
  std::vector<Token> tokens;
  for (size_t t = 0; t < whole.ids.size(); ++t) {
    const bool kept = t < sample.ids.size();
    const Rgb colour = !kept ? kCut : static_cast<int64_t>(t) >= sample.first_target ? kLearnt : kRead;
    tokens.push_back({tokenizer.decode(std::span(&whole.ids[t], 1)), colour});
  }
  cards_.push_back({shown(*sample.picture), text_.shortened(last_part(sample.place), kContent),
                    text_.shortened(source, kContent), wrapped(tokens)});
}

// Lines break before a token that does not fit; inside one only where it is wider than a line.
std::vector<std::vector<SampleSheet::Run>> SampleSheet::wrapped(const std::vector<Token>& tokens) const {
  std::vector<std::vector<Run>> lines(1);
  size_t line_begin = 0;  // the first token of the last line
  int x = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string rest = tokens[i].text;
    for (bool begins = true; !rest.empty(); begins = false) {
      const int width = text_.width(rest);
      if (x > 0 && x + width > kContent) {
        if (lines.size() == kTokenLines) {
          lines.back() = {{text("… and ", tokens.size() - line_begin, " tokens more"), kFaint, 0, false}};
          return lines;
        }
        lines.emplace_back();
        line_begin = i;
        x = 0;
      }
      const size_t end = text_.fitting(rest, kContent - x);
      lines.back().push_back({rest.substr(0, end), tokens[i].colour, x, begins});
      x += text_.width(lines.back().back().text);
      rest.erase(0, end);
    }
  }
  return lines;
}

void SampleSheet::draw(const Card& card, int x, int y, int height, Image& on) const {
  fill(on, x, y, kCardWidth, height, kBorder);
  fill(on, x + 1, y + 1, kCardWidth - 2, height - 2, kPaper);
  x += kPadding;
  y += kPadding;
  paste(on, card.picture, x + (kContent - card.picture.width) / 2, y + (kContent - card.picture.height) / 2);
  y += kContent + kPadding;
  for (const std::string& name : {card.place, card.source}) {
    if (name.empty()) continue;
    text_.draw(on, x, y, name, kFaint);
    y += kLine;
  }
  for (const std::vector<Run>& line : card.lines) {
    for (const Run& run : line) {
      text_.draw(on, x + run.x, y, run.text, run.colour);
      if (run.begins && run.x > 0) fill(on, x + run.x, y + kLine - 5, 1, 3, kBorder);
    }
    y += kLine;
  }
}

Image SampleSheet::draw(const std::string& title, int columns) const {
  check(!cards_.empty() && columns > 0, "sample sheet: expected samples and columns, found ", size(), " and ", columns);
  columns = std::min(columns, size());
  std::vector<int> heights;  // of the rows of cards
  int all = kHead + kMargin - kGap;
  for (int first = 0; first < size(); first += columns) {
    int height = 0;
    for (int i = first; i < std::min(first + columns, size()); ++i)
      height = std::max(height, cards_[static_cast<size_t>(i)].height());
    heights.push_back(height);
    all += height + kGap;
  }
  Image sheet{2 * kMargin + columns * (kCardWidth + kGap) - kGap, all, {}};
  sheet.rgb.resize(3 * static_cast<size_t>(sheet.width) * sheet.height);
  fill(sheet, 0, 0, sheet.width, sheet.height, kBackground);

  const int room = sheet.width - 2 * kMargin;
  const std::string legend = text_.shortened(text(size(), " samples: green is learnt, red is cut"), room);
  const int free = room - text_.width(legend) - kGap;
  if (free > 0) title_.draw(sheet, kMargin, 18, title_.shortened(title, free), kRead);
  text_.draw(sheet, sheet.width - kMargin - text_.width(legend), 24, legend, kFaint);
  int y = kHead;
  for (size_t row = 0; row < heights.size(); y += heights[row++] + kGap)
    for (int column = 0; column < columns; ++column) {
      const size_t i = row * static_cast<size_t>(columns) + static_cast<size_t>(column);
      if (i < cards_.size()) draw(cards_[i], kMargin + column * (kCardWidth + kGap), y, heights[row], sheet);
    }
  return sheet;
}

}  // namespace nanovlm
