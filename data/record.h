// Records: pictures and the turns of a conversation about them, in the_cauldron's schema, and where they come from.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/image.h"
#include "engine/error.h"

namespace nanovlm {

struct Turn {
  std::string user, assistant, source;
};

// Either the bytes of a picture file, or its path below a folder that it may not leave.
struct Picture {
  std::vector<uint8_t> bytes;
  std::string folder, path;
};

struct Record {
  std::vector<Picture> images;
  std::vector<Turn> texts;
  bool null_first = false;  // `images`, which holds no nulls, began with one
};

// Why a record was left out.
enum class Fault : uint8_t {
  broken_record,    // not in the schema
  no_text,          // no turn
  no_picture,       // none is named
  missing_picture,  // the file is not there, or not one that may be read
  broken_picture,   // can't be decoded
  over_long,        // more tokens than the limit; nothing is wrong with the record
  no_target         // a whole batch without a label that counts
};
constexpr int kFaults = 7;
const char* name_of(Fault fault);

// Thrown for one record; what() names file, line and what is wrong with it.
struct BadRecord : Error {
  BadRecord(Fault fault, const std::string& message) : Error(message), fault(fault) {}
  Fault fault;
};

// Rows read by index, from several threads at once.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  virtual int64_t size() const = 0;
  virtual Record read(int64_t row) const = 0;        // BadRecord
  virtual std::string place(int64_t row) const = 0;  // for messages: "train.jsonl:17"

  // Rows of one block cost little to read one after the other, as a row group's do; blocks are counted from 0. By
  // default each row is one of its own.
  virtual int64_t blocks() const { return size(); }
  virtual int64_t block_of(int64_t row) const { return row; }
};

// The bytes of its file; BadRecord if they can't be had. `place` is for messages.
std::vector<uint8_t> picture_bytes(const Picture& picture, const std::string& place, const ImageLimits& limits = {});

// Several sources, one after the other.
class Concatenation : public RecordSource {
 public:
  explicit Concatenation(std::vector<std::unique_ptr<RecordSource>> parts);
  int64_t size() const override { return begins_.back(); }
  Record read(int64_t row) const override;
  std::string place(int64_t row) const override;
  int64_t blocks() const override { return first_blocks_.back(); }
  int64_t block_of(int64_t row) const override;

 private:
  size_t part_of(int64_t row) const;

  std::vector<std::unique_ptr<RecordSource>> parts_;
  std::vector<int64_t> begins_;        // of each part, and the end of the last
  std::vector<int64_t> first_blocks_;  // likewise
};

}  // namespace nanovlm
