#include "engine/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/half.h"

namespace nanovlm {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian, and numbers are read in place");

constexpr int64_t kMaxHeaderBytes = int64_t{64} << 20;  // a vocabulary of 256,000 tokens and its merges take 20 MiB
constexpr int64_t kBlock = 32;                          // elements that share a scale

// How a tensor's elements lie in the file.
struct Layout {
  uint32_t code;
  const char* name;
  int64_t elements, bytes;  // of a block
};
constexpr Layout kLayouts[] = {{0, "F32", 1, 4}, {1, "F16", 1, 2}, {3, "Q4_1", kBlock, 20}, {8, "Q8_0", kBlock, 34}};

const Layout& layout_of(const std::string& name) {
  return *std::find_if(std::begin(kLayouts), std::end(kLayouts), [&](auto& layout) { return name == layout.name; });
}

enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

template <class T>
T number_at(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

float half_at(const uint8_t* bytes) { return half_to_float(number_at<uint16_t>(bytes)); }

// One block of 34 bytes: the scale, then 32 signed bytes.
void dequantise_q8_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int64_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// One block of 20 bytes: scale, minimum, then 16 bytes, each with the four bits of element i and of element i + 16.
void dequantise_q4_1(const uint8_t* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
    out[i + kBlock / 2] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

}  // namespace

// Reads the header from front to end; whatever does not fit the bytes that are there is refused with its place.
class GgufFile::Header {
 public:
  explicit Header(GgufFile& gguf) : gguf_(gguf), path_(gguf.path()) {
    bytes_.resize(static_cast<size_t>(std::min(gguf.file_.size(), kMaxHeaderBytes)));
    gguf.file_.read(bytes_.data(), static_cast<int64_t>(bytes_.size()), 0);
  }

  void read() {
    check(bytes_.size() >= 4 && std::memcmp(bytes_.data(), "GGUF", 4) == 0, path_,
          ": byte 0: expected the letters GGUF, found something else");
    at_ = 4;
    const auto version = number<uint32_t>("the format's version");
    check(version == 2 || version == 3, path_, ": byte 4: expected version 2 or 3, found ", version);
    const int64_t tensors = count(24, "the number of tensors"), keys = count(12, "the number of keys");
    for (int64_t i = 0; i < keys; ++i) read_key();
    for (int64_t i = 0; i < tensors; ++i) read_tensor();
    place_tensors();
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(path_, ": byte ", at_, ": ", parts...);
  }

  const uint8_t* take(int64_t n, const char* what) {
    const auto left = static_cast<int64_t>(bytes_.size()) - at_;
    if (n > left)
      refuse("expected ", n, " bytes of ", what, ", found only ", left,
             gguf_.file_.size() > kMaxHeaderBytes ? text(" in the ", kMaxHeaderBytes, " that a header may have") : "");
    at_ += n;
    return bytes_.data() + at_ - n;
  }
  template <class T>
  T number(const char* what) {
    return number_at<T>(take(sizeof(T), what));
  }
  // A number of things that take at least `least` bytes each.
  int64_t count(int64_t least, const char* what) {
    const auto n = number<uint64_t>(what);
    const uint64_t room =
        static_cast<uint64_t>(static_cast<int64_t>(bytes_.size()) - at_) / static_cast<uint64_t>(least);
    if (n > room) refuse("expected ", what, " to be at most ", room, ", which fill the bytes that follow, found ", n);
    return static_cast<int64_t>(n);
  }
  std::string string_value(const char* what) {
    const int64_t n = count(1, what);
    return {reinterpret_cast<const char*>(take(n, what)), static_cast<size_t>(n)};
  }

  int64_t integer_value(uint32_t type) {
    constexpr const char* what = "an integer";
    switch (type) {
      case kU8:
        return number<uint8_t>(what);
      case kI8:
        return number<int8_t>(what);
      case kU16:
        return number<uint16_t>(what);
      case kI16:
        return number<int16_t>(what);
      case kU32:
        return number<uint32_t>(what);
      case kI32:
        return number<int32_t>(what);
      case kI64:
        return number<int64_t>(what);
      case kBool: {
        const auto value = number<uint8_t>(what);
        if (value > 1) refuse("expected a boolean, 0 or 1, found ", int{value});
        return value;
      }
      default: {
        const auto value = number<uint64_t>(what);
        if (value > static_cast<uint64_t>(INT64_MAX)) refuse("expected an integer of at most 63 bits, found ", value);
        return static_cast<int64_t>(value);
      }
    }
  }
  double float_value(uint32_t type) { return type == kF32 ? number<float>("a float") : number<double>("a double"); }

  Value scalar(uint32_t type) {
    if (type == kString) return string_value("a string");
    if (type == kF32 || type == kF64) return float_value(type);
    if (type > kF64 || type == kArray) refuse("expected the type of a plain value, found ", type);
    return integer_value(type);
  }

  template <class T, class F>
  std::vector<T> items(int64_t n, F&& read_one) {
    std::vector<T> values;
    values.reserve(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) values.push_back(read_one());
    return values;
  }
  Value array_value() {
    const auto type = number<uint32_t>("the type of an array");
    if (type > kF64 || type == kArray) refuse("expected the type of an array's plain values, found ", type);
    constexpr int64_t least[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
    const int64_t n = count(least[type], "the length of an array");
    if (type == kString) return items<std::string>(n, [&] { return string_value("a string"); });
    if (type == kF32 || type == kF64) return items<double>(n, [&] { return float_value(type); });
    return items<int64_t>(n, [&] { return integer_value(type); });
  }

  void read_key() {
    const int64_t place = at_;
    const std::string key = string_value("a key");
    const auto type = number<uint32_t>("the type of a value");
    Value value = type == kArray ? array_value() : scalar(type);
    check(gguf_.metadata_.emplace(key, std::move(value)).second, path_, ": byte ", place, ": expected the key \"", key,
          "\" once, found it twice");
  }

  void read_tensor() {
    const int64_t place = at_;
    const std::string name = string_value("a tensor's name");
    const auto refuse_tensor = [&](const auto&... parts) {
      fail(path_, ": byte ", place, ": tensor ", name, ": ", parts...);
    };
    const auto dims = number<uint32_t>("a number of dimensions");
    if (dims < 1 || dims > 4) refuse_tensor("expected 1 to 4 dimensions, found ", dims);
    Entry entry;
    int64_t elements = 1;
    for (uint32_t i = 0; i < dims; ++i) {
      const auto size = static_cast<int64_t>(number<uint64_t>("a dimension"));
      if (size < 1 || __builtin_mul_overflow(elements, size, &elements) || elements > INT64_MAX / 64)
        refuse_tensor("expected dimensions of at least 1 whose product fits, found ", static_cast<uint64_t>(size));
      entry.shape.insert(entry.shape.begin(), size);
    }
    const auto code = number<uint32_t>("a tensor's type");
    const auto* layout =
        std::find_if(std::begin(kLayouts), std::end(kLayouts), [&](const Layout& known) { return code == known.code; });
    if (layout == std::end(kLayouts)) refuse_tensor("expected type 0 F32, 1 F16, 3 Q4_1 or 8 Q8_0, found ", code);
    if (entry.shape.back() % layout->elements != 0)
      refuse_tensor("expected rows of a multiple of ", layout->elements, " elements for ", layout->name, ", found ",
                    entry.shape);
    entry.type = layout->name;
    const auto offset = number<uint64_t>("a tensor's offset");
    if (offset > static_cast<uint64_t>(gguf_.file_.size()))
      refuse_tensor("expected an offset inside the file of ", gguf_.file_.size(), " bytes, found ", offset);
    entry.begin = static_cast<int64_t>(offset);
    entry.end = entry.begin + elements / layout->elements * layout->bytes;
    if (!gguf_.entries_.emplace(name, std::move(entry)).second) refuse_tensor("expected it once, found it twice");
  }

  // Offsets count from the header's end, rounded up.
  void place_tensors() {
    const int64_t alignment = gguf_.has("general.alignment") ? gguf_.integer("general.alignment") : 32;
    check(alignment >= 8 && alignment <= 65536 && alignment % 8 == 0, path_,
          ": general.alignment: expected a multiple of 8 up to 65536, found ", alignment);
    const int64_t data = (at_ + alignment - 1) / alignment * alignment;
    std::vector<std::pair<const std::string, Entry>*> order;
    for (auto& named : gguf_.entries_) {
      Entry& entry = named.second;
      check(entry.begin % alignment == 0, path_, ": tensor ", named.first,
            ": expected an offset that is a multiple of ", alignment, ", found ", entry.begin);
      entry.begin += data;
      entry.end += data;
      check(entry.end <= gguf_.file_.size(), path_, ": tensor ", named.first, ": expected bytes ", entry.begin, " to ",
            entry.end, ", found a file of ", gguf_.file_.size());
      order.push_back(&named);
    }
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->second.begin < b->second.begin; });
    for (size_t i = 1; i < order.size(); ++i)
      check(order[i]->second.begin >= order[i - 1]->second.end, path_, ": tensor ", order[i]->first,
            ": expected it after tensor ", order[i - 1]->first, ", found an overlap");
  }

  GgufFile& gguf_;
  std::string path_;
  std::vector<uint8_t> bytes_;
  int64_t at_ = 0;
};

GgufFile GgufFile::open(const std::string& path) {
  GgufFile result(File::open(path));
  Header(result).read();
  return result;
}

const GgufFile::Entry& GgufFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  check(found != entries_.end(), path(), ": expected a tensor ", name, ", found none among its ", entries_.size());
  return found->second;
}

