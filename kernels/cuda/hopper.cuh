// The PTX wrappers of Hopper's own instructions (sm_90a): kernels/simt/hopper.h documents each and is its twin on the
// host. Code for other GPUs traps in them; hopper() tells before a launch.
#pragma once
#include <cuda.h>

#include "kernels/cuda/ptx.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

struct TensorMap {
  CUtensorMap map;
};

inline bool hopper() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major == 9;
}

inline TensorMap tensor_map(const char* name, const bf16* data, int64_t rows, int64_t columns, int box_rows) {
  // Asked for at run time: a program linked with the driver's library would not start on a machine without it.
  void* encode = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess)
    throw std::runtime_error(std::string(name) + ": this driver has no cuTensorMapEncodeTiled");
  TensorMap result;
  const cuuint64_t extents[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t row_bytes[] = {static_cast<cuuint64_t>(columns) * sizeof(bf16)};
  const cuuint32_t box[] = {kBoxColumns, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  const CUresult status = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
      &result.map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<bf16*>(data), extents, row_bytes, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw std::runtime_error(std::string(name) + ": " + std::to_string(rows) + " rows of " + std::to_string(columns) +
                             " bf16 have no tensor map: CUDA's error " + std::to_string(status));
  return result;
}

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define NANOVLM_HOPPER_ASM(...) __trap()
#else
#define NANOVLM_HOPPER_ASM(...) asm volatile(__VA_ARGS__)
#endif

__device__ inline void arrivals_init(uint64_t* barrier, int threads, Where = {}) {
  NANOVLM_HOPPER_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(threads) : "memory");
}
__device__ inline void fence_async_proxy(Where = {}) {
  NANOVLM_HOPPER_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void arrive_expecting(uint64_t* barrier, int bytes, Where = {}) {
  NANOVLM_HOPPER_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                     : "memory");
}
__device__ inline void wait_phase(uint64_t* barrier, int parity, Where = {}) {
  NANOVLM_HOPPER_ASM(
      "{.reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
__device__ inline void copy_box(void* shared, const TensorMap& from, int row, int column, uint64_t* barrier,
                                Where = {}) {
  NANOVLM_HOPPER_ASM(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared_address(shared)),
      "l"(&from.map), "r"(column), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

__device__ inline void wgmma_fence(Where = {}) { NANOVLM_HOPPER_ASM("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit(Where = {}) { NANOVLM_HOPPER_ASM("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ void wgmma_wait(Where = {}) {
  NANOVLM_HOPPER_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

template <bool kTransposeA, bool kTransposeB>
__device__ void wgmma_m64n128k16(float (&d)[64], uint64_t a, uint64_t b, Where = {}) {
  NANOVLM_HOPPER_ASM(
      "{.reg .pred add; setp.ne.b32 add, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1, %66, %67;}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),
        "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),
        "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),
        "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b), "n"(int{kTransposeA}), "n"(int{kTransposeB}));
}

#define NANOVLM_SUMS_1(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define NANOVLM_SUMS_2(j) NANOVLM_SUMS_1(j), NANOVLM_SUMS_1(j + 1)
#define NANOVLM_SUMS_8(j) NANOVLM_SUMS_2(j), NANOVLM_SUMS_2(j + 2), NANOVLM_SUMS_2(j + 4), NANOVLM_SUMS_2(j + 6)

template <bool kTransposeB, int N8>
__device__ void wgmma_m64k16(bool add, float (&d)[N8][4], const uint32_t (&a)[4], uint64_t b, Where = {}) {
  static_assert(N8 == 8 || N8 == 26);
  if constexpr (N8 == 8)
    NANOVLM_HOPPER_ASM(
        "{.reg .pred add; setp.ne.b32 add, %38, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, add, 1, 1, %37;}"
        : NANOVLM_SUMS_8(0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int{kTransposeB}), "r"(int{add}));
  else
    NANOVLM_HOPPER_ASM(
        "{.reg .pred add; setp.ne.b32 add, %110, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n208k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103}, "
        "{%104, %105, %106, %107}, %108, add, 1, 1, %109;}"
        : NANOVLM_SUMS_8(0), NANOVLM_SUMS_8(8), NANOVLM_SUMS_8(16), NANOVLM_SUMS_2(24)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int{kTransposeB}), "r"(int{add}));
}

#undef NANOVLM_SUMS_8
#undef NANOVLM_SUMS_2
#undef NANOVLM_SUMS_1
#undef NANOVLM_HOPPER_ASM

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
