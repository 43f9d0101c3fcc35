#include "kernels/hopper.cuh"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/checker.h"

namespace nanovlm::simt {
namespace {

using kernels::TensorMap;

constexpr uint32_t kRowBytes = 128, kPatternBytes = 1024, kChunkBytes = 16;
constexpr int kM = 64, kMaxN = 256, kK = 16, kWarpRows = 16;

// PTX ISA, "Swizzling Modes", 128 bytes: bits 4 to 6 of an address are exclusive-ored with bits 7 to 9.
uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

char* shared_at(uint32_t address) { return current_block->shared().at(address); }

// What lies in the 8 bytes of a barrier.
struct Arrivals {
  static constexpr uint32_t kMade = 0xb5;
  static constexpr int kMostThreads = 1024;
  uint32_t made : 8, phase : 1, threads : 11, missing : 11;
  int32_t bytes;  // expected and not yet copied

  bool ended() const { return missing == 0 && bytes == 0; }
};
static_assert(sizeof(Arrivals) == sizeof(uint64_t));

struct BoxCopy {
  char* to;
  TensorMap from;
  int row, column;
  uint64_t* barrier;
  Where where;
};

// How a product finds an operand: PTX ISA, "Matrix Descriptor Format".
struct Operand {
  uint32_t start, next_box, next_rows;
  bool transposed;

  Operand(uint64_t descriptor, bool transposed) : transposed(transposed) {
    const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
    start = field(0), next_box = field(16), next_rows = field(32);
  }

  // PTX ISA, "Strides" and the canonical layouts, for 16-bit elements and the swizzle of 128 bytes.
  uint32_t address(uint32_t outer, uint32_t k) const {
    return swizzled(start + (transposed ? outer / 64 * next_box + k / 8 * next_rows + k % 8 * kRowBytes + outer % 64 * 2
                                        : outer / 8 * next_rows + outer % 8 * kRowBytes + k * 2));
  }
  float value(uint32_t outer, uint32_t k) const {
    bf16 entry;
    std::memcpy(&entry, shared_at(address(outer, k)), sizeof(entry));
    return static_cast<float>(entry);
  }
  uint32_t end(uint32_t outers) const {
    return start + kPatternBytes +
           (transposed ? (outers / 64 - 1) * next_box + next_rows : (outers / 8 - 1) * next_rows);
  }
};

// A warp's 16 rows of a in its lanes' registers.
struct RegisterRows {
  std::array<uint32_t, 4> lanes[kWarpLanes];

