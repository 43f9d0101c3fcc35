#include "kernels/simt/site.h"

#include <backtrace.h>
#include <cxxabi.h>

#include <cstdlib>
#include <memory>

namespace nanovlm::simt {
namespace {

struct Found {
  std::string innermost, outside_vocabulary;
};

int take_frame(void* data, uintptr_t, const char* file, int line, const char*) {
  if (!file) return 0;
  Found& found = *static_cast<Found*>(data);
  const std::string path = file;
  if (found.innermost.empty()) found.innermost = text(path, ':', line);
  const auto has = [&](const char* part) { return path.find(part) != std::string::npos; };
  if (has("kernels/device.cuh") || has("kernels/simt/") || has("/include/c++/")) return 0;
  found.outside_vocabulary = text(path, ':', line);
  return 1;  // enough
}

void ignore_error(void*, const char*, int) {}  // the place then stays unknown

void take_symbol(void* data, uintptr_t, const char* name, uintptr_t, uintptr_t) {
  if (name) *static_cast<std::string*>(data) = name;
}

// Made once: it holds the program's debug information, and libbacktrace has no way to free it.
backtrace_state* program() {
  static backtrace_state* const state = backtrace_create_state(nullptr, 1, ignore_error, nullptr);
  return state;
}

}  // namespace

std::string function_at(const void* address) {
  std::string mangled;
  if (backtrace_state* state = program())
    backtrace_syminfo(state, reinterpret_cast<uintptr_t>(address), take_symbol, ignore_error, &mangled);
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status),
                                                    std::free);
  return status == 0 ? name.get() : mangled;
}

std::string line_of(const void* instruction) {
  Found found;
  if (backtrace_state* state = program())
    backtrace_pcinfo(state, reinterpret_cast<uintptr_t>(instruction), take_frame, ignore_error, &found);
  if (!found.outside_vocabulary.empty()) return found.outside_vocabulary;
  return found.innermost.empty() ? "unknown line" : found.innermost;
}

SiteId SiteTable::add(uint64_t key, const Site& site) {
  if (key == last_key_) return last_id_;
  const auto [entry, fresh] = ids_.try_emplace(key, static_cast<SiteId>(sites_.size()));
  if (fresh) sites_.push_back(site);
  last_key_ = key;
  return last_id_ = entry->second;
}

SiteId SiteTable::of_instruction(const void* instruction) {
  return add(reinterpret_cast<uint64_t>(instruction), {instruction, "", {}});
}

SiteId SiteTable::of_wrapper(const char* operation, Where where) {
  // Strings are compared by address: at worst one place gets two numbers. The top bit keeps off instructions.
  const uint64_t key =
      reinterpret_cast<uint64_t>(operation) * 0x9e3779b97f4a7c15u ^
      (reinterpret_cast<uint64_t>(where.file) + static_cast<uint64_t>(where.line)) * 0xbf58476d1ce4e5b9u;
  return add(key | uint64_t{1} << 63, {nullptr, operation, where});
}

std::string SiteTable::place(SiteId id) const {
  const Site& site = sites_[id];
  return site.instruction ? line_of(site.instruction) : text(site.where);
}

std::string SiteTable::description(SiteId id) const {
  const Site& site = sites_[id];
  return site.instruction ? line_of(site.instruction) : text(site.operation, " at ", site.where);
}

}  // namespace nanovlm::simt
