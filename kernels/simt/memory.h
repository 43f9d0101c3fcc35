// The simt device's memory: one reserved range of addresses, so that an address is device memory or is not.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace nanovlm::simt {

class DeviceMemory {
 public:
  DeviceMemory();
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* allocate(int64_t bytes);  // throws std::bad_alloc
  int64_t left() const;           // bytes that may still be had: of the range, and of this machine's memory
  void free(void* memory);

  bool in_range(const void* address) const { return address >= begin_ && address < begin_ + bytes_; }
  // Whether all of [address, address + bytes) lies in one live allocation.
  bool live(const void* address, int64_t bytes) const;
  // "8 bytes past the end of an allocation of 400 bytes", for an address that is not live.
  std::string describe(const void* address) const;
  // Describes an allocation whose red zone has been written; empty where there is none.
  std::string overrun() const;

  int64_t offset(const void* address) const { return static_cast<const char*>(address) - begin_; }

 private:
  struct Block {
    int64_t bytes;  // asked for; the block itself is longer by the red zones
    int64_t size;   // of the whole block
  };
  char* begin_ = nullptr;
  int64_t bytes_ = 0, in_use_ = 0;
  std::map<int64_t, Block> live_;    // by offset of the user's first byte
  std::map<int64_t, int64_t> free_;  // offset of a free stretch -> its length
};

// Memory of no executor in particular, whose bounds every executor checks: for operands that outlive executors, as a
// test's do. Neither taken nor given back while a kernel runs.
DeviceMemory& operand_memory();

}  // namespace nanovlm::simt
