// Samples to look at before a run: each a card with the picture as the model sees it, where it comes from, and its
// text, token by token, coloured by what the loss makes of it.
#pragma once
#include <string>
#include <vector>

#include "data/collate.h"
#include "data/drawing.h"

namespace nanovlm {

class SampleSheet {
 public:
  static constexpr Rgb kRead{29, 35, 48}, kLearnt{18, 128, 60}, kCut{196, 38, 46};

  // Error: the fonts are missing (see Typeface).
  explicit SampleSheet(const std::vector<std::string>& font_folders = Typeface::font_folders());

  // `whole` is the same sample without a limit to its length: the tokens that `sample` lacks are drawn as cut.
  void add(const Sample& sample, const Sample& whole, const std::string& source, const Tokenizer& tokenizer);
  int size() const { return static_cast<int>(cards_.size()); }

  // At most `columns` cards side by side. About 0.4 MB a card.
  Image draw(const std::string& title, int columns = 6) const;

 private:
  struct Token {
    std::string text;
    Rgb colour;
  };
  struct Run {  // of a token's characters, on one line
    std::string text;
    Rgb colour;
    int x;
    bool begins;  // the token does
  };
  struct Card {
    Image picture;
    std::string place, source;
    std::vector<std::vector<Run>> lines;
    int height() const;
  };

  std::vector<std::vector<Run>> wrapped(const std::vector<Token>& tokens) const;
  void draw(const Card& card, int x, int y, int height, Image& on) const;

  const Typeface text_, title_;
  std::vector<Card> cards_;
};

}  // namespace nanovlm