  // PTX ISA, "Register Fragments", wgmma .m64nNk16, A.
  float value(uint32_t row, uint32_t k) const {
    const uint32_t word = lanes[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
    return static_cast<float>(std::bit_cast<std::array<bf16, 2>>(word)[k % 2]);
  }
};

struct Product {
  std::optional<Operand> a;  // else own
  RegisterRows own;          // as they were when it was issued
  Operand b;
  int n;
  bool add;
  float* d[kWarpLanes];
  int rows;  // of d, from here on
  uint32_t group;
  bool done;
  Where where;
};

struct ProductQueue {
  std::vector<Product> products;
  uint32_t groups = 0;  // committed so far
};

}  // namespace

// What the copy engine and the tensor cores have been given and nobody has waited for.
struct AsyncWork {
  std::vector<BoxCopy> copies;
  ProductQueue queues[kMaxWarps];
};

namespace {

AsyncWork& work() {
  std::shared_ptr<AsyncWork>& work = current_block->async_work();
  if (!work) work = std::make_shared<AsyncWork>();
  return *work;
}

bool late() { return current_block->options().copies == Copies::late; }

Arrivals arrivals_of(const uint64_t* barrier, const char* operation, Where where) {
  if (reinterpret_cast<uintptr_t>(barrier) % sizeof(uint64_t) != 0 || !current_block->shared().find(barrier))
    current_block->fail(where, operation, ": the barrier is not 8 aligned bytes of shared memory");
  Arrivals arrivals;
  std::memcpy(&arrivals, barrier, sizeof(arrivals));
  return arrivals;
}

Arrivals made_arrivals_of(const uint64_t* barrier, const char* operation, Where where) {
  const Arrivals arrivals = arrivals_of(barrier, operation, where);
  if (arrivals.made != Arrivals::kMade)
    current_block->fail(where, operation, ": arrivals_init has not made this barrier");
  return arrivals;
}

void set(uint64_t* barrier, Arrivals arrivals) {
  if (arrivals.ended()) {
    arrivals.phase ^= 1, arrivals.missing = arrivals.threads;
    if (Checker* checker = current_block->checker()) checker->phase_ended(barrier);
  }
  std::memcpy(barrier, &arrivals, sizeof(arrivals));
}

void perform(const BoxCopy& copy) {
  const TensorMap& from = copy.from;
  const uint32_t to = kernels::shared_address(copy.to);
  for (int r = 0; r < from.box_rows; ++r) {
    const int64_t row = int64_t{copy.row} + r;
    const bool inside = row >= 0 && row < from.rows;
    const bf16* source = from.data + row * from.columns;
    for (int c = 0; c < kernels::kBoxColumns; ++c) {
      const int64_t column = int64_t{copy.column} + c;
      const bf16 entry = inside && column >= 0 && column < from.columns ? source[column] : bf16(0.0f);
      const uint32_t place = to + static_cast<uint32_t>(r) * kRowBytes + static_cast<uint32_t>(c) * 2;
      std::memcpy(shared_at(swizzled(place)), &entry, sizeof(entry));
    }
  }
  Arrivals arrivals = made_arrivals_of(copy.barrier, "copy_box", copy.where);
  const int bytes = from.box_rows * static_cast<int>(kRowBytes);
  arrivals.bytes -= bytes;
  set(copy.barrier, arrivals);
  if (Checker* checker = current_block->checker()) checker->filled(copy.to, bytes);
}

// What a copy will read and write, from now on until its phase has been waited for.
void check_copy(const BoxCopy& copy, Checker& checker) {
  checker.engine_counts(copy.barrier, copy.where);
  const TensorMap& from = copy.from;
  const int64_t left = std::min<int64_t>(from.columns - copy.column, kernels::kBoxColumns);
  for (int64_t row = std::max(copy.row, 0); row < std::min<int64_t>(from.rows, copy.row + from.box_rows); ++row)
    if (left > 0 && copy.column >= 0)
      checker.engine_reads(from.data + row * from.columns + copy.column, static_cast<int>(left) * 2, copy.barrier,
                           copy.where);
  checker.engine_fills(copy.to, from.box_rows * static_cast<int>(kRowBytes), copy.barrier, copy.where);
}

// The sum starts at d or 0 and adds the products by rising k, each rounded to fp32; a tensor core's own order and
// truncation are not modelled.
void perform(Product& product) {
  const int N = product.n;
  float a[kWarpRows][kK], b[kK][kMaxN];
  for (uint32_t k = 0; k < kK; ++k) {
    for (uint32_t m = 0; m < kWarpRows; ++m)
      a[m][k] = product.a ? product.a->value(static_cast<uint32_t>(product.rows) + m, k) : product.own.value(m, k);
    for (uint32_t n = 0; n < static_cast<uint32_t>(N); ++n) b[k][n] = product.b.value(n, k);
  }
  for (int m = 0; m < kWarpRows; ++m) {
    const auto entry = [&](int n) -> float& { return product.d[m % 8 * 4 + n % 8 / 2][n / 8 * 4 + m / 8 * 2 + n % 2]; };
    float sum[kMaxN];
    for (int n = 0; n < N; ++n) sum[n] = product.add ? entry(n) : 0;
    for (int k = 0; k < kK; ++k)
      for (int n = 0; n < N; ++n) sum[n] += a[m][k] * b[k][n];
    for (int n = 0; n < N; ++n) entry(n) = sum[n];
  }
  product.done = true;
}

void check_operand(const Operand& operand, uint32_t first, uint32_t outers, uint32_t all, Where where) {
  Block& block = *current_block;
  if (operand.start & (kPatternBytes - kRowBytes))
    block.fail(where, "wgmma: an operand starts in row ", operand.start / kRowBytes % 8,
               " of its swizzle's pattern of 8, but must start in the first");
  for (const uint32_t address : {operand.start, operand.end(all) - 1})
    if (!block.shared().find(shared_at(address)))
      block.fail(where, "out of bounds: wgmma reads outside every shared array of the block");
  Checker* const checker = block.checker();
  if (!checker) return;
  const uint32_t outer_step = operand.transposed ? 8 : 1, k_step = operand.transposed ? 1 : 8;
  for (uint32_t outer = first; outer < first + outers; outer += outer_step)
    for (uint32_t k = 0; k < kK; k += k_step)
      checker->product_reads(shared_at(operand.address(outer, k)), kChunkBytes, where);
}

struct ProductSlot {
  bool transpose_b;
  int n;
  bool add;
  float* d;
  bool shared_a, transpose_a;
  uint64_t a;             // a descriptor,
  const uint32_t* words;  // or a lane's registers
  uint64_t b;
  Where where;
};

void complete_product(void* const* slots, uint32_t, Block& block) {
  const ProductSlot& first = *static_cast<const ProductSlot*>(slots[0]);
  Product product{{}, {}, Operand(first.b, first.transpose_b), first.n, first.add, {}, 0, 0, false, first.where};
  if (first.shared_a) product.a.emplace(first.a, first.transpose_a);
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const ProductSlot& slot = *static_cast<const ProductSlot*>(slots[lane]);
    if (slot.a != first.a || slot.b != first.b)
      block.fail(first.where, "wgmma: the lanes of a warp bring different descriptors");
    product.d[lane] = slot.d;
    if (slot.words) std::copy_n(slot.words, 4, product.own.lanes[lane].begin());
  }
  ProductQueue& queue = work().queues[block.warp()];
  product.rows = block.warp() % 4 * kWarpRows, product.group = queue.groups;
  if (Checker* checker = block.checker()) checker->product_issued(product.group);
  if (product.a) check_operand(*product.a, static_cast<uint32_t>(product.rows), kWarpRows, kM, first.where);
  check_operand(product.b, 0, static_cast<uint32_t>(first.n), static_cast<uint32_t>(first.n), first.where);
  if (!late()) perform(product);
  queue.products.push_back(product);
  block.count_mma(2 * kWarpRows * first.n * kK);
}

void complete_commit(void* const*, uint32_t, Block& block) { ++work().queues[block.warp()].groups; }

void complete_wait(void* const* slots, uint32_t, Block& block) {
  const uint32_t left = static_cast<uint32_t>(*static_cast<const int*>(slots[0]));
  ProductQueue& queue = work().queues[block.warp()];
  auto product = queue.products.begin();
  for (; product != queue.products.end() && product->group + left < queue.groups; ++product)
    if (!product->done) perform(*product);
  queue.products.erase(queue.products.begin(), product);
  if (Checker* checker = block.checker(); checker && queue.groups > left) checker->products_done(queue.groups - left);
}

void complete_nothing(void* const*, uint32_t, Block&) {}

void meet(const char* operation, void* slot, Block::Complete complete, Where where) {
  Block& block = *current_block;
  if (block.lanes_in_warp() != kWarpLanes || block.warps() % 4 != 0)
    block.fail(where, operation, " in a block of ", block.launch().shape.block.count(),
               " threads, but it needs groups of four whole warps");
  block.meet_warp(operation, 0xffffffff, slot, complete, where);
}

}  // namespace
}  // namespace nanovlm::simt

