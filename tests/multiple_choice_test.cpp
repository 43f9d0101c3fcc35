// The MMStar rule against the reference's own verdicts.
#include "data/multiple_choice.h"

#include <nlohmann/json.hpp>

#include "engine/json.h"
#include "tests/support/catch.h"

using namespace nanovlm;

TEST_CASE("an answer counts as right where the reference's regular expressions find it") {
  const auto cases = read_json_file(NANOVLM_FIXTURES "/sampling/multiple_choice.json");
  REQUIRE(cases.size() == 131);
  for (const auto& c : cases) {
    const auto output = c["output"].get<std::string>(), answer = c["answer"].get<std::string>();
    CAPTURE(output, answer);
    CHECK(is_right_choice(output, answer) == c["correct"].get<bool>());
  }
}

TEST_CASE("brackets count only on the answer's own line, a word only between word ends") {
  CHECK(is_right_choice("(xBx)", "B"));
  CHECK_FALSE(is_right_choice("(\nxBx)", "B"));
  CHECK_FALSE(is_right_choice("(xBx\n)", "B"));
  CHECK(is_right_choice("(x) xBx (x)\n", "B"));
  CHECK(is_right_choice("(x) xBx (x)", "B"));
  CHECK_FALSE(is_right_choice("xBx (x)", "B"));
  CHECK(is_right_choice("see B)", "B"));
  CHECK_FALSE(is_right_choice("", "B"));
}
