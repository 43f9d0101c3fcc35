#include "engine/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include <nlohmann/json.hpp>

#include "engine/half.h"
#include "engine/json.h"

namespace nanovlm {
namespace {
using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little-endian, and numbers are read in place");

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int64_t kMaxSizes = 64;                 // of a shape: as many as NumPy takes
constexpr int64_t kMaxValues = 65'536;            // in the metadata, or in what describes a tensor

struct FileDType {
  const char* name;
  int64_t bits;
};
// In the format's order, which is the order of alignment: a writer puts the last of these first.
constexpr FileDType kDTypes[] = {{"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                                 {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
                                 {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
                                 {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
                                 {"I64", 64},        {"U64", 64}};

const FileDType* find_dtype(const std::string& name) {
  const auto* found = std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](auto& d) { return name == d.name; });
  return found == std::end(kDTypes) ? nullptr : found;
}

const char* file_dtype(DType dtype) {
  constexpr const char* names[] = {"F32", "BF16", "I32", "U8"};
  return names[static_cast<int>(dtype)];
}

using Entry = SafetensorsFile::Entry;

std::string place_of(const std::string& path, const std::string& name, int64_t byte) {
  return text(path, ": tensor ", name, ": byte ", byte);
}

// The entry of one tensor, its offsets relative to the data, which has data_bytes bytes.
Entry parse_entry(const JsonValue& value, int64_t data_begin, int64_t data_bytes) {
  value.expect_object();
  Entry entry;
  entry.dtype = value["dtype"].string();
  const FileDType* dtype = find_dtype(entry.dtype);
  if (!dtype) value["dtype"].refuse("a dtype of the format");

  const JsonValue shape = value["shape"], offsets = value["data_offsets"];
  if (shape.array_size() > kMaxSizes) shape.refuse(text("at most ", kMaxSizes, " sizes"));
  int64_t bits = dtype->bits;
  for (int64_t i = 0; i < shape.array_size(); ++i) {
    entry.shape.push_back(shape.at(i).integer(0));
    if (__builtin_mul_overflow(bits, entry.shape.back(), &bits)) shape.refuse("a shape whose bits fit 63 bits");
  }
  if (bits % 8 != 0) shape.refuse(text("a shape that fills whole bytes with ", dtype->bits, "-bit values"));

  if (offsets.array_size() != 2) offsets.refuse("a list of two offsets");
  const int64_t begin = offsets.at(0).integer(0, data_bytes);
  const int64_t end = offsets.at(1).integer(begin, data_bytes);
  if (end - begin != bits / 8)
    offsets.refuse(text(bits / 8, " bytes for ", entry.dtype, " ", entry.shape, " (", end - begin, " given at byte ",
                        data_begin + begin, ")"));
  entry.begin = data_begin + begin;
  entry.end = data_begin + end;
  return entry;
}

// Every byte of the data belongs to exactly one tensor.
void check_tiling(const std::string& path, const std::map<std::string, Entry>& entries, int64_t data_begin,
                  int64_t file_bytes) {
  std::vector<const std::pair<const std::string, Entry>*> order;
  for (const auto& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  int64_t expected = data_begin;
  for (const auto* entry : order) {
    const auto& [name, e] = *entry;
    check(e.begin == expected, place_of(path, name, e.begin), ": expected it to begin at byte ", expected,
          ", where the tensor before it ends, found ", e.begin < expected ? "an overlap" : "a hole");
    expected = e.end;
  }
  check(expected == file_bytes, path, ": byte ", expected,
        ": expected the end of the file after the last tensor, found ", file_bytes - expected, " more bytes");
}

// The tensor's bytes as values of the type the file holds.
template <class T>
std::vector<T> raw_values(const File& file, const Entry& entry) {
  std::vector<T> values(static_cast<size_t>(entry.bytes()) / sizeof(T));
  file.read_parallel(values.data(), entry.bytes(), entry.begin);
  return values;
}

template <class To, class From, class F>
std::vector<To> mapped(const std::vector<From>& from, F&& convert) {
  std::vector<To> to(from.size());
  std::transform(from.begin(), from.end(), to.begin(), convert);
  return to;
}

// The dtype a tensor gets that is read without conversion, or nothing.
const DType* same_dtype(const std::string& file_name) {
  static constexpr DType kAll[] = {DType::f32, DType::bf16, DType::i32, DType::u8};
  const std::string name = file_name == "BOOL" ? "U8" : file_name;
  const auto* found = std::find_if(std::begin(kAll), std::end(kAll), [&](DType d) { return name == file_dtype(d); });
  return found == std::end(kAll) ? nullptr : found;
}
}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile result(File::open(path));
  result.read_header();
  return result;
}

void SafetensorsFile::read_header() {
  const int64_t file_bytes = file_.size();
  check(file_bytes >= kLengthBytes, path(), ": byte 0: expected the header's length in ", kLengthBytes,
        " bytes, found a file of ", file_bytes);
  uint64_t length = 0;
  file_.read(&length, kLengthBytes, 0);
  const int64_t limit = std::min(kMaxHeaderBytes, file_bytes - kLengthBytes);
  check(length <= static_cast<uint64_t>(limit), path(), ": byte 0: expected a header of at most ", limit,
        " bytes (the file has ", file_bytes, "), found the length ", length);
  const auto header_bytes = static_cast<int64_t>(length);
  const int64_t data_begin = kLengthBytes + header_bytes;

  std::string header(length, '\0');
  file_.read(header.data(), header_bytes, kLengthBytes);
  check(header.starts_with('{'), path(), ": byte ", kLengthBytes, ": expected a header that begins with {, found ",
        header.empty() ? "none" : "something else");
  parse_header(header, data_begin, file_bytes - data_begin);
  check_tiling(path(), entries_, data_begin, file_bytes);
}

// Member by member: the whole header as a document would take ten times its bytes.
void SafetensorsFile::parse_header(const std::string& header, int64_t data_begin, int64_t data_bytes) {
  const std::string where = path() + ": header";
  bool has_metadata = false;
  const auto add = [&](const std::string& name, const json& member) {
    const JsonValue value(member, where, name);
    const bool is_metadata = name == "__metadata__";
    const bool is_new = is_metadata ? !std::exchange(has_metadata, true)
                                    : entries_.emplace(name, parse_entry(value, data_begin, data_bytes)).second;
    check(is_new, value.place(), ": expected each key once, found it twice");
    if (!is_metadata || value.is_null()) return;  // null is no metadata to the safetensors package
    value.expect_object();
    for (const auto& [key, _] : member.items()) metadata_.emplace(key, value[key].string());
  };
  parse_json(header, where, {"$", add, kMaxValues});
}

const Entry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  check(found != entries_.end(), path(), ": expected a tensor ", name, ", found none among its ", entries_.size());
  return found->second;
}

Tensor SafetensorsFile::read(const std::string& name, const Device& device) const {
  const Entry& e = entry(name);
  if (const DType* dtype = same_dtype(e.dtype)) {
    const Tensor x = empty(e.shape, *dtype, device);
    if (device.is_host())
      file_.read_parallel(x.data(), e.bytes(), e.begin);
    else
      copy_from_host(x, raw_values<char>(file_, e).data(), e.bytes());
    return x;
  }
  if (e.dtype == "F16" || e.dtype == "F64") return from_host(read_f32(name), e.shape, device);
  check(e.dtype == "I64", place_of(path(), name, e.begin),
        ": expected F32, BF16, F16, F64, I32, I64, U8 or BOOL, found ", e.dtype);
  const auto values = read_i64(name);
  for (size_t i = 0; i < values.size(); ++i)
    check(values[i] == static_cast<int32_t>(values[i]), place_of(path(), name, e.begin + static_cast<int64_t>(8 * i)),
          ": expected a value that fits 32 bits, found ", values[i]);
  return from_host(mapped<int32_t>(values, [](int64_t v) { return static_cast<int32_t>(v); }), e.shape, device);
}

void SafetensorsFile::read_into(const std::string& name, std::span<std::byte> destination) const {
  const Entry& e = entry(name);
  check(destination.size() == static_cast<size_t>(e.bytes()), place_of(path(), name, e.begin),
        ": expected a buffer of ", e.bytes(), " bytes, found ", destination.size());
  file_.read_parallel(destination.data(), e.bytes(), e.begin);
}

void SafetensorsFile::read_f32_into(const std::vector<std::pair<std::string, Tensor>>& tensors) const {
  std::vector<File::Range> as_they_are;  // read together, so that small tensors keep every thread busy too
  for (const auto& [name, x] : tensors) {
    const Entry& e = entry(name);
    check(e.shape.numel() == x.numel(), place_of(path(), name, e.begin), ": expected ", x.numel(), " numbers for ",
          x.shape(), ", found ", e.shape);
    if (x.device().is_host() && e.dtype == "F32")
      as_they_are.push_back({x.f32(), x.bytes(), e.begin});
    else
      copy_from_host(x, read_f32(name).data(), x.bytes());
  }
  std::sort(as_they_are.begin(), as_they_are.end(), [](auto& a, auto& b) { return a.offset < b.offset; });
  file_.read_parallel(as_they_are);
}

std::vector<float> SafetensorsFile::read_f32(const std::string& name) const {
  const Entry& e = entry(name);
  if (e.dtype == "F32") return raw_values<float>(file_, e);
  if (e.dtype == "BF16") return mapped<float>(raw_values<bf16>(file_, e), [](bf16 v) { return static_cast<float>(v); });
  if (e.dtype == "F16") return mapped<float>(raw_values<uint16_t>(file_, e), half_to_float);
  check(e.dtype == "F64", place_of(path(), name, e.begin), ": expected F32, BF16, F16 or F64, found ", e.dtype);
  return mapped<float>(raw_values<double>(file_, e), [](double v) { return static_cast<float>(v); });
}

std::vector<int64_t> SafetensorsFile::read_i64(const std::string& name) const {
  const Entry& e = entry(name);
  if (e.dtype == "I64") return raw_values<int64_t>(file_, e);
  if (e.dtype == "I32") return mapped<int64_t>(raw_values<int32_t>(file_, e), [](int32_t v) { return int64_t{v}; });
  check(e.dtype == "U8" || e.dtype == "BOOL", place_of(path(), name, e.begin),
        ": expected I64, I32, U8 or BOOL, found ", e.dtype);
  return mapped<int64_t>(raw_values<uint8_t>(file_, e), [](uint8_t v) { return int64_t{v}; });
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const std::pair<std::string, Tensor>*> order;
  for (const auto& tensor : tensors) {
    check(tensor.second.defined() && tensor.second.is_contiguous(), path, ": tensor ", tensor.first,
          ": expected a contiguous tensor, found ", tensor.second.defined() ? "a strided view" : "none");
    check(tensor.first != "__metadata__", path, ": a tensor can't be called ", tensor.first);
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
    const auto *x = find_dtype(file_dtype(a->second.dtype())), *y = find_dtype(file_dtype(b->second.dtype()));
    return x != y ? x > y : a->first < b->first;
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const auto* tensor : order) {
    const auto& [name, x] = *tensor;
    nlohmann::ordered_json& entry = header[name];
    check(entry.is_null(), path, ": tensor ", name, ": expected each name once, found it twice");
    entry["dtype"] = file_dtype(x.dtype());
    entry["shape"] = static_cast<const std::vector<int64_t>&>(x.shape());
    entry["data_offsets"] = {offset, offset + x.bytes()};
    offset += x.bytes();
  }
  std::string bytes = header.dump();
  bytes.resize((bytes.size() + 7) / 8 * 8, ' ');
  check(static_cast<int64_t>(bytes.size()) <= kMaxHeaderBytes, path, ": the header would have ", bytes.size(),
        " bytes, but the format allows ", kMaxHeaderBytes);

  NewFile file(path);
  const uint64_t length = bytes.size();
  file.write(&length, kLengthBytes);
  file.write(bytes);
  for (const auto* tensor : order) {
    const Tensor& x = tensor->second;
    if (x.device().is_host()) {
      file.write(x.data(), x.bytes());
    } else {
      std::vector<char> host(static_cast<size_t>(x.bytes()));
      copy_to_host(x, host.data(), x.bytes());
      file.write(host.data(), x.bytes());
    }
  }
  file.commit();
}

}  // namespace nanovlm
