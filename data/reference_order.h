// The orders in which nanoVLM's train.py meets its rows. Ours (engine/random.h) are as good; these serve a run that is
// to be compared with one of the reference, row by row.
#pragma once
#include <cstdint>
#include <vector>

namespace nanovlm {

// numpy.random.default_rng(seed).permutation(n): what Hugging Face's Dataset.shuffle(seed) gives. O'Neill's PCG64,
// seeded through numpy's SeedSequence; Fisher-Yates with masked rejection.
std::vector<int64_t> numpy_permutation(int64_t n, uint64_t seed);

// torch.randperm(n) of a CPU generator with this seed: what DistributedSampler(seed, shuffle=True) gives in epoch 0.
// Mersenne twister; Fisher-Yates by remainders. Error: n is so large that torch draws otherwise.
std::vector<int64_t> torch_permutation(int64_t n, uint64_t seed);

}  // namespace nanovlm
