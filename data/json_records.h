// Records written as JSON, with pictures by paths below the file's folder: one a line, or all of them in one array. The
// places of the records are found once, when the file is opened; each is parsed when it is read.
#pragma once
#include <string>
#include <vector>

#include "data/record.h"
#include "engine/file.h"
#include "engine/json.h"

namespace nanovlm {

// One record:
//   {"images": [PICTURE, ...], "texts": [{"user": ..., "assistant": ..., "source": ...}, ...]}    the_cauldron
//   {"image": PICTURE, "question": ..., "answer": ...}                                            MMStar, as one turn
//   {"image": PICTURE or [PICTURE, ...], "conversations": [{"from": ..., "value": ...}, ...]}     LLaVA, ShareGPT
//   {"images": [PICTURE, ...], "messages": [{"role": ..., "content": ...}, ...]}                  the same, as chats
// where PICTURE is a path below `folder`, or {"path": ...} or {"bytes": BASE64}. Other keys are ignored. In a
// conversation "human" or "user" asks and "gpt" or "assistant" answers, in turns; what "system" says stands before the
// first question;
// "<image>" marks are left out, since pictures stand before the text. BadRecord.
Record parse_record(const JsonValue& value, const std::string& folder);

class JsonRecords : public RecordSource {
 public:
  int64_t size() const override { return static_cast<int64_t>(ranges_.size()); }
  Record read(int64_t row) const override;
  std::string place(int64_t row) const override { return text(file_.path(), separator_, number(row)); }

 protected:
  struct Range {
    int64_t begin, bytes;
  };

  JsonRecords(const std::string& path, const char* separator);

  const File file_;
  // What stands for a record in its place.
  virtual int64_t number(int64_t row) const { return row; }

  std::vector<Range> ranges_;  // of each record in the file

 private:
  const std::string folder_;  // canonical
  const char* const separator_;
};

// One record a line: "train.jsonl:17" is on the 17th. Blank lines are none.
class JsonLines final : public JsonRecords {
 public:
  explicit JsonLines(const std::string& path);

 private:
  int64_t number(int64_t row) const override;

  std::vector<int64_t> rows_before_blank_;  // of each blank line: the records above it
};

// The records of one array: "llava.json: record 16" is its 17th. Error: the file holds no array, or it does not end.
class JsonArray final : public JsonRecords {
 public:
  explicit JsonArray(const std::string& path);
};

}  // namespace nanovlm
