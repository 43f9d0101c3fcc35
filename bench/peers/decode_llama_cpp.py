#!/usr/bin/env python3
"""llama.cpp's speed when a language model of SmolLM2-135M's shapes writes one token after another: a peer of
bench/decode.

    pip install --no-binary llama-cpp-python llama-cpp-python gguf     # built for this processor: minutes
    python3 bench/peers/decode_llama_cpp.py --dtype bf16 --threads 2 --json

One sequence, greedy, random weights in the given dtype, written to a GGUF file first. The prompt's pass is timed apart
(prefill_s); tokens_per_s counts the tokens after it.
"""

import argparse
import ctypes
import statistics
import tempfile
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy

import shapes

DTYPES = {"bf16": gguf.GGMLQuantizationType.BF16, "fp32": gguf.GGMLQuantizationType.F32}


def matrices(config):
    """Names and shapes of the model's matrices, [out, in]."""
    C, inter, head = config["lm_hidden_dim"], config["lm_inter_dim"], config["lm_hidden_dim"] // config["lm_n_heads"]
    kv = config["lm_n_kv_heads"] * head
    yield "token_embd", (config["lm_vocab_size"], C)  # the head too
    for i in range(config["lm_n_blocks"]):
        yield from {
            f"blk.{i}.attn_q": (C, C),
            f"blk.{i}.attn_k": (kv, C),
            f"blk.{i}.attn_v": (kv, C),
            f"blk.{i}.attn_output": (C, C),
            f"blk.{i}.ffn_gate": (inter, C),
            f"blk.{i}.ffn_up": (inter, C),
            f"blk.{i}.ffn_down": (C, inter),
        }.items()


def write_model(path, config, dtype):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["lm_max_position_embeddings"])
    writer.add_embedding_length(config["lm_hidden_dim"])
    writer.add_block_count(config["lm_n_blocks"])
    writer.add_feed_forward_length(config["lm_inter_dim"])
    writer.add_head_count(config["lm_n_heads"])
    writer.add_head_count_kv(config["lm_n_kv_heads"])
    writer.add_layer_norm_rms_eps(config["lm_rms_eps"])
    writer.add_rope_freq_base(float(config["lm_re_base"]))
    writer.add_vocab_size(config["lm_vocab_size"])
    writer.add_tokenizer_model("none")
    chance = numpy.random.default_rng(0)
    for name, shape in matrices(config):
        values = chance.normal(0, 0.02, shape).astype(numpy.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, DTYPES[dtype]), raw_dtype=DTYPES[dtype])
    norms = [f"blk.{i}.{place}_norm" for i in range(config["lm_n_blocks"]) for place in ("attn", "ffn")]
    for name in [*norms, "output_norm"]:
        writer.add_tensor(f"{name}.weight", numpy.ones(config["lm_hidden_dim"], numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Decoder:
    def __init__(self, path, threads, context):
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            shapes.fail(f"llama.cpp can't load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = context
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            shapes.fail(f"llama.cpp has no memory for {context} tokens")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def next(self, ids):
        """The likeliest token behind these, which are kept."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        status = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(tokens, len(ids)))
        if status:
            shapes.fail(f"llama_decode: expected 0, found {status}")
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        address = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
        return int(numpy.ctypeslib.as_array(address, (self.vocabulary,)).argmax())

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)


def decode(decoder, prompt, new_tokens):
    """(seconds for the prompt, seconds for the tokens after the first)."""
    decoder.forget()
    start = time.perf_counter()
    token = decoder.next(prompt)
    prefilled = time.perf_counter()
    for _ in range(new_tokens - 1):
        token = decoder.next([token])
    return prefilled - start, time.perf_counter() - prefilled


def main():
    parser = argparse.ArgumentParser(description="llama.cpp's decoding speed, SmolLM2-135M's shapes, one sequence.")
    parser.add_argument("--config", default="222m", help="222m, laptop, or a JSON file with VLMConfig's fields")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--runs", type=int, default=5, help="timed runs, after one that is not")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.tokens < 2:
        shapes.fail(f"--tokens: expected at least 2, found {arguments.tokens}")

    config = shapes.read_config(arguments.config)
    prompt = numpy.random.default_rng(1).integers(1, config["lm_vocab_size"], arguments.prompt).tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_model(path, config, arguments.dtype)
        decoder = Decoder(path, arguments.threads, arguments.prompt + arguments.tokens)
        runs = [decode(decoder, prompt, arguments.tokens) for _ in range(1 + arguments.runs)][1:]

    seconds = sorted(seconds for _, seconds in runs)
    figures = {
        "bench": "decode",
        "implementation": f"llama.cpp (llama-cpp-python {llama_cpp.__version__})",
        "config": arguments.config,
        "dtype": arguments.dtype,
        "prompt": arguments.prompt,
        "tokens": arguments.tokens,
        "threads": arguments.threads,
        "tokens_per_s": round((arguments.tokens - 1) / statistics.median(seconds), 2),
        "prefill_s": statistics.median(prefill for prefill, _ in runs),
        "min_s": seconds[0],
        "max_s": seconds[-1],
    }
    shapes.show(figures, arguments.json)


if __name__ == "__main__":
    main()
