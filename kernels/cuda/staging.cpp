#include "kernels/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "kernels/parallel.h"

namespace nanovlm::cuda {
namespace {

constexpr size_t kRing = size_t{64} << 20;
constexpr size_t kLargestPiece = kRing / 4;  // so that host, bus and device work at the same time
constexpr size_t kAlignment = 256;
constexpr int64_t kCopiedByOne =
    4 << 20;  // bytes that one thread of the host copies: few threads reach its memory rate

Event new_event() { return make_event(cudaEventDisableTiming, "staging"); }

bool has_happened(const Event& event) {
  const cudaError_t state = cudaEventQuery(event.get());
  if (state != cudaErrorNotReady) check(state, "upload");
  if (state == cudaErrorNotReady) cudaGetLastError();  // or the next launch would take it for its own
  return state == cudaSuccess;
}

}  // namespace

Staging::Staging(cudaStream_t compute, cudaStream_t copies) : compute_(compute), copies_(copies) {
  void *pinned = nullptr, *twin = nullptr;
  check(cudaMallocHost(&pinned, kRing), "staging: 64 MiB of pinned host memory");
  pinned_.reset(static_cast<char*>(pinned));
  check(cudaMalloc(&twin, kRing), "staging: 64 MiB of device memory");
  twin_.reset(static_cast<char*>(twin));
  copied_ = new_event();
}

Staging::~Staging() {
  cudaStreamSynchronize(copies_);
  cudaStreamSynchronize(compute_);
}

void Staging::upload(void* to, const void* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kLargestPiece)
    upload_piece(static_cast<char*>(to) + at, static_cast<const char*>(from) + at, std::min(kLargestPiece, bytes - at));
}

void Staging::upload_piece(char* to, const char* from, size_t bytes) {
  const size_t begin = make_room(bytes), end = begin + bytes;
  kernels::parallel_for(static_cast<int64_t>(bytes), kCopiedByOne, [&](int64_t first, int64_t last) {
    std::memcpy(pinned_.get() + begin + first, from + first, static_cast<size_t>(last - first));
  });
  check(cudaMemcpyAsync(twin_.get() + begin, pinned_.get() + begin, bytes, cudaMemcpyHostToDevice, copies_), "upload");
  // A wait takes the event as it stands, so the next piece may record it anew.
  check(cudaEventRecord(copied_.get(), copies_), "upload");
  check(cudaStreamWaitEvent(compute_, copied_.get(), 0), "upload");
  check(cudaMemcpyAsync(to, twin_.get() + begin, bytes, cudaMemcpyDeviceToDevice, compute_), "upload");

  if (spare_events_.empty()) spare_events_.push_back(new_event());
  pieces_.push_back({begin, end, std::move(spare_events_.back())});
  spare_events_.pop_back();
  check(cudaEventRecord(pieces_.back().placed.get(), compute_), "upload");
  next_ = (end + kAlignment - 1) / kAlignment * kAlignment;
}

size_t Staging::make_room(size_t bytes) {
  const size_t begin = next_ + bytes <= kRing ? next_ : 0, end = begin + bytes;
  while (!pieces_.empty() && has_happened(pieces_.front().placed)) retire_oldest();
  const auto in_the_way = [&](const Piece& piece) { return piece.begin < end && begin < piece.end; };
  while (std::any_of(pieces_.begin(), pieces_.end(), in_the_way)) retire_oldest();
  return begin;
}

void Staging::retire_oldest() {
  check(cudaEventSynchronize(pieces_.front().placed.get()), "upload");
  spare_events_.push_back(std::move(pieces_.front().placed));
  pieces_.pop_front();
}

}  // namespace nanovlm::cuda
