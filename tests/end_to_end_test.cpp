// Whole runs of nanoVLM's train.py from the published form of the data: Parquet rows to losses, validation losses,
// gradient norms and the weights at the end.
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "data/loader.h"
#include "data/parquet.h"
#include "engine/autograd.h"
#include "model/trainer.h"
#include "model/weights.h"
#include "tests/support/catch.h"
#include "tests/support/golden.h"
#include "tests/support/skip.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

class Run {
 public:
  explicit Run(const std::string& name)
      : golden_(nlohmann::json::parse(std::ifstream(fixture("e2e-v1/" + name + ".json")))),
        device_(Device::open("cpu")),
        data_(open_dataset({fixture("data/cauldron.parquet")})),
        split_(split_rows(*data_, {.val_ratio = golden_["val_ratio"], .order = RowOrder::reference})),
        collator_(std::make_shared<VqaCollator>(PromptTokenizer::load(fixture("tokenizer/tiny")),
                                                CollateOptions::nanovlm_v1(32, golden_["lm_max_length"]))) {
    std::vector<std::string> warnings;
    model_.emplace(load_config(fixture("e2e-v1/init/config.json"), warnings), device_);
    load_weights(*model_, fixture("e2e-v1/init/model.safetensors"), warnings);
  }

  // What train.py logs, in its order: {"batch_loss", x}, {"val_loss", x}, {"grad_norm", x}, {"epoch_loss", x}.
  std::vector<std::pair<std::string, double>> train() {
    Loader loader(data_, split_.train, collator_, options());
    Trainer trainer(*model_, trainer_options(loader.batches_per_epoch()));
    const int64_t accumulation = golden_["gradient_accumulation_steps"];
    int64_t step = 0;
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      double epoch_loss = 0;
      int64_t micro_batches = 0;
      for (bool more = true; more;) {
        std::vector<Batch> group;
        while (more && static_cast<int64_t>(group.size()) < accumulation) {
          auto batch = loader.next();
          if (batch) group.push_back(std::move(batch->batch));
          more = batch.has_value();
        }
        if (group.empty()) break;
        take(trainer, group, accumulation, step++);
        for (const double loss : last_losses_) epoch_loss += loss, ++micro_batches;
      }
      log_.emplace_back("epoch_loss", epoch_loss / static_cast<double>(micro_batches));
    }
    return log_;
  }

  std::vector<std::pair<std::string, double>> expected() const {
    std::vector<std::pair<std::string, double>> log;
    for (const auto& entry : golden_["log"])
      for (const char* key : {"val_loss", "batch_loss", "grad_norm", "epoch_loss"})
        if (entry.contains(key)) log.emplace_back(key, entry[key].get<double>());
    return log;
  }

  VisionLanguageModel& model() { return *model_; }

 private:
  bool bf16() const { return golden_["autocast_bf16"]; }

  LoaderOptions options() const {
    LoaderOptions options;
    options.batch_size = golden_["batch_size"];
    options.epochs = golden_["epochs"];
    options.same_order_every_epoch = options.reference_order = true;
    return options;
  }

  TrainerOptions trainer_options(int64_t batches_per_epoch) const {
    TrainerOptions options;
    options.lr_mp = golden_["lr_mp"];
    options.lr_backbones = golden_["lr_backbones"];
    if (!golden_["max_grad_norm"].is_null()) options.max_grad_norm = golden_["max_grad_norm"].get<double>();
    options.max_steps = batches_per_epoch * 2;
    options.dtype = bf16() ? DType::bf16 : DType::f32;
    options.padding = Padding::dense;
    return options;
  }

  // The reference evaluates behind every micro-batch of a step that is due, but updates only behind the last.
  void take(Trainer& trainer, const std::vector<Batch>& group, int64_t accumulation, int64_t step) {
    const bool due = step % golden_["eval_interval"].get<int64_t>() == 0;
    std::vector<double> validation;
    if (due && group.size() > 1) validation.assign(group.size() - 1, validation_loss());
    const StepResult result = trainer.step(group, accumulation);
    if (due) validation.push_back(validation_loss());
    last_losses_ = result.losses;
    for (size_t i = 0; i < group.size(); ++i) {
      if (due) log_.emplace_back("val_loss", validation[i]);
      log_.emplace_back("batch_loss", result.losses[i]);
      if (result.grad_norm && i + 1 == group.size()) log_.emplace_back("grad_norm", *result.grad_norm);
    }
  }

  double validation_loss() const {
    LoaderOptions options = this->options();
    options.epochs = 1;
    options.shuffle = false;
    options.workers = 0;
    Loader loader(data_, split_.validation, collator_, options);
    const NoGrad no_grad(device_);
    Forward run;
    run.dtype = bf16() ? DType::bf16 : DType::f32;
    double sum = 0;
    int64_t batches = 0;
    for (; const auto batch = loader.next(); ++batches) sum += model_->loss(batch->batch, run).item();
    return sum / static_cast<double>(batches);
  }

  const nlohmann::json golden_;
  const Device device_;
  const std::shared_ptr<const Dataset> data_;
  const Split split_;
  const std::shared_ptr<const Collator> collator_;
  std::optional<VisionLanguageModel> model_;
  std::vector<std::pair<std::string, double>> log_;
  std::vector<double> last_losses_;
};

void check_run(Run& run, double loss_tolerance) {
  const auto log = run.train(), expected = run.expected();
  REQUIRE(log.size() == expected.size());
  for (size_t i = 0; i < log.size(); ++i) {
    INFO("entry " << i << ": " << expected[i].first);
    REQUIRE(log[i].first == expected[i].first);
    const double tolerance = log[i].first == "grad_norm" ? 2e-2 : loss_tolerance;
    CHECK(std::abs(log[i].second - expected[i].second) <= tolerance * expected[i].second);
  }
}
}  // namespace

TEST_CASE("a run from Parquet is train.py's run") {
  if (!parquet_can_be_read()) {
    note_skipped("this build has no Arrow");
    return;
  }
  SECTION("fp32, with clipping") {
    Run run("fp32");
    check_run(run, 5e-3);
    const SafetensorsFile golden = SafetensorsFile::open(fixture("e2e-v1/fp32.safetensors"));
    double difference = 0, size = 0;
    walk(run.model(), "", [&](const std::string& name, Tensor& x) {
      const std::vector<float> a = to_host(x), b = golden.read_f32("final." + name);
      REQUIRE(a.size() == b.size());
      for (size_t i = 0; i < a.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
    });
    CHECK(std::sqrt(difference / size) < 1e-3);
  }
  SECTION("fp32, two micro-batches a step") {
    Run run("fp32-accum2");
    check_run(run, 5e-3);
  }
  SECTION("bf16") {
    Run run("bf16");
    check_run(run, 3e-2);
  }
}
