#include "hub/http.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <thread>

#include <curl/curl.h>

namespace nanovlm::hub {
namespace {

constexpr int kRedirects = 10;
constexpr size_t kMaxBody = size_t{64} << 20;  // of an answer that is kept in memory
constexpr size_t kMaxErrorBody = size_t{64} << 10;
constexpr double kLongestWait = 30;  // seconds before another try

struct CurlUrl {
  explicit CurlUrl(const std::string& text) : handle(curl_url()) {
    check(handle != nullptr, "curl: out of memory");
    check(set(text), "\"", without_query(text), "\": expected an address of http or https");
  }

  bool set(const std::string& text) { return curl_url_set(handle.get(), CURLUPART_URL, text.c_str(), 0) == CURLUE_OK; }
  std::string part(CURLUPart which, unsigned flags = 0) const {
    char* value = nullptr;
    if (curl_url_get(handle.get(), which, &value, flags) != CURLUE_OK) return "";
    const std::string result = value;
    curl_free(value);
    return result;
  }

  struct Cleanup {
    void operator()(CURLU* url) const { curl_url_cleanup(url); }
  };
  std::unique_ptr<CURLU, Cleanup> handle;  // frees it where the constructor throws, too
};

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n"), end = text.find_last_not_of(" \t\r\n");
  return begin == text.npos ? "" : text.substr(begin, end - begin + 1);
}

// The server's words on one line, and not too many.
std::string printable(const std::string& words) {
  constexpr size_t kLongest = 300;
  std::string result;
  for (const char c : words.substr(0, kLongest)) result += static_cast<unsigned char>(c) < 32 || c == 127 ? ' ' : c;
  return result;
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

CURL* start_curl() {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  check(started == CURLE_OK, "curl: can't be started: ", curl_easy_strerror(started));
  CURL* curl = curl_easy_init();
  check(curl != nullptr, "curl: out of memory");
  return curl;
}

}  // namespace

bool Response::may_pass() const {
  return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

RequestBody RequestBody::of(std::string text) {
  const int64_t size = static_cast<int64_t>(text.size());
  return {size, [text = std::move(text)](char* destination, int64_t count, int64_t offset) {
            std::memcpy(destination, text.data() + offset, static_cast<size_t>(count));
          }};
}

RequestBody RequestBody::of(std::shared_ptr<const File> file, int64_t offset, int64_t size) {
  return {size, [file = std::move(file), offset](char* destination, int64_t count, int64_t at) {
            file->read(destination, count, offset + at);
          }};
}

// One request and its answer, without redirects. libcurl calls back into it; an exception must not pass through C: it
// is kept here, and the transfer ended.
class HttpClient::Transfer {
 public:
  Transfer(CURL* curl, const Request& request, const std::string& url, bool from_hub, Headers hub_headers)
      : curl_(curl), request_(request), url_(url), from_hub_(from_hub) {
    response_.hub_headers = std::move(hub_headers);
    curl_easy_reset(curl);  // which keeps its connections open
  }

  Response run(const std::vector<std::string>& headers, int64_t connect_seconds, int64_t stall_seconds) {
    curl_slist* list = nullptr;
    for (const std::string& line : headers) list = curl_slist_append(list, line.c_str());
    const std::unique_ptr<curl_slist, void (*)(curl_slist*)> owner(list, curl_slist_free_all);
    set(CURLOPT_HTTPHEADER, list);
    set(CURLOPT_CONNECTTIMEOUT, static_cast<long>(connect_seconds));
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(stall_seconds));
    set_request();
    set_callbacks();
    const CURLcode result = curl_easy_perform(curl_);
    if (error_) std::rethrow_exception(error_);
    if (result != CURLE_OK)
      throw NetworkError(text(without_query(url_), ": ", reason_[0] ? reason_ : curl_easy_strerror(result)));
    see_head();
    return std::move(response_);
  }

 private:
  template <class T>
  void set(CURLoption option, T value) {
    curl_easy_setopt(curl_, option, value);
  }

  void set_request() {
    set(CURLOPT_URL, url_.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_ERRORBUFFER, reason_);
    if (request_.method != "GET") {
      set(CURLOPT_UPLOAD, 1L);
      set(CURLOPT_CUSTOMREQUEST, request_.method.c_str());
      set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request_.body.size));
    }
  }

  void set_callbacks() {
    set(CURLOPT_HEADERDATA, this);
    set(
        CURLOPT_HEADERFUNCTION, +[](char* bytes, size_t, size_t count, void* self) {
          return static_cast<Transfer*>(self)->guarded(0, count, [&](Transfer& t) { t.take_header({bytes, count}); });
        });
    set(CURLOPT_WRITEDATA, this);
    set(
        CURLOPT_WRITEFUNCTION, +[](char* bytes, size_t, size_t count, void* self) {
          return static_cast<Transfer*>(self)->guarded(CURL_WRITEFUNC_ERROR, count,
                                                       [&](Transfer& t) { t.take_body(bytes, count); });
        });
    set(CURLOPT_READDATA, this);
    set(
        CURLOPT_READFUNCTION, +[](char* to, size_t, size_t room, void* self) {
          auto& transfer = *static_cast<Transfer*>(self);
          const int64_t left = transfer.request_.body.size - transfer.sent_;
          const size_t count = std::min(room, static_cast<size_t>(left));
          return transfer.guarded(CURL_READFUNC_ABORT, count, [&](Transfer& t) { t.give_body(to, count); });
        });
  }

  template <class F>
  size_t guarded(size_t failed, size_t count, F&& body) {
    try {
      body(*this);
      return count;
    } catch (...) {
      error_ = std::current_exception();
      return failed;
    }
  }

  void take_header(const std::string& line) {
    const size_t colon = line.find(':');
    if (line.starts_with("HTTP/"))
      response_.headers.clear();
    else if (colon != line.npos)
      response_.headers[lower(trimmed(line.substr(0, colon)))] = trimmed(line.substr(colon + 1));
  }

  // Status and headers are known.
  void see_head() {
    long status = 0;
    curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
    response_.status = static_cast<int>(status);
    if (!from_hub_) return;
    for (const auto& [name, value] : response_.headers) response_.hub_headers[name] = value;
  }

  void take_body(const char* bytes, size_t count) {
    if (response_.status == 0) see_head();
    if (response_.ok() && request_.receive) return request_.receive(response_, bytes, static_cast<int64_t>(count));
    const size_t room = (response_.ok() ? kMaxBody : kMaxErrorBody) - response_.body.size();
    check(count <= room || !response_.ok(), without_query(url_), ": expected an answer of at most ", kMaxBody,
          " bytes, found more");
    response_.body.append(bytes, std::min(count, room));
  }

  void give_body(char* destination, size_t count) {
    if (count > 0) request_.body.read(destination, static_cast<int64_t>(count), sent_);
    sent_ += static_cast<int64_t>(count);
  }

  CURL* curl_;
  const Request& request_;
  std::string url_;
  bool from_hub_;
  Response response_;
  int64_t sent_ = 0;
  std::exception_ptr error_;
  char reason_[CURL_ERROR_SIZE] = "";
};

