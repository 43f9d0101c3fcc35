#include "kernels/simt/watchdog.h"

#include <cerrno>
#include <csignal>
#include <mutex>
#include <system_error>

#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace nanovlm::simt {
namespace {

void on_timer(int, siginfo_t*, void* context) {
  const int error = errno;
#if defined(__x86_64__)
  const auto instruction = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  const auto instruction = static_cast<ucontext_t*>(context)->uc_mcontext.pc;
#endif
  if (current_block) current_block->tick(reinterpret_cast<const void*>(instruction));
  errno = error;
}

void install_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_timer;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;  // the handler may never return
  sigaction(SIGVTALRM, &action, nullptr);
}

}  // namespace

Watchdog::Watchdog(double seconds) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGVTALRM;
  event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
  if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer_) != 0)
    throw std::system_error(errno, std::generic_category(), "simt: no timer for the watchdog");
  const double whole = static_cast<double>(static_cast<time_t>(seconds));
  itimerspec period{};
  period.it_value = period.it_interval = {static_cast<time_t>(seconds), static_cast<long>((seconds - whole) * 1e9)};
  timer_settime(timer_, 0, &period, nullptr);
}

Watchdog::~Watchdog() { timer_delete(timer_); }

}  // namespace nanovlm::simt
