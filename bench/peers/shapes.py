"""What peers that run a model share: VLMConfig's shapes, and how figures are printed."""

import json
import sys
from pathlib import Path

# VLMConfig's defaults, where a peer needs them.
DEFAULTS = {
    "vit_hidden_dim": 768,
    "vit_inter_dim": 3072,
    "vit_patch_size": 16,
    "vit_img_size": 224,
    "vit_n_heads": 12,
    "vit_n_blocks": 12,
    "vit_ln_eps": 1e-6,
    "lm_hidden_dim": 576,
    "lm_inter_dim": 1536,
    "lm_rms_eps": 1e-5,
    "lm_re_base": 100000,
    "lm_max_position_embeddings": 8192,
    "lm_vocab_size": 49152,
    "lm_n_heads": 9,
    "lm_n_kv_heads": 3,
    "lm_n_blocks": 30,
    "lm_max_length": 79,
    "mp_pixel_shuffle_factor": 2,
}
LAPTOP_PRESET = Path(__file__).resolve().parents[2] / "assets" / "presets" / "easy_vqa.json"


def fail(message):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def read_config(name):
    """`222m`: the defaults; `laptop`: the preset; else a JSON file with VLMConfig's fields, at the top or under "vlm"."""
    if name == "222m":
        return dict(DEFAULTS)
    file = LAPTOP_PRESET if name == "laptop" else Path(name)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--config {name}: expected 222m, laptop or a JSON file: {error}")
    fields = document.get("vlm", document)
    return {key: fields.get(key, value) for key, value in DEFAULTS.items()}


def show(figures, as_json):
    """One JSON object on one line, or a line a figure."""
    if as_json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:>16}  {value}")
