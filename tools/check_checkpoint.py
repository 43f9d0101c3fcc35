#!/usr/bin/env python3
"""Whether a checkpoint folder loads in nanoVLM (v1), as its VisionLanguageModel.from_pretrained would do it: config.json
becomes a VLMConfig, which refuses unknown keys, and model.safetensors goes through safetensors' load_model, strict, into
a module with nanoVLM's parameter names and shapes, its buffer and its tied head.

    pip install torch safetensors
    python3 tools/check_checkpoint.py out/quickstart/last
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_model

# VLMConfig's fields and what type each has in config.json; hf_repo_name may be null.
FIELDS = {
    "vit_hidden_dim": int, "vit_inter_dim": int, "vit_patch_size": int, "vit_img_size": int, "vit_n_heads": int,
    "vit_dropout": float, "vit_n_blocks": int, "vit_ln_eps": float, "vit_cls_flag": bool, "vit_model_type": str,
    "lm_hidden_dim": int, "lm_inter_dim": int, "lm_rms_eps": float, "lm_re_base": int,
    "lm_max_position_embeddings": int, "lm_vocab_size": int, "lm_n_heads": int, "lm_n_kv_heads": int,
    "lm_dropout": float, "lm_n_blocks": int, "lm_attn_scaling": float, "IMAGE_TOKEN_LENGTH": int,
    "TOTAL_SEQUENCE_LENGTH": int, "lm_max_length": int, "lm_use_tokens": bool, "lm_tie_weights": bool,
    "lm_model_type": str, "lm_tokenizer": str, "lm_eos_token_id": int, "mp_pixel_shuffle_factor": int,
    "vlm_load_backbone_weights": bool, "vlm_checkpoint_path": str, "hf_repo_name": str,
}  # fmt: skip
MAY_BE_NULL = {"hf_repo_name", "vit_model_type", "lm_model_type"}


def check_config(config):
    """What nanoVLM would not take, a line each. A missing key is fine there: it takes the default."""
    problems = [f"config.json: unknown key {key!r}" for key in config if key not in FIELDS]
    for key, expected in FIELDS.items():
        value = config.get(key)
        if key not in config or (value is None and key in MAY_BE_NULL):
            continue
        if type(value) is not expected and not (expected in (int, float) and type(value) in (int, float)):
            problems.append(f"config.json: {key} is {value!r}, expected {expected.__name__}")
    return problems


def parameter_shapes(c):
    """The parameters of nanoVLM's VisionLanguageModel: name -> shape."""
    C, I, p = c["vit_hidden_dim"], c["vit_inter_dim"], c["vit_patch_size"]
    shapes = {
        "vision_encoder.patch_embedding.position_embedding": (1, (c["vit_img_size"] // p) ** 2, C),
        "vision_encoder.patch_embedding.conv.weight": (C, 3, p, p),
        "vision_encoder.patch_embedding.conv.bias": (C,),
    }
    norms = ["layer_norm"]
    for i in range(c["vit_n_blocks"]):
        block = f"blocks.{i}."
        norms += [block + "ln1", block + "ln2"]
        for name, rows, columns in (("attn.qkv_proj", 3 * C, C), ("attn.out_proj", C, C), ("mlp.fc1", I, C),
                                    ("mlp.fc2", C, I)):  # fmt: skip
            shapes[f"vision_encoder.{block}{name}.weight"] = (rows, columns)
            shapes[f"vision_encoder.{block}{name}.bias"] = (rows,)
    for norm in norms:
        shapes[f"vision_encoder.{norm}.weight"] = shapes[f"vision_encoder.{norm}.bias"] = (C,)

    L, I, V = c["lm_hidden_dim"], c["lm_inter_dim"], c["lm_vocab_size"]
    kv = L // c["lm_n_heads"] * c["lm_n_kv_heads"]
    shapes["decoder.token_embedding.weight"] = shapes["decoder.head.weight"] = (V, L)
    shapes["decoder.norm.weight"] = (L,)
    for i in range(c["lm_n_blocks"]):
        block = f"decoder.blocks.{i}."
        shapes[block + "norm1.weight"] = shapes[block + "norm2.weight"] = (L,)
        for name, rows, columns in (("attn.q_proj", L, L), ("attn.k_proj", kv, L), ("attn.v_proj", kv, L),
                                    ("attn.out_proj", L, L), ("mlp.gate_proj", I, L), ("mlp.up_proj", I, L),
                                    ("mlp.down_proj", L, I)):  # fmt: skip
            shapes[f"{block}{name}.weight"] = (rows, columns)
    shapes["MP.proj.weight"] = (L, C * c["mp_pixel_shuffle_factor"] ** 2)
    return shapes


def reference_module(config):
    """A module with nanoVLM's state dict, and numbers that no checkpoint holds."""
    root = torch.nn.Module()

    def owner(name):
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        return module, leaf

    for name, shape in parameter_shapes(config).items():
        module, leaf = owner(name)
        module.register_parameter(leaf, torch.nn.Parameter(torch.full(shape, math.nan)))
    frequencies = config["lm_hidden_dim"] // config["lm_n_heads"] // 2
    module, leaf = owner("decoder.rotary_embd.inv_freq")
    module.register_buffer(leaf, torch.full((frequencies,), math.nan))
    if config["lm_tie_weights"]:
        root.decoder.head.weight = root.decoder.token_embedding.weight
    return root


def main():
    parser = argparse.ArgumentParser(description="Whether a checkpoint folder loads in nanoVLM, strictly.")
    parser.add_argument("folder", type=Path, help="with config.json and model.safetensors")
    folder = parser.parse_args().folder

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"check_checkpoint: {folder}: config.json: {error}")
    problems = check_config(config)
    missing = [key for key in FIELDS if key not in config]
    if problems or missing:
        sys.exit("\n".join([f"check_checkpoint: {folder}:", *problems, *(f"config.json: no {key}" for key in missing)]))

    model = reference_module(config)
    try:
        load_model(model, folder / "model.safetensors", strict=True)
    except (OSError, RuntimeError) as error:
        sys.exit(f"check_checkpoint: {folder}: {error}")
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            sys.exit(f"check_checkpoint: {folder}: {name} holds a number that is not finite")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{folder}: nanoVLM loads it, every key matched: {len(model.state_dict())} tensors, {count:,} parameters")


if __name__ == "__main__":
    main()
