// Sampling on a GPU: a block a row. Nothing is sorted. All that sampling asks is at which token a sum, taken from the
// largest logit down, exceeds some target: `descend` finds it, 8 bits of the logit at a time, by weights added up in
// 256 bins. The k-th largest is that with a weight of 1, top-p's last token with probabilities, the drawn token with
// those of the temperature, and the n-th of several equal logits with their ids in place of logits.
//
// Weights are integers, probabilities multiples of 2^-40 of the likeliest token's: their sums are exact, and do not
// depend on the order in which atomics add. For top-k up to 512 a row is read twice: the k-th largest of the threads'
// own maxima is a bound that hardly more than k tokens reach, and the rest happens among those, in shared memory. Then
// latency bounds it, at some 50 barriers. Otherwise it reads the row some 15 times, from the L2 cache.
#include "kernels/sampling/sampling.h"

#include <cfloat>

#include "kernels/device.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kThreads = 512, kBins = 256, kListed = 1024;
constexpr unsigned kInfinityKey = 0xff800000, kMinusInfinityKey = 0x007fffff, kNanKey = 0xffffffff;
constexpr float kOne = 0x1p40f;  // the likeliest token's weight

using Weight = unsigned long long;

// In the order of the logits; equal for both zeros, largest for NaN.
__device__ unsigned key_of(float logit) {
  if (logit != logit) return kNanKey;
  const unsigned bits = std::bit_cast<unsigned>(logit + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ float logit_of(unsigned key) { return std::bit_cast<float>(key >> 31 ? key & 0x7fffffffu : ~key); }

// The tokens of a row, or some of them.
struct Tokens {
  const float* logits;
  const int* ids;  // null: all, in turn
  int count;

  __device__ int id(int i) const { return ids ? ids[i] : i; }
};

struct Found {
  unsigned key;                 // from the largest down, the first at which the sum of weights exceeds the target
  Weight target, above, total;  // above: the sum before that key
};

constexpr int kEach = kBins / kWarp;  // bins of a lane: 255 - 8 lane down to 248 - 8 lane

// Where a bin lies: a gap after each lane's, so that lanes meet other banks of shared memory.
constexpr int kPlaces = kBins + kWarp;
__device__ constexpr int place_of_bin(int bin) { return bin + bin / kEach; }

// The weight in the bins of this lane and of the lanes before it.
__device__ Weight weight_through_lane(const Weight* bins) {
  const int lane = thread_in_block() % kWarp;
  Weight through = 0;
  for (int i = 1; i <= kEach; ++i) through += bins[place_of_bin(kBins - kEach * lane - i)];
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const Weight before = __shfl_up_sync(kFullMask, through, static_cast<unsigned>(lanes));
    if (lane >= lanes) through += before;
  }
  return through;
}

// The bin, from the last down, at which `sum` and the bins so far exceed the target; adds those before it to `sum`.
__device__ unsigned find_bin(const Weight* bins, Weight through, Weight target, Weight& sum) {
  const int lane = thread_in_block() % kWarp;
  const int owner = __ffs(static_cast<int>(__ballot_sync(kFullMask, sum + through > target))) - 1;
  int bin = kBins - kEach * (lane + 1);
  Weight before = sum + through - bins[place_of_bin(bin)];
  while (before > target && bin < kBins - kEach * lane - 1) before -= bins[place_of_bin(++bin)];
  sum = __shfl_sync(kFullMask, before, owner);
  return static_cast<unsigned>(__shfl_sync(kFullMask, bin, owner));
}

// key(i) and weight(i) of the tokens 0 ... count - 1; target(total) is less than the total weight. All threads take
// part and learn the result.
template <class Key, class WeightOf, class Target>
__device__ Found descend(int count, const Key& key, const WeightOf& weight, const Target& target) {
  GPU_SHARED(Weight, bins, [kPlaces]);
  Found found{};
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();  // the bins have been read
    for (int i = thread_in_block(); i < kPlaces; i += kThreads) bins[i] = 0;
    __syncthreads();
    for (int i = thread_in_block(); i < count; i += kThreads) {
      const unsigned k = key(i);
      if (shift < 24 && k >> (shift + 8) != found.key) continue;
      const Weight w = weight(i);
      if (w > 0) atomicAdd(&bins[place_of_bin(static_cast<int>(k >> shift & (kBins - 1)))], w);
    }
    __syncthreads();
    const Weight through = weight_through_lane(&bins[0]);  // every warp looks for itself
    if (shift == 24) found.total = __shfl_sync(kFullMask, through, kWarp - 1), found.target = target(found.total);
    found.key = found.key << 8 | find_bin(&bins[0], through, found.target, found.above);
  }
  return found;
}

// Of the tokens with this logit, by rising id, the first at which the sum of their equal weights exceeds `target`.
__device__ int id_of(const Tokens& tokens, unsigned key, Weight weight, Weight target) {
  const Found found = descend(
      tokens.count, [&](int i) { return ~static_cast<unsigned>(tokens.id(i)); },
      [&](int i) { return key_of(tokens.logits[i]) == key ? weight : 0; }, [&](Weight) { return target; });
  return static_cast<int>(~found.key);
}

// What the filters leave: logits above the key's, and those equal to it with an id below the end.
struct Left {
  unsigned key;
  int end_id;

