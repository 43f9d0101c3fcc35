#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizer/variants.json: what Hugging Face tokenizers makes of texts under other settings.

    pip install tokenizers==0.21.4
    tools/make_tokenizer_variants.py

Each variant is a JSON merge patch (RFC 7386) of tests/fixtures/tokenizer/tiny/tokenizer.json and a list of strings: text, ids,
and where they differ from the text decoded and decoded_skip_special. Texts are random mixtures of what tokenizers trip over.
"""

import json
import pathlib
import random

from tokenizers import Tokenizer

FOLDER = pathlib.Path(__file__).parent.parent / "tests" / "fixtures" / "tokenizer"
TEXTS = 50

SPACES = [chr(c) for c in [9, 10, 13, 32, 32, 32, 32, 0x85, 0xA0, 0x2003, 0x2028, 0x202F, 0x3000, 0x200B, 0x180E, 0x1C]]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'l", "''s", "\u2019s"]
DIGITS = list("0123456789") + list("٣५²½Ⅷ①〇𝟗")
EMOJI = ["😀", "👩\u200d👧", "👍🏽", "🇩🇪", "\ufe0f"]
WORDS = "the of image what color Straße naïve café Привет こんにちは 你好 안녕 مرحبا हिन्दी ไทย don't it's we'll".split()
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
ADDED = ["QQ", "<x>", "<x", "x y", " lead", "the", "é", "  ", "\n", "a b", "ß!", "<|im", "_w_", "日本"]


def random_character(rng):
    while True:
        code = rng.randrange(rng.choice([0x80, 0x800, 0x3000, 0x10000, 0x110000]))
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def random_text(rng, added):
    pools = [WORDS, WORDS, SPACES, CONTRACTIONS, DIGITS, EMOJI, list("!\"'()*,-./:;<=>?_`|~«…"), SPECIAL, added or WORDS]
    parts = []
    for _ in range(rng.choice([1, 3, 8, 20])):
        part = rng.choice(rng.choice(pools)) if rng.random() < 0.9 else random_character(rng)
        parts.append(part * rng.choice([1, 1, 1, 1, 2, 5]))
    return "".join(parts)


def byte_level(**settings):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **settings}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def digits(individual):
    return {"type": "Digits", "individual_digits": individual}


def without_bytes(rng, model):
    """The model without 80 of its single bytes and whatever is made of them."""
    gone = set(rng.sample([piece for piece in model["vocab"] if len(piece) == 1], 80))
    kept = [piece for piece in model["vocab"] if piece.startswith("<") or not set(piece) & gone]
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    return {
        "vocab": {piece: kept.index(piece) if piece in kept else None for piece in model["vocab"]},
        "merges": [pair for pair in pairs if {*pair, "".join(pair)} <= set(kept)],
    }


def with_added(rng, base):
    tokens, flags = list(base["added_tokens"]), ("single_word", "lstrip", "rstrip", "normalized", "special")
    size = len(base["model"]["vocab"])
    for content in rng.sample(ADDED, len(ADDED)):
        if content in base["model"]["vocab"]:
            id = base["model"]["vocab"][content]
        else:
            id, size = size, size + 1
        tokens.append({"id": id, "content": content, **{flag: rng.random() < 0.4 for flag in flags}})
    return tokens


def variants(rng, base):
    alone = {"pretokenizers": None}  # takes the base's own steps away
    yield "plain", {"pre_tokenizer": byte_level(**alone)}
    yield "contiguous digits", {"pre_tokenizer": sequence(digits(False), byte_level())}
    yield "nested sequence", {"pre_tokenizer": sequence(sequence(digits(False)), sequence(digits(True), byte_level()))}
    yield "prefix space", {"pre_tokenizer": byte_level(add_prefix_space=True, **alone)}
    yield "prefix space, digits", {"pre_tokenizer": sequence(digits(True), byte_level(add_prefix_space=True))}
    yield "no regex", {"pre_tokenizer": byte_level(use_regex=False, **alone)}
    yield "no regex, prefix space", {"pre_tokenizer": sequence(digits(False), byte_level(use_regex=False, add_prefix_space=True))}
    yield "merges as strings", {"model": {"merges": [" ".join(pair) for pair in base["model"]["merges"]]}}
    yield "merges in another order", {"model": {"merges": rng.sample(base["model"]["merges"], 200)}}
    yield "ignore merges", {"model": {"ignore_merges": True, "merges": base["model"]["merges"][::2]}}
    yield "missing bytes", {"model": without_bytes(rng, base["model"])}
    yield "unknown token", {"model": {**without_bytes(rng, base["model"]), "unk_token": "<|im_end|>"}}
    yield "unknown tokens fused", {"model": {**without_bytes(rng, base["model"]), "unk_token": "<|im_end|>", "fuse_unk": True}}
    yield "no decoder", {"decoder": None}
    for i in range(6):
        yield f"added tokens {i}", {"added_tokens": with_added(rng, base)}


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def main():
    base = json.loads((FOLDER / "tiny" / "tokenizer.json").read_text())
    base["model"]["merges"] = [m.split(" ") if isinstance(m, str) else m for m in base["model"]["merges"]]
    rng = random.Random(7)
    result = []
    for name, patch in variants(rng, base):
        document = merge_patch(base, patch)
        tokenizer = Tokenizer.from_str(json.dumps(document))
        strings = []
        for text in [""] + [random_text(rng, ADDED if "added" in name else []) for _ in range(TEXTS)]:
            try:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
            except BaseException:  # tokenizers panics where stripped spaces of two added tokens overlap
                continue
            string = {"text": text, "ids": ids}
            for key, skip in (("decoded", False), ("decoded_skip_special", True)):
                decoded = tokenizer.decode(ids, skip_special_tokens=skip)
                if decoded != text:
                    string[key] = decoded
            strings.append(string)
        result.append({"name": name, "patch": patch, "strings": strings})
    with open(FOLDER / "variants.json", "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(variant, ensure_ascii=False, separators=(",", ":")) for variant in result) + "\n]\n")


main()
