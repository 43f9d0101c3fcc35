#include "apps/common/cli.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <sstream>

namespace nanovlm {
namespace {

constexpr int kDone = 0, kFailed = 1, kBadUsage = 2;

// A program with sections takes one of their names first.
void check_section(const CLI::App& app, int argc, char** argv) {
  std::string names;
  for (const CLI::App* section : app.get_subcommands({})) {
    if (argc > 1 && argv[1] == section->get_name()) return;
    names += (names.empty() ? "" : "|") + section->get_name();
  }
  const bool is_flag = argc > 1 && argv[1][0] == '-';
  if (!names.empty() && !is_flag)
    throw UsageError(text("expected ", names, ", found ", argc > 1 ? argv[1] : "nothing"));
}

}  // namespace

CommandLine::Option& CommandLine::Option::required() {
  option_->required();
  return *this;
}

CommandLine::Option& CommandLine::Option::in(double low, double high) {
  option_->check(CLI::Validator(
      [=](std::string& given) {
        double value = 0;
        const bool ok = CLI::detail::lexical_cast(given, value) && value >= low && value <= high;
        return ok ? std::string() : text("expected a number from ", low, " to ", high, ", found ", given);
      },
      ""));
  return *this;
}

CommandLine::Option& CommandLine::Option::one_of(const std::vector<std::string>& values) {
  std::string list;
  for (const std::string& value : values) list += (list.empty() ? "" : "|") + value;
  option_->type_name(list)->check(CLI::Validator(
      [=](std::string& given) {
        const bool ok = std::find(values.begin(), values.end(), given) != values.end();
        return ok ? std::string() : text("expected ", list, ", found ", given);
      },
      ""));
  return *this;
}

CommandLine::Option& CommandLine::Option::excludes(const Option& other) {
  option_->excludes(other.option_);
  return *this;
}

CommandLine::Option& CommandLine::Option::in_group(const std::string& heading) {
  option_->group(heading);
  return *this;
}

CommandLine::CommandLine(const std::string& program, const std::string& description)
    : root_(std::make_shared<CLI::App>(description, program)), app_(root_.get()) {
  app_->option_defaults()->always_capture_default();
  app_->get_formatter()->column_width(34);
}

CommandLine::~CommandLine() = default;

CommandLine::Option CommandLine::option(const std::string& name, std::string& value, const std::string& help) {
  return Option(app_->add_option(name, value, help)->type_name("TEXT"));
}
CommandLine::Option CommandLine::option(const std::string& name, int64_t& value, const std::string& help) {
  return Option(app_->add_option(name, value, help)->type_name("N"));
}
CommandLine::Option CommandLine::option(const std::string& name, double& value, const std::string& help) {
  return Option(app_->add_option(name, value, help)->type_name("X"));
}
CommandLine::Option CommandLine::option(const std::string& name, std::optional<int64_t>& value,
                                        const std::string& help) {
  return Option(app_->add_option(name, value, help)->type_name("N"));
}
CommandLine::Option CommandLine::option(const std::string& name, std::optional<std::string>& value,
                                        const std::string& help) {
  return Option(app_->add_option(name, value, help)->type_name("TEXT"));
}
CommandLine::Option CommandLine::option(const std::string& name, std::vector<std::string>& values,
                                        const std::string& help) {
  return Option(app_->add_option(name, values, help)->type_name("TEXT ..."));
}
CommandLine::Option CommandLine::flag(const std::string& name, bool& value, const std::string& help) {
  return Option(app_->add_flag(name, value, help));
}

CommandLine CommandLine::section(const std::string& name, const std::string& description, std::function<void()> body) {
  root_->require_subcommand(1);
  CLI::App* section = app_->add_subcommand(name, description);
  section->option_defaults()->always_capture_default();
  section->final_callback(std::move(body));
  return CommandLine(root_, section);
}

int CommandLine::run(int argc, char** argv, const std::function<void()>& body) {
  const auto bad_usage = [&](const std::exception& error) {
    const std::string name = root_->get_name();
    std::cerr << name << ": " << one_line(error.what()) << " (see " << name << " --help)\n";
    return kBadUsage;
  };
  try {
    check_section(*root_, argc, argv);
    root_->parse(argc, argv);
    if (body) body();
    std::cout.flush();
    check(std::cout.good(), "standard output: can't be written");
    return kDone;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return root_->exit(error);  // --help
    return bad_usage(error);
  } catch (const UsageError& error) {
    return bad_usage(error);
  } catch (const std::exception& error) {
    std::cerr << root_->get_name() << ": " << one_line(error.what()) << "\n";
    return kFailed;
  }
}

std::string one_line(const std::string& message) {
  constexpr int kItems = 20;
  std::istringstream lines(message);
  std::string result, line;
  int items = 0;
  while (std::getline(lines, line)) {
    line.erase(0, line.find_first_not_of(' '));
    if (line.empty() || ++items > kItems) continue;
    result += (result.empty() ? "" : result.back() == ':' ? " " : "; ") + line;
  }
  return items > kItems ? text(result, "; and ", items - kItems, " more") : result;
}

}  // namespace nanovlm
