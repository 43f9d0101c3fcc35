// Tokens that are cut out of a text before anything else looks at it: <|im_start|> and the like.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

namespace nanovlm {

struct AddedToken {
  int32_t id;
  bool single_word;  // only where no word character (\w) touches it
  bool lstrip;       // takes the white space before it along
  bool rstrip;       // and after it
};

class AddedTokens {
 public:
  // content is not empty. Of equal contents the first one counts.
  void add(std::string_view content, const AddedToken& token);

  // A stretch of a text: an added token (id >= 0) or what lies between them (id < 0).
  struct Part {
    size_t begin, end;
    int32_t id;
  };

  // The parts of a text (valid UTF-8), in order; empty for an empty text. Of the tokens that begin at a byte the
  // longest matches; matches do not overlap, and one that single_word rejects still hides those inside it.
  std::vector<Part> split(std::string_view text) const;

 private:
  struct Node {
    std::map<uint8_t, int32_t> next;
    int32_t token = -1;  // the one that ends here
  };
  struct Match {
    size_t size;
    int32_t token;  // -1: none
  };
  Match longest_match(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> trie_{1};
  std::array<bool, 256> begins_{};  // the bytes that a token can begin with
};

}  // namespace nanovlm
