// Digests that say whether a file is the one that a repository lists.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "engine/file.h"

struct evp_md_ctx_st;

namespace nanovlm::hub {

class Digest {
 public:
  static Digest sha256();
  // What git calls a file of `size` bytes: the SHA-1 of "blob <size>", a byte 0, and its content.
  static Digest git_blob(int64_t size);

  void update(const void* bytes, int64_t count);
  void update(const File& file, int64_t count);  // its first `count` bytes
  std::string hex();                             // in small letters. Once: nothing can be added after it

 private:
  Digest();
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace nanovlm::hub
