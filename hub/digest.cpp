#include "hub/digest.h"

#include <algorithm>
#include <vector>

#include <openssl/evp.h>

#include "engine/error.h"

namespace nanovlm::hub {
namespace {
constexpr int64_t kChunkBytes = int64_t{1} << 20;
}

Digest::Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) { check(context_ != nullptr, "digest: out of memory"); }

Digest Digest::sha256() {
  Digest digest;
  check(EVP_DigestInit_ex(digest.context_.get(), EVP_sha256(), nullptr) == 1, "SHA-256: libcrypto has none");
  return digest;
}

Digest Digest::git_blob(int64_t size) {
  Digest digest;
  check(EVP_DigestInit_ex(digest.context_.get(), EVP_sha1(), nullptr) == 1, "SHA-1: libcrypto has none");
  const std::string header = text("blob ", size);
  digest.update(header.c_str(), static_cast<int64_t>(header.size()) + 1);
  return digest;
}

void Digest::update(const void* bytes, int64_t count) {
  check(EVP_DigestUpdate(context_.get(), bytes, static_cast<size_t>(count)) == 1, "digest: libcrypto failed");
}

void Digest::update(const File& file, int64_t count) {
  std::vector<char> chunk(static_cast<size_t>(std::min(count, kChunkBytes)));
  for (int64_t at = 0; at < count; at += kChunkBytes) {
    const int64_t bytes = std::min(kChunkBytes, count - at);
    file.read(chunk.data(), bytes, at);
    update(chunk.data(), bytes);
  }
}

std::string Digest::hex() {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned int count = 0;
  check(EVP_DigestFinal_ex(context_.get(), bytes, &count) == 1, "digest: libcrypto failed");
  std::string result;
  for (unsigned int i = 0; i < count; ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    result += kDigits[bytes[i] >> 4];
    result += kDigits[bytes[i] & 15];
  }
  return result;
}

}  // namespace nanovlm::hub
