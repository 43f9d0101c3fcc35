#include "data/added_tokens.h"

#include <algorithm>

#include "data/unicode.h"

namespace nanovlm {
namespace {

bool has_class(const Character& character, CharacterClass wanted) {
  return (CharacterClasses::get()[character.code] & wanted) != 0;
}

size_t skip_spaces(std::string_view text, size_t at) {
  while (at < text.size() && has_class(Character::at(text, at), kSpace)) at += Character::at(text, at).size;
  return at;
}

size_t skip_spaces_back(std::string_view text, size_t end, size_t limit) {
  while (end > limit && has_class(Character::before(text, end), kSpace)) end -= Character::before(text, end).size;
  return end;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !has_class(Character::before(text, begin), kWord)) &&
         (end == text.size() || !has_class(Character::at(text, end), kWord));
}

}  // namespace

void AddedTokens::add(std::string_view content, const AddedToken& token) {
  begins_[static_cast<uint8_t>(content[0])] = true;
  size_t node = 0;
  for (const char c : content) {
    const auto [edge, is_new] = trie_[node].next.emplace(static_cast<uint8_t>(c), static_cast<int32_t>(trie_.size()));
    node = static_cast<size_t>(edge->second);
    if (is_new) trie_.emplace_back();
  }
  if (trie_[node].token >= 0) return;
  trie_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokens::Match AddedTokens::longest_match(std::string_view text) const {
  Match best{0, -1};
  const Node* node = &trie_[0];
  for (size_t i = 0; i < text.size(); ++i) {
    const auto edge = node->next.find(static_cast<uint8_t>(text[i]));
    if (edge == node->next.end()) break;
    node = &trie_[static_cast<size_t>(edge->second)];
    if (node->token >= 0) best = {i + 1, node->token};
  }
  return best;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text) const {
  std::vector<Part> parts;
  size_t done = 0;  // the end of the last part
  for (size_t at = 0; at < text.size();) {
    const Match match = begins_[static_cast<uint8_t>(text[at])] ? longest_match(text.substr(at)) : Match{0, -1};
    if (match.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(match.token)];
    size_t begin = at, end = at + match.size;
    at = end;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.lstrip) begin = skip_spaces_back(text, std::max(begin, done), done);
    if (token.rstrip) end = skip_spaces(text, end);
    if (begin >= end) continue;  // white space that an rstrip before it has taken
    if (done < begin) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace nanovlm
