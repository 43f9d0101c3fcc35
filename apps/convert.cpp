// convert: a language model in llama.cpp's GGUF format becomes a folder as Hugging Face's transformers saves it, for
// train's --lm_model_type.
#include <filesystem>
#include <iostream>

#include "apps/common/cli.h"
#include "data/gguf_tokenizer.h"
#include "engine/file.h"
#include "model/gguf_import.h"

using namespace nanovlm;

int main(int argc, char** argv) {
  std::string gguf, folder;
  CommandLine line("convert", "Turns a Llama-shaped GGUF file (F32, F16, Q8_0, Q4_1) into a Hugging Face folder.");
  line.option("GGUF", gguf, "the file").required();
  line.option("FOLDER", folder, "where config.json, model.safetensors and the tokenizer's files go").required();
  return line.run(argc, argv, [&] {
    const GgufFile file = GgufFile::open(gguf);
    // All of the file is checked before any of it is written.
    const GgufLanguageModel model(file);
    const auto tokenizer = tokenizer_files(file);
    model.write(folder);
    for (const auto& [name, contents] : tokenizer)
      write_file((std::filesystem::path(folder) / name).string(), contents);
    std::cout << folder << ": " << file.entries().size() << " tensors, " << file.strings("tokenizer.ggml.tokens").size()
              << " tokens\n";
  });
}
