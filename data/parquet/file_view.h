// Our files as Arrow wants them.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include "engine/error.h"
#include "engine/file.h"

namespace nanovlm {

// A file's bytes up to `end`, read from `begin` on.
class FileView final : public arrow::io::RandomAccessFile {
 public:
  FileView(std::shared_ptr<const File> file, int64_t begin, int64_t end)
      : file_(std::move(file)), position_(begin), end_(end) {}

  // The next Read into a buffer moves the position only.
  void skip_next_read() { skip_ = true; }

  arrow::Status Close() override { return arrow::Status::OK(); }
  bool closed() const override { return false; }
  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Result<int64_t> GetSize() override { return file_->size(); }
  arrow::Status Seek(int64_t position) override {
    position_ = position;
    return arrow::Status::OK();
  }

  arrow::Result<int64_t> Read(int64_t bytes, void* out) override {
    const int64_t there = available(bytes);
    try {
      file_->read(out, there, position_);
    } catch (const Error& error) {
      return arrow::Status::IOError(error.what());
    }
    position_ += there;
    return there;
  }

  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t bytes) override {
    if (std::exchange(skip_, false)) {
      position_ += bytes;
      return std::make_shared<arrow::Buffer>(nullptr, 0);
    }
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(available(bytes)));
    ARROW_RETURN_NOT_OK(Read(buffer->size(), buffer->mutable_data()));
    return buffer;
  }

  arrow::Result<std::string_view> Peek(int64_t bytes) override {
    peeked_at_ = position_;
    peeked_.resize(static_cast<size_t>(available(bytes)));
    ARROW_RETURN_NOT_OK(Read(static_cast<int64_t>(peeked_.size()), peeked_.data()));
    position_ = peeked_at_;
    return peeked_;
  }

  int64_t peeked_at() const { return peeked_at_; }  // where the last Peek began

 private:
  int64_t available(int64_t bytes) const {
    return std::clamp<int64_t>(bytes, 0, std::max<int64_t>(end_ - position_, 0));
  }

  std::shared_ptr<const File> file_;
  int64_t position_, end_, peeked_at_ = 0;
  bool skip_ = false;
  std::string peeked_;
};

}  // namespace nanovlm
