// The rule by which MMStar answers count as right.
#pragma once
#include <string_view>

namespace nanovlm {

// nanoVLM's check_multiple_choice_with_regex, with X the answer in upper case: does the output have, anywhere,
//     \bX\b   or   \bX[.,)]   or   \(.*X.*\)
// The output's case counts. As X stands in the patterns unescaped, a "." in it is any character but a line end; other
// characters, which MMStar's letters never are, stand for themselves. Both are valid UTF-8.
bool is_right_choice(std::string_view output, std::string_view answer);

}  // namespace nanovlm
