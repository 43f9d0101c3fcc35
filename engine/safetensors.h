// The safetensors format: 8 bytes header length (little-endian), a JSON header, then the tensors' bytes.
//
// The header is checked whole before a tensor is read: every name once, known dtypes, shapes whose product does not
// overflow and agrees with the offsets, tensors that tile the data without hole or overlap, a file of exactly the size
// that follows. Messages read "<file>: tensor <name>: byte <offset of the tensor in the file>: expected ..., found
// ...".
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/file.h"
#include "engine/tensor.h"

namespace nanovlm {

class SafetensorsFile {
 public:
  struct Entry {
    std::string dtype;  // the file's word: F32, BF16, F16, F64, I64, I32, U8, BOOL, ...
    Shape shape;
    int64_t begin = 0, end = 0;  // bytes in the file
    int64_t bytes() const { return end - begin; }
    bool is_float() const { return dtype == "F32" || dtype == "BF16" || dtype == "F16" || dtype == "F64"; }
  };

  // Reads and checks the header.
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return entries_.count(name) != 0; }
  const Entry& entry(const std::string& name) const;  // Error: absent

  // The tensor on `device`: F32 -> f32, BF16 -> bf16, F16 and F64 -> f32 (F64 rounded to nearest), I32 and I64 -> i32
  // (Error: a value that does not fit), U8 and BOOL -> u8. Error: any other dtype.
  Tensor read(const std::string& name, const Device& device) const;

  // The bytes as they are in the file, into a buffer of exactly their size.
  void read_into(const std::string& name, std::span<std::byte> destination) const;

  // The numbers of F32, BF16, F16 or F64 into contiguous f32 tensors of as many elements, on any device.
  void read_f32_into(const std::vector<std::pair<std::string, Tensor>>& tensors) const;

  std::vector<float> read_f32(const std::string& name) const;    // F32, BF16, F16, F64
  std::vector<int64_t> read_i64(const std::string& name) const;  // I64, I32, U8, BOOL

 private:
  explicit SafetensorsFile(File file) : file_(std::move(file)) {}
  void read_header();
  void parse_header(const std::string& header, int64_t data_begin, int64_t data_bytes);

  File file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

// Writes contiguous tensors of any device; appears at `path` whole or not at all. Byte for byte what the safetensors
// package writes: larger dtypes first, then by name, the header padded to 8 bytes with blanks.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace nanovlm
