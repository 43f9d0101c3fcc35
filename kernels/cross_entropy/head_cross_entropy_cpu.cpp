// The head's cross entropy on a CPU: the library's product, whose result is still in the cache when it is read.
#include "kernels/cross_entropy/head_cross_entropy.h"

namespace nanovlm::kernels {

template <>
void head_cross_entropy(ThisBackend backend, const HeadCrossEntropy& a, Stream stream) {
  head_cross_entropy_stored(backend, a, stream);
}

}  // namespace nanovlm::kernels
