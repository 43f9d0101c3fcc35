// The command line of a program, and how a program ends: 0 done, 1 failed (one line on stderr says why), 2 bad usage.
//
//     int main(int argc, char** argv) {
//       Settings settings;
//       CommandLine line("generate", "Answers a question about a picture.");
//       line.option("--image", settings.image, "the picture").required();
//       return line.run(argc, argv, [&] { generate(settings); });
//     }
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/error.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace nanovlm {

// Options that can't stand together, or one that is missing beside another: the program ends with 2.
struct UsageError : Error {
  using Error::Error;
};

class CommandLine {
 public:
  class Option {
   public:
    explicit Option(CLI::Option* option) : option_(option) {}
    Option& required();
    Option& in(double low, double high);  // numbers: anything else is bad usage
    Option& one_of(const std::vector<std::string>& values);
    Option& excludes(const Option& other);
    Option& in_group(const std::string& heading);  // of --help

   private:
    CLI::Option* option_;
  };

  CommandLine(const std::string& program, const std::string& description);
  ~CommandLine();

  // `value` is written where the option is given, and shown as the default otherwise. A name without "--" is an
  // argument told by its place.
  Option option(const std::string& name, std::string& value, const std::string& help);
  Option option(const std::string& name, int64_t& value, const std::string& help);
  Option option(const std::string& name, double& value, const std::string& help);
  Option option(const std::string& name, std::optional<int64_t>& value, const std::string& help);
  Option option(const std::string& name, std::optional<std::string>& value, const std::string& help);
  Option option(const std::string& name, std::vector<std::string>& values, const std::string& help);  // one or more
  Option flag(const std::string& name, bool& value, const std::string& help);

  // A part of the program with options of its own: `inspect image ...`. One of them must be named.
  CommandLine section(const std::string& name, const std::string& description, std::function<void()> body);

  // Parses, then calls `body`, or that of the section that was named. Returns the exit code; never throws.
  int run(int argc, char** argv, const std::function<void()>& body = {});

 private:
  CommandLine(std::shared_ptr<CLI::App> root, CLI::App* app) : root_(std::move(root)), app_(app) {}

  std::shared_ptr<CLI::App> root_;
  CLI::App* app_;
};

// A message on one line. Of a list, which errors write one item a line, the first twenty are kept and the rest counted.
std::string one_line(const std::string& message);

}  // namespace nanovlm
