// One file of a repository, fetched into the cache.
#pragma once
#include <string>

#include "hub/cache.h"
#include "hub/repository.h"

namespace nanovlm::hub {

// Brings the bytes of `entry` into the cache's blobs, unless they are there: goes on where an earlier download was cut,
// and gives the file its name only when size and digest are those of the listing. One process at a time fetches a file;
// others wait and find it there. Error: the Hub has another file than its listing says; network; full disk.
void fetch_blob(HttpClient& client, const Repository& repository, const std::string& commit, const Entry& entry,
                const Cache& cache, const Progress& progress);

}  // namespace nanovlm::hub