std::vector<float> GgufFile::read_f32(const std::string& name) const {
  const Entry& e = entry(name);
  const Layout& layout = layout_of(e.type);
  std::vector<float> values(static_cast<size_t>(e.shape.numel()));
  if (e.type == "F32") {
    file_.read_parallel(values.data(), e.end - e.begin, e.begin);
    return values;
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(e.end - e.begin));
  file_.read_parallel(bytes.data(), e.end - e.begin, e.begin);
  float* out = values.data();
  for (const uint8_t* block = bytes.data(); block != bytes.data() + bytes.size(); block += layout.bytes) {
    if (e.type == "F16")
      *out = half_at(block);
    else if (e.type == "Q8_0")
      dequantise_q8_0(block, out);
    else
      dequantise_q4_1(block, out);
    out += layout.elements;
  }
  return values;
}

template <class T>
const T& GgufFile::get(const std::string& key, const char* kind) const {
  const auto found = metadata_.find(key);
  check(found != metadata_.end(), path(), ": expected the key ", key, ", found none");
  const T* value = std::get_if<T>(&found->second);
  check(value != nullptr, path(), ": ", key, ": expected ", kind, ", found another kind of value");
  return *value;
}

int64_t GgufFile::integer(const std::string& key) const { return get<int64_t>(key, "an integer"); }
double GgufFile::number(const std::string& key) const { return get<double>(key, "a number"); }
const std::string& GgufFile::string(const std::string& key) const { return get<std::string>(key, "a string"); }
const std::vector<int64_t>& GgufFile::integers(const std::string& key) const {
  return get<std::vector<int64_t>>(key, "a list of integers");
}
const std::vector<std::string>& GgufFile::strings(const std::string& key) const {
  return get<std::vector<std::string>>(key, "a list of strings");
}

}  // namespace nanovlm
