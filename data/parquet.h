// Parquet files as Hugging Face publishes data sets, read through Arrow's C++ library where the build has it.
//
// Opening a file reads its footer only. A row is reached by its row group and page: only the pages that hold it are
// read and decoded, and the last ones used are kept, so that neither memory nor time grows with the file.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "data/record.h"

namespace nanovlm {

bool parquet_can_be_read();  // whether the build has Arrow

class PageCache;

// Decoded pages that several files share. Those used longest ago go first. Pages in use are not counted: a reading
// thread holds those of one row.
std::shared_ptr<PageCache> make_page_cache(int64_t max_bytes = int64_t{256} << 20);

// The columns are the_cauldron's (images: list<struct<bytes, path>>, texts: list<struct<user, assistant, source>>) or
// MMStar's (image: struct<bytes, path>, question, answer); others are ignored. Paths are below the file's folder.
// Error: no regular file, no Parquet file or a cut one, columns that are missing (all are named) or of another type,
// row groups that lie outside the file; or a build without Arrow.
std::unique_ptr<RecordSource> open_parquet(const std::string& path, std::shared_ptr<PageCache> cache);

}  // namespace nanovlm
