// GGUF, llama.cpp's file format (versions 2 and 3): metadata of typed keys, then tensors, some of them quantised.
//
// The whole header is checked before anything of it is used: lengths and counts against the bytes that are there, every
// key and name once, shapes whose product does not overflow, tensors of supported types that lie inside the file and do
// not overlap. Messages read "<file>: <place>: expected ..., found ...".
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/file.h"
#include "engine/tensor.h"

namespace nanovlm {

class GgufFile {
 public:
  struct Entry {
    std::string type;  // F32, F16, Q4_1 or Q8_0
    Shape shape;       // outermost dimension first; the file has the innermost first
    int64_t begin = 0, end = 0;
  };

  static GgufFile open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const Entry& entry(const std::string& name) const;  // Error: absent

  // The tensor's numbers, dequantised. Blocks of 32 share their scale: Q8_0 is d * q with q in -128 .. 127, Q4_1 is
  // d * q + m with q in 0 .. 15, d and m in binary16; one rounding, to fp32.
  std::vector<float> read_f32(const std::string& name) const;

  // Metadata. Error: there is no such key, or its value is of another kind.
  bool has(const std::string& key) const { return metadata_.count(key) != 0; }
  int64_t integer(const std::string& key) const;  // of any width; a boolean is 0 or 1
  double number(const std::string& key) const;
  const std::string& string(const std::string& key) const;
  const std::vector<int64_t>& integers(const std::string& key) const;
  const std::vector<std::string>& strings(const std::string& key) const;

 private:
  using Value =
      std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;
  class Header;

  explicit GgufFile(File file) : file_(std::move(file)) {}
  template <class T>
  const T& get(const std::string& key, const char* kind) const;

  File file_;
  std::map<std::string, Value> metadata_;
  std::map<std::string, Entry> entries_;
};

}  // namespace nanovlm