  __device__ bool holds(float logit, int id) const {
    const unsigned k = key_of(logit);
    return k > key || (k == key && id < end_id);
  }
};

// The largest logit's key in the high half; in the low one its token, inverted so that ties go to the lowest id.
__device__ Weight packed(float logit, int id) { return Weight(key_of(logit)) << 32 | ~static_cast<unsigned>(id); }

// The largest of a row, packed. maxima[t] becomes the largest key that thread t has met.
__device__ Weight largest(const float* logits, int V, unsigned* maxima) {
  GPU_SHARED(Weight, best, [1]);
  if (thread_in_block() == 0) best[0] = 0;
  __syncthreads();
  Weight mine = 0;
  for (int v = thread_in_block(); v < V; v += kThreads) mine = max(mine, packed(logits[v], v));
  maxima[thread_in_block()] = static_cast<unsigned>(mine >> 32);
  atomicMax(&best[0], mine);
  __syncthreads();
  return best[0];
}

// The tokens whose logits have at least this key, in any order, if the list has room for them; else all.
__device__ Tokens listed(const Tokens& all, unsigned key, float* logits, int* ids) {
  GPU_SHARED(int, count, [1]);
  if (thread_in_block() == 0) count[0] = 0;
  __syncthreads();
  for (int i = thread_in_block(); i < all.count; i += kThreads)
    if (key_of(all.logits[i]) >= key) {
      const int place = atomicAdd(&count[0], 1);
      if (place < kListed) logits[place] = all.logits[i], ids[place] = i;
    }
  __syncthreads();
  const int found = count[0];
  return found <= kListed ? Tokens{logits, ids, found} : all;
}

// The key of the k-th largest of `count` keys.
template <class Key>
__device__ unsigned kth_largest(int count, const Key& key, int64_t k) {
  return descend(
             count, key, [](int) { return Weight{1}; }, [&](Weight) { return static_cast<Weight>(k) - 1; })
      .key;
}

__global__ void __launch_bounds__(kThreads) sampling_kernel(const Sampling a) {
  GPU_SHARED(float, listed_logits, [kListed]);
  GPU_SHARED(int, listed_ids, [kListed]);
  GPU_SHARED(unsigned, maxima, [kThreads]);
  const int64_t row = blockIdx.x;
  const int thread = thread_in_block(), V = static_cast<int>(a.V);
  const Tokens all{a.logits + row * V, nullptr, V};

  const Weight best = largest(all.logits, V, &maxima[0]);
  const unsigned best_key = static_cast<unsigned>(best >> 32);
  const int best_id = static_cast<int>(~static_cast<unsigned>(best));
  const bool sound = best_key < kInfinityKey && best_key > kMinusInfinityKey;
  if (!a.uniform || !sound) {
    if (thread == 0) a.tokens[row] = sound ? best_id : -1;
    return;
  }
  const float most = all.logits[best_id];
  const auto weight = [&](float logit, float per_temperature) {
    return static_cast<Weight>(expf((logit - most) * per_temperature) * kOne);
  };

  Tokens tokens = all;
  Left left{0, V};
  const auto key = [&](int i) { return key_of(tokens.logits[i]); };
  if (a.top_k > 0 && a.top_k < V) {
    if (a.top_k <= kThreads) {
      const unsigned bound = kth_largest(
          kThreads, [&](int i) { return maxima[i]; }, a.top_k);
      tokens = listed(all, bound, &listed_logits[0], &listed_ids[0]);
    }
    left.key = kth_largest(tokens.count, key, a.top_k);
  }
  // The token, likeliest first, at which the sum of probabilities exceeds a share of all.
  struct Chosen {
    Found found;
    Weight weight;
    int id;
  };
  const auto choose = [&](float share, float per_temperature) {
    const Found found = descend(
        tokens.count, key,
        [&](int i) {
          return left.holds(tokens.logits[i], tokens.id(i)) ? weight(tokens.logits[i], per_temperature) : 0;
        },
        [&](Weight total) { return static_cast<Weight>(static_cast<double>(share) * static_cast<double>(total)); });
    const Weight each = weight(logit_of(found.key), per_temperature);
    return Chosen{found, each, id_of(tokens, found.key, each, found.target - found.above)};
  };

  if (a.top_p < 1) {
    const Chosen gone = choose(a.top_p, 1);
    const bool first = gone.found.target < gone.weight && gone.found.above == 0;  // which always stays
    left = {gone.found.key, gone.id + (first ? 1 : 0)};
  }
  const float per_temperature = fminf(1 / a.temperature, FLT_MAX);  // 0 times which is 0
  const Chosen drawn = choose(a.uniform[row], per_temperature);
  if (thread == 0) a.tokens[row] = drawn.id;
  if (!a.probabilities) return;
  for (int v = thread; v < V; v += kThreads) {
    const float logit = all.logits[v];
    const bool stays = left.holds(logit, v);
    a.probabilities[row * V + v] =
        stays ? static_cast<float>(weight(logit, per_temperature)) / static_cast<float>(drawn.found.total) : 0;
  }
}

}  // namespace

template <>
void sampling(ThisBackend, const Sampling& a, Stream stream) {
  if (a.R > 0) launch("sampling", sampling_kernel, {a.R, kThreads, 0, stream}, a);
}

}  // namespace nanovlm::kernels