HttpClient::HttpClient(const Settings& settings)
    : settings_(settings), origin_(origin_of(settings.endpoint)), curl_(start_curl(), curl_easy_cleanup) {}

void HttpClient::check_allowed(const std::string& url) const {
  const std::string origin = origin_of(url);
  check(origin.starts_with("https:") || origin_.starts_with("http:"), without_query(url),
        ": expected https, as the endpoint ", settings_.endpoint, " has, found http");
}

Response HttpClient::send(const Request& request, const std::string& url, bool with_token, const Headers& hub_headers) {
  std::vector<std::string> lines = request.headers;
  lines.push_back("User-Agent: nanovlm.cpp");
  lines.push_back("Accept-Encoding: identity");  // sizes and digests are those of the file itself
  lines.push_back("Expect:");                    // a body is sent without asking first
  if (with_token && !settings_.token.empty()) lines.push_back("Authorization: Bearer " + settings_.token);
  Transfer transfer(curl_.get(), request, url, origin_of(url) == origin_, hub_headers);
  return transfer.run(lines, settings_.stall_seconds,
                      request.stall_seconds ? request.stall_seconds : settings_.stall_seconds);
}

Response HttpClient::exchange(const Request& request) {
  std::string url = request.url;
  bool with_token = request.with_token;
  Headers hub_headers;
  for (int hop = 0; hop <= kRedirects; ++hop) {
    check_allowed(url);
    with_token = with_token && origin_of(url) == origin_;
    Response response = send(request, url, with_token, hub_headers);
    if (!is_redirect(response.status)) return response;
    const auto location = response.headers.find("location");
    check(location != response.headers.end(), without_query(url), ": expected where it is, found status ",
          response.status, " without Location");
    const bool keeps_method = response.status == 307 || response.status == 308;
    check(keeps_method || request.method == "GET", request.method, " ", without_query(url),
          ": expected an answer, found a redirect that would lose what was sent");
    url = resolve_url(url, location->second);
    hub_headers = response.hub_headers;
  }
  fail(without_query(request.url), ": expected a file, found more than ", kRedirects, " redirects");
}

