// A Parquet file's leaf columns, row by row. Arrow's own readers begin at a row group's first row; here a row's page is
// found first, and only that one is decoded.
#pragma once
#include <array>
#include <deque>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include <arrow/memory_pool.h>
#include <parquet/file_reader.h>

#include "engine/file.h"

namespace nanovlm {

// One place in a list, or the only value of a column that is no list.
struct ParquetSlot {
  bool in_list;            // false: the list is empty or null
  bool present;            // false: null
  std::string_view value;  // lives as long as the page it came from
};

struct ParquetPage;

// What a row has in one leaf column.
struct ParquetCell {
  std::vector<ParquetSlot> slots;
  std::vector<std::shared_ptr<const ParquetPage>> pages;  // hold the values
};

class PageCache {
 public:
  using Page = std::shared_ptr<const ParquetPage>;
  using Key = std::array<int64_t, 3>;  // file, leaf and row group, page

  static constexpr int64_t kLargeBytes = int64_t{1} << 20;  // from here on a page is large

  explicit PageCache(int64_t max_bytes, int64_t large_bytes = kLargeBytes);

  // The page of this key. Where it is not kept, make() is called once, however many threads ask for it meanwhile. A
  // large page is kept when it is soon asked for a third time, or will be: rows in random order seldom do, and memory
  // that was never touched costs more than to decode a page once more.
  Page get(const Key& key, bool will_ask_again, const std::function<Page()>& make);

  int64_t next_file();  // a number for a file, to be its first part of a key
  const std::shared_ptr<arrow::MemoryPool>& memory() const { return memory_; }  // for the pages

 private:
  struct Entry {
    std::shared_future<Page> page;
    int64_t bytes = 0;         // 0: being made
    bool asked_again = false;  // by another thread, while it is being made
    std::list<Key>::iterator use;
  };
  bool is_worth_keeping(const Key& key, int64_t bytes, bool asked_again);
  void trim();

  const int64_t max_bytes_, large_bytes_;
  const std::shared_ptr<arrow::MemoryPool> memory_;
  std::mutex mutex_;
  std::map<Key, Entry> entries_;
  std::list<Key> uses_;    // of the finished entries; the latest comes first
  std::deque<Key> asked_;  // for large pages that were not kept; the latest comes last
  int64_t bytes_ = 0, files_ = 0;
};

class ParquetPages {
 public:
  // Error: the file is no Parquet file, or its row groups can't be where its footer says.
  ParquetPages(const std::string& path, std::shared_ptr<PageCache> cache);
  ~ParquetPages();

  const parquet::FileMetaData& metadata() const { return *metadata_; }
  const std::string& path() const { return file_->path(); }

  // Row `row` of a row group, in the leaf column of this number, which must hold byte arrays and have at most one list
  // around it. May be called from several threads at once. Error: the column can't be decoded.
  ParquetCell read(int group, int leaf, int64_t row) const;

 private:
  struct PageRange {
    int64_t offset, bytes;  // in the file, header included
    int64_t first_row = 0;  // that begins in it
  };
  // The pages of a leaf column in a row group.
  struct Directory {
    int64_t dictionary_offset = 0, dictionary_bytes = 0;  // 0: there is none
    std::vector<PageRange> pages;
    bool rows_end_with_pages = true;  // else a row may go on in the next page
  };

  std::shared_ptr<const Directory> directory(int group, int leaf) const;
  Directory build_directory(int group, int leaf) const;
  bool read_offset_index(int group, int leaf, Directory& directory) const;
  void walk_pages(int group, int leaf, int64_t end, Directory& directory) const;
  PageCache::Page page(int group, int leaf, const Directory& directory, size_t index,
                       bool will_ask_again = false) const;
  PageCache::Page decode(int group, int leaf, const Directory& directory, const PageRange& range) const;
  std::shared_ptr<arrow::Buffer> read_range(int64_t offset, int64_t bytes, arrow::MemoryPool* pool) const;
  int count_read(int64_t offset) const;
  void check_ranges() const;

  std::shared_ptr<const File> file_;
  const std::shared_ptr<PageCache> cache_;
  const int64_t id_;
  std::unique_ptr<parquet::ParquetFileReader> reader_;
  std::shared_ptr<parquet::FileMetaData> metadata_;

  mutable std::mutex mutex_;
  mutable std::map<std::pair<int, int>, std::shared_ptr<const Directory>> directories_;  // by group and leaf
  mutable std::map<int64_t, int> reads_;                                                 // of large pages, by offset
};

}  // namespace nanovlm
