// What a matrix product should have given.
#pragma once
#include <string>

#include "bench/common/case.h"
#include "kernels/matmul/matmul.h"

namespace nanovlm::bench {

// c of p's product without bias, for operands a and b in p's layout: every entry, or about a thousand of a large one.
Outcome product_outcome(const std::string& name, const kernels::Matmul& p, const Values& a, const Values& b,
                        const Values& c, const Device& device);

}  // namespace nanovlm::bench
