// Turns the accesses of single threads into the requests of warps, and counts what those cost on a GPU.
//
// The n-th access of each lane at one place since the warp last met belongs to one request. A request is counted once
// all lanes have made theirs, or when the warp meets.
#pragma once
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "kernels/simt/report.h"
#include "kernels/simt/site.h"

namespace nanovlm::simt {

struct Access {
  uintptr_t address;
  int bytes;
  bool write, shared;
};

class Requests {
 public:
  void begin_launch(KernelReport& report);
  void begin_block(int warps);
  void add(int warp, int lane, uint32_t lanes_of_warp, SiteId site, const Access& access);
  void warp_met(int warp);  // counts what is pending

 private:
  struct Request {
    uint32_t lanes = 0;
    int bytes = 0;
    bool write = false, shared = false;
    uintptr_t address[32];
  };
  // One place of one warp: its requests from number `first` on, and each lane's number of accesses.
  struct Stream {
    std::deque<Request> pending;
    uint32_t first = 0;
    uint32_t accesses[32] = {};
    bool listed = false;
  };

  Stream& stream(int warp, SiteId site);
  void count(const Request& request, SiteId site);
  void count_sectors(const Request& request, LineReport& line);
  void count_wavefronts(const Request& request, LineReport& line);
  void touch(uintptr_t sector, bool write);

  KernelReport* report_ = nullptr;                  // its lines are numbered by site until the executor names them
  std::vector<std::vector<Stream>> streams_;        // by warp and site
  std::vector<std::vector<SiteId>> listed_;         // by warp: the sites with anything since it last met
  std::unordered_map<uintptr_t, uint8_t> touched_;  // sectors of this launch: 1 read from memory, 2 written
  std::vector<uintptr_t> distinct_;                 // of the request being counted
};

}  // namespace nanovlm::simt
