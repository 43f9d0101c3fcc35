# Writes FILE, which defines commit() (bench/common/commit.h), at every build; touches it only where the commit is another,
# since every bench is linked with it.
execute_process(COMMAND git describe --always --dirty --abbrev=12 --exclude=* WORKING_DIRECTORY ${SOURCE}
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
file(CONFIGURE OUTPUT ${FILE} @ONLY CONTENT [[#include "bench/common/commit.h"

std::string nanovlm::bench::commit() { return "@commit@"; }
]])
