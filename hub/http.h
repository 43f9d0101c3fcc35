// HTTP as the Hub needs it. Redirects are followed here and not by libcurl, because where they lead decides whether the
// token goes along: it is sent to the endpoint's own scheme, host and port, and no more once a redirect has left them.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/file.h"
#include "hub/hub.h"

namespace nanovlm::hub {

// A failure that may pass: no connection, no answer, a body that ended early.
struct NetworkError : Error {
  using Error::Error;
};

using Headers = std::map<std::string, std::string>;  // names in small letters

struct Response {
  int status = 0;
  Headers headers;
  // Of all answers that the endpoint's own host gave on the way, a later one's value winning: what the Hub itself says
  // of a file that another host delivers.
  Headers hub_headers;
  std::string body;  // empty where a receiver took it

  bool ok() const { return status >= 200 && status < 300; }
  bool may_pass() const;  // a status that another try may change
};

// What is sent: `size` bytes, read by position so that they can be sent again.
struct RequestBody {
  int64_t size = 0;
  std::function<void(char* destination, int64_t count, int64_t offset)> read;

  static RequestBody of(std::string text);
  static RequestBody of(std::shared_ptr<const File> file, int64_t offset, int64_t size);
};

struct Request {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers = {};  // "Name: value"
  RequestBody body = {};
  bool with_token = true;     // where the rule above allows it
  int64_t stall_seconds = 0;  // 0: the settings'
  // Takes the body of an answer that is ok(), piece by piece, with everything that came before it. May throw.
  std::function<void(const Response& so_far, const char* bytes, int64_t count)> receive = {};
};

// For one thread.
class HttpClient {
 public:
  explicit HttpClient(const Settings& settings);

  // One exchange, at most ten redirects included. NetworkError: see there. Error: an address that is not allowed (not
  // http or https; http where the endpoint has https), too many redirects, an answer without an end.
  Response exchange(const Request& request);

  // The same, repeated while it fails in a way that may pass.
  Response answer(const Request& request);

  // The same. Error, with what the server says of it, also where the answer is not ok().
  Response request(const Request& request);

  const Settings& settings() const { return settings_; }

 private:
  class Transfer;
  Response send(const Request& request, const std::string& url, bool with_token, const Headers& hub_headers);
  void check_allowed(const std::string& url) const;

  Settings settings_;
  std::string origin_;
  std::unique_ptr<void, void (*)(void*)> curl_;
};

// Waits before another try, longer each time; the tries start again from the first after `progressed`.
class Patience {
 public:
  explicit Patience(const Settings& settings) : settings_(settings) {}
  bool another_try();  // after the wait, or false: no more tries
  void progressed() { tries_ = 0; }

 private:
  Settings settings_;
  int tries_ = 0;
};

// Fails with status, place and the server's own words; by a NetworkError if the status may pass.
[[noreturn]] void fail_status(const Request& request, const Response& response);

// "https://host:443" in small letters. Error: no address of http or https, or one with a user name in it.
std::string origin_of(const std::string& url);

// `reference` as a link on the page `base`.
std::string resolve_url(const std::string& base, const std::string& reference);

// Percent-encodes all but letters, digits, "-", "_", ".", "~" and what `keep` has.
std::string url_quote(const std::string& text, const std::string& keep = "");

// An address without its query, which may hold a signature that is nobody's business: for messages.
std::string without_query(const std::string& url);

}  // namespace nanovlm::hub