namespace nanovlm::kernels::inline simt_words {

using namespace simt;

TensorMap tensor_map(const char* name, const bf16* data, int64_t rows, int64_t columns, int box_rows) {
  if (reinterpret_cast<uintptr_t>(data) % kChunkBytes != 0 || columns % 8 != 0 || rows < 1 || columns < 1 ||
      box_rows < 8 || box_rows > 256)
    throw std::runtime_error(std::string(name) + ": " + std::to_string(rows) + " rows of " + std::to_string(columns) +
                             " bf16 in boxes of " + std::to_string(box_rows) + " have no tensor map");
  return {data, rows, columns, box_rows};
}

uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(current_block->shared().offset(pointer)); }

void arrivals_init(uint64_t* barrier, int threads, Where where) {
  current_block->note("arrivals_init", where);
  arrivals_of(barrier, "arrivals_init", where);
  if (threads < 1 || threads > Arrivals::kMostThreads)
    current_block->fail(where, "arrivals_init for ", threads, " threads, but a block has 1 to 1024");
  if (Checker* checker = current_block->checker()) checker->barrier_made(barrier, where);
  set(barrier, {Arrivals::kMade, 0, static_cast<uint32_t>(threads), static_cast<uint32_t>(threads), 0});
}

void arrive_expecting(uint64_t* barrier, int bytes, Where where) {
  current_block->note("arrive_expecting", where);
  Arrivals arrivals = made_arrivals_of(barrier, "arrive_expecting", where);
  if (arrivals.missing == 0)
    current_block->fail(where, "arrive_expecting: all ", arrivals.threads, " threads have arrived in this phase");
  if (Checker* checker = current_block->checker()) {
    checker->barrier_used("arrive_expecting", barrier, where);
    checker->arrived(barrier);
  }
  arrivals.bytes += bytes, --arrivals.missing;
  set(barrier, arrivals);
}

