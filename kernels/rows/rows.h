// Moving whole rows: a gather (embedding lookup, the rows that carry a label), a scatter to distinct places (putting
// picture and text rows in order), and the gradient of a gather, summed in a fixed order.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

// y[r] = x[index[r]]; converts between dtypes.
struct GatherRows {
  const void* x;         // [any, C] in
  const int32_t* index;  // [R]
  void* y;               // [R, C] out
  int64_t R, C;
  DType in, out;
};

// y[index[r]] = x[r]; the indices are distinct. Rows of y that no index names keep what they held.
struct ScatterRows {
  const void* x;         // [R, C] in
  const int32_t* index;  // [R]
  void* y;               // [any, C] out
  int64_t R, C;
  DType in, out;
};

// dx[target[u]] += sum of dy[order[i]] for i in starts[u] .. starts[u + 1] - 1, in that order. The targets are
// distinct; one below 0 stands for nothing.
struct GatherRowsBackward {
  const void* dy;         // [R, C] dtype
  const int32_t* target;  // [U]
  const int32_t* starts;  // [U + 1]
  const int32_t* order;   // [R]
  float* dx;              // [any, C]
  int64_t U, C;
  DType dtype;
};

template <class Backend>
void gather_rows(Backend, const GatherRows&, Stream);
template <class Backend>
void scatter_rows(Backend, const ScatterRows&, Stream);
template <class Backend>
void gather_rows_backward(Backend, const GatherRowsBackward&, Stream);

}  // namespace nanovlm::kernels
