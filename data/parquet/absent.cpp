#include "data/parquet.h"

namespace nanovlm {

bool parquet_can_be_read() { return false; }

std::shared_ptr<PageCache> make_page_cache(int64_t) { return nullptr; }

std::unique_ptr<RecordSource> open_parquet(const std::string& path, std::shared_ptr<PageCache>) {
  fail(path,
       ": expected a build that reads Parquet, found one without Arrow: run scripts/setup.sh, which installs pyarrow "
       "into .venv, then configure and build again (docs/data.md)");
}

}  // namespace nanovlm