void wait_phase(uint64_t* barrier, int parity, Where where) {
  if (Checker* checker = current_block->checker()) {
    made_arrivals_of(barrier, "wait_phase", where);
    checker->barrier_used("wait_phase", barrier, where);
  }
  while (made_arrivals_of(barrier, "wait_phase", where).phase == parity) {
    std::vector<BoxCopy>& copies = work().copies;
    const auto mine =
        std::find_if(copies.begin(), copies.end(), [&](const BoxCopy& c) { return c.barrier == barrier; });
    if (mine == copies.end()) {
      current_block->yield("wait_phase", where);
      continue;
    }
    const BoxCopy copy = *mine;
    copies.erase(mine);
    perform(copy);
  }
  if (Checker* checker = current_block->checker()) checker->waited(barrier);
}

void fence_async_proxy(Where where) {
  current_block->note("fence_async_proxy", where);
  if (Checker* checker = current_block->checker()) checker->fence_proxy();
}

void copy_box(void* shared, const TensorMap& from, int row, int column, uint64_t* barrier, Where where) {
  Block& block = *current_block;
  block.note("copy_box", where);
  const uint32_t begin = shared_address(shared), bytes = static_cast<uint32_t>(from.box_rows) * kRowBytes;
  const char* last = static_cast<char*>(shared) + bytes - 1;
  if (!block.shared().find(shared) || block.shared().find(shared) != block.shared().find(last))
    block.fail(where, "out of bounds: copy_box writes ", bytes, " bytes that are not in one shared array");
  if (begin % kPatternBytes != 0)
    block.fail(where, "misaligned: copy_box to an address that is ", begin % kPatternBytes, " past a multiple of 1024");
  made_arrivals_of(barrier, "copy_box", where);
  const auto overlaps = [&](const Operand& operand, int outers) {
    return begin < operand.end(static_cast<uint32_t>(outers)) && operand.start < begin + bytes;
  };
  for (const ProductQueue& queue : work().queues)
    for (const Product& product : queue.products)
      if ((product.a && overlaps(*product.a, kM)) || overlaps(product.b, product.n))
        block.fail(where, "copy_box writes what the wgmma at ", product.where, " may still be reading");
  const BoxCopy copy{static_cast<char*>(shared), from, row, column, barrier, where};
  if (Checker* checker = block.checker()) check_copy(copy, *checker);
  if (late())
    work().copies.push_back(copy);
  else
    perform(copy);
}

void wgmma(int n, float* d, bool transpose_a, uint64_t a, bool transpose_b, uint64_t b, Where where) {
  ProductSlot slot{transpose_b, n, true, d, true, transpose_a, a, nullptr, b, where};
  meet("wgmma", &slot, complete_product, where);
}
void wgmma(int n, bool add, float* d, const uint32_t* a, bool transpose_b, uint64_t b, Where where) {
  ProductSlot slot{transpose_b, n, add, d, false, false, 0, a, b, where};
  meet("wgmma", &slot, complete_product, where);
}
void wgmma_fence(Where where) { meet("wgmma_fence", nullptr, complete_nothing, where); }
void wgmma_commit(Where where) { meet("wgmma_commit", nullptr, complete_commit, where); }
void wgmma_wait_newest(int groups_left, Where where) { meet("wgmma_wait", &groups_left, complete_wait, where); }

}  // namespace nanovlm::kernels::inline simt_words