Response HttpClient::answer(const Request& request) {
  Patience patience(settings_);
  while (true) {
    try {
      Response response = exchange(request);
      if (!response.may_pass() || !patience.another_try()) return response;
    } catch (const NetworkError&) {
      if (!patience.another_try()) throw;
    }
  }
}

Response HttpClient::request(const Request& request) {
  Response response = answer(request);
  if (!response.ok()) fail_status(request, response);
  return response;
}

bool Patience::another_try() {
  if (tries_ >= settings_.retries) return false;
  const double seconds = std::min(settings_.retry_seconds * std::ldexp(1.0, tries_++), kLongestWait);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return true;
}

void fail_status(const Request& request, const Response& response) {
  const auto header = [&](const char* name) {
    const auto found = response.headers.find(name);
    return found == response.headers.end() ? std::string() : found->second;
  };
  std::string words = header("x-error-message");
  if (words.empty()) words = response.body;
  const std::string code = header("x-error-code");
  const std::string what =
      text(request.method, " ", without_query(request.url), ": status ", response.status,
           code.empty() ? "" : " " + printable(code), trimmed(words).empty() ? "" : ": " + trimmed(printable(words)));
  if (response.may_pass()) throw NetworkError(what);
  const bool no_access = response.status == 401 || response.status == 403;
  fail(what, no_access ? " (a private or gated repository needs a token that may use it in HF_TOKEN)" : "");
}

std::string origin_of(const std::string& url) {
  const CurlUrl parsed(url);
  const std::string scheme = lower(parsed.part(CURLUPART_SCHEME));
  check(scheme == "http" || scheme == "https", "\"", without_query(url), "\": expected an address of http or https");
  check(parsed.part(CURLUPART_USER).empty() && parsed.part(CURLUPART_PASSWORD).empty(), "\"", scheme,
        "://...\": expected an address without a user name in it");
  return scheme + "://" + lower(parsed.part(CURLUPART_HOST)) + ":" + parsed.part(CURLUPART_PORT, CURLU_DEFAULT_PORT);
}

std::string resolve_url(const std::string& base, const std::string& reference) {
  CurlUrl url(base);
  check(url.set(reference), without_query(base), ": expected an address to go on to, found \"",
        printable(without_query(reference)), "\"");
  return url.part(CURLUPART_URL);
}

std::string url_quote(const std::string& text, const std::string& keep) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
                       c == '_' || c == '.' || c == '~' || keep.find(c) != keep.npos;
    const auto byte = static_cast<unsigned char>(c);
    if (plain)
      result += c;
    else
      result += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return result;
}

std::string without_query(const std::string& url) { return url.substr(0, url.find_first_of("?#")); }

}  // namespace nanovlm::hub
