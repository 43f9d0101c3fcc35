#!/usr/bin/env python3
"""The programs as a user runs them: what they print, what they write, and how they end.

    tests/cli_test.py BIN_FOLDER [unittest arguments]

Only Python's standard library is used. Numbers come from tests/fixtures.
"""

import array
import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIXTURES = os.path.join(ROOT, "tests", "fixtures")
TOKENIZER = os.path.join(ROOT, "assets", "tokenizer")
TINY_TOKENIZER = os.path.join(FIXTURES, "tokenizer", "tiny")
MODELS = ("base", "untied", "rope-scaled")
BIN = ""


def fixture(*parts):
    return os.path.join(FIXTURES, *parts)


def model(name, file=""):
    return fixture("tiny-v1", name, file) if file else fixture("tiny-v1", name)


class Safetensors:
    """A file's tensors by name: dtype, shape and bytes."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        begin = 8 + length
        self.tensors = {
            name: (t["dtype"], t["shape"], data[begin + t["data_offsets"][0] : begin + t["data_offsets"][1]])
            for name, t in header.items()
        }

    def shape(self, name):
        return self.tensors[name][1]

    def bytes(self, name):
        return self.tensors[name][2]

    def values(self, name):
        dtype, _, data = self.tensors[name]
        if dtype == "BF16":
            return array.array("f", b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2)))
        return array.array({"F32": "f", "F64": "d", "I64": "q", "I32": "i", "U8": "B"}[dtype], data)

    def rows(self, name):
        width = self.shape(name)[-1]
        values = list(self.values(name))
        return [values[i : i + width] for i in range(0, len(values), width)]


def png(path, side, colour):
    """Writes a picture of one colour."""
    rows = (b"\0" + bytes(colour) * side) * side

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class Cli(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="nanovlm-cli-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(content)
        return self.path(name)

    def run_program(self, program, *arguments):
        return subprocess.run(
            [os.path.join(BIN, program), *map(str, arguments)], capture_output=True, timeout=120, check=False
        )

    def done(self, program, *arguments):
        """Standard output of a run that must succeed."""
        run = self.run_program(program, *arguments)
        if b"no simt device: this build was made without it" in run.stderr:
            self.skipTest(run.stderr.decode())
        self.assertEqual(run.returncode, 0, run.stderr.decode())
        return run.stdout.decode()

    def json(self, program, *arguments):
        return json.loads(self.done(program, *arguments, "--json"))

    def refused(self, expected, program, *arguments, code=1):
        """One line on stderr that holds every text of `expected`, nothing on stdout."""
        run = self.run_program(program, *arguments)
        message = run.stderr.decode()
        self.assertEqual(run.returncode, code, message)
        self.assertEqual(message.count("\n"), 1, message)
        for text in expected:
            self.assertIn(text, message)
        self.assertEqual(run.stdout, b"")

    def dataset(self, count=12):
        """Red and blue pictures with questions about them; the last record has no picture."""
        png(self.path("red.png"), 8, (255, 0, 0))
        png(self.path("blue.png"), 8, (0, 0, 255))
        lines = []
        for i in range(count):
            colour = ("red", "blue")[i % 3 == 0]
            turn = {"user": "which colour?", "assistant": colour, "source": "test"}
            lines.append({"images": [colour + ".png"], "texts": [turn]})
        lines.append({"images": [], "texts": [{"user": "none", "assistant": "no", "source": "test"}]})
        return self.write("test.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


class Usage(Cli):
    def test_help_is_done(self):
        for program in ("generate", "eval", "inspect"):
            self.assertIn("Usage", self.done(program, "--help"))

    def test_bad_usage_ends_with_2(self):
        self.refused(["--nonsense"], "generate", "--image", "x", "--nonsense", code=2)
        self.refused(["--image"], "generate", "--checkpoint", "x", code=2)
        self.refused(["--checkpoint"], "generate", "--image", "x", code=2)
        self.refused(["--top_p", "0 to 1", "3"], "generate", "--image", "x", "--top_p", 3, code=2)
        self.refused(["--generations"], "generate", "--image", "x", "--generations", "many", code=2)
        self.refused(["--device", "tpu"], "generate", "--image", "x", "--device", "tpu", code=2)
        self.refused(["--dataset"], "eval", "--checkpoint", "x", code=2)
        self.refused(["--task"], "eval", "--checkpoint", "x", "--dataset", "y", "--task", "chess", code=2)
        self.refused([], "inspect", code=2)
        self.refused(["image|text", "everything"], "inspect", "everything", code=2)
        self.refused(["--lines"], "inspect", "text", "--tokenizer", TOKENIZER, code=2)
        self.refused(["--size"], "inspect", "image", "x", "--size", 0, code=2)

    def test_a_full_disk_is_a_failure(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            command = [os.path.join(BIN, "inspect"), "config", model("base")]
            run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn(b"standard output", run.stderr)


class Generate(Cli):
    def arguments(self, *more):
        picture = fixture("images", "files", "png-112x112.png")
        return ("--checkpoint", model("base"), "--tokenizer", TINY_TOKENIZER, "--image", picture, *more)

    def test_output_is_the_reference_s(self):
        lines = self.done("generate", *self.arguments("--prompt", "Why?", "--generations", 2)).split("\n")
        head = ["Using device: cpu", "Loading weights from: " + model("base"), "", "Input:", "  Why? ", "", "Outputs:"]
        self.assertEqual(lines[:7], head)
        self.assertTrue(lines[7].startswith("  >> Generation 1: "))
        self.assertTrue(any(line.startswith("  >> Generation 2: ") for line in lines))

    def test_json(self):
        result = self.json("generate", *self.arguments("--max_new_tokens", 7, "--fixed_length"))
        self.assertEqual(result["prompt"], "What is this?")
        self.assertEqual(len(result["generations"]), 5)
        for one in result["generations"]:
            self.assertEqual(len(one["tokens"]), 7)
            self.assertIsInstance(one["text"], str)
        self.assertLessEqual(result["seconds"]["first_token"], result["seconds"]["total"])

    def test_seeds_and_greed(self):
        def texts(*more):
            return [g["tokens"] for g in self.json("generate", *self.arguments(*more))["generations"]]

        free = ("--temperature", 2, "--top_k", 0, "--top_p", 1)
        self.assertEqual(texts("--seed", 1, *free), texts("--seed", 1, *free))
        self.assertNotEqual(texts("--seed", 1, *free), texts("--seed", 2, *free))
        self.assertEqual(texts("--top_k", 1, "--generations", 1), texts("--greedy", "--generations", 1))
        greedy = texts("--greedy", "--generations", 3)
        self.assertEqual(greedy[0], greedy[1])
        self.assertEqual(greedy[0], greedy[2])

    def test_bf16(self):
        self.assertEqual(len(self.json("generate", *self.arguments("--dtype", "bf16"))["generations"]), 5)

    def test_simt_gives_the_cpu_s_tokens(self):
        arguments = self.arguments("--greedy", "--generations", 1, "--max_new_tokens", 4)
        cpu, simt = (self.json("generate", *arguments, "--device", device) for device in ("cpu", "simt"))
        self.assertEqual(cpu["generations"], simt["generations"])

    def test_a_tokenizer_that_is_named_and_absent_is_noted(self):
        arguments = self.arguments("--max_new_tokens", 1, "--generations", 1)
        for name, noted in (("/no/such/tok", True), (TINY_TOKENIZER, False)):
            with open(model("base", "config.json"), encoding="utf-8") as file:
                config = json.load(file)
            self.write("config.json", json.dumps({**config, "lm_tokenizer": name}))
            if noted:
                os.symlink(model("base", "model.safetensors"), self.path("model.safetensors"))
            run = self.run_program("generate", "--checkpoint", self.folder, *arguments[4:])
            # The model has fewer tokens than the one in assets/ that is taken instead.
            self.assertEqual(run.returncode, 1 if noted else 0, run.stderr)
            self.assertEqual(b"/no/such/tok" in run.stderr, noted, run.stderr)

    def test_that_text_is_not_cleaned_up_is_noted(self):
        arguments = list(self.arguments("--max_new_tokens", 1))
        arguments[arguments.index(TINY_TOKENIZER)] = self.folder
        with open(os.path.join(TINY_TOKENIZER, "tokenizer.json"), encoding="utf-8") as file:
            self.write("tokenizer.json", file.read())
        for wanted in (True, False):
            self.write("tokenizer_config.json", json.dumps({"clean_up_tokenization_spaces": wanted}))
            run = self.run_program("generate", *arguments)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(b"clean_up_tokenization_spaces is true" in run.stderr, wanted, run.stderr)

    def test_no_tokens(self):
        result = self.json("generate", *self.arguments("--max_new_tokens", 0, "--generations", 1))
        self.assertEqual(result["generations"], [{"text": "", "tokens": []}])

    def test_unsound_input(self):
        self.refused(["nowhere.png"], "generate", *self.arguments()[:-1], "nowhere.png")
        self.refused(["config.json"], "generate", "--json", "--checkpoint", self.folder, "--image", self.arguments()[-1])
        self.refused(["no-such-model", "local folder"], "generate", "--hf_model", "no-such-model", "--image",
                     self.arguments()[-1])  # fmt: skip
        too_large = ("--checkpoint", model("base"), "--tokenizer", TOKENIZER, "--image", self.arguments()[-1])
        self.refused(["512", "49152"], "generate", *too_large, "--json")


class Eval(Cli):
    def arguments(self, *more):
        return ("--checkpoint", model("base"), "--tokenizer", TINY_TOKENIZER, "--dataset", self.dataset(), *more)

    def test_vqa(self):
        results = self.path("results.jsonl")
        result = self.json("eval", *self.arguments("--results", results, "--batch_size", 5))
        with open(results, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual((result["questions"], result["records"], result["left_out"]), (12, 13, 1))
        self.assertEqual(len(lines), 12)
        self.assertEqual(result["correct"], sum(line["correct"] for line in lines))
        self.assertEqual(result["commonest_answer"], "red")
        self.assertAlmostEqual(result["commonest_share"], 8 / 12)
        self.assertEqual(result["kinds"]["other"]["questions"], 12)
        for i, line in enumerate(lines):
            self.assertEqual(list(line), ["image", "question", "prediction", "answer", "correct"])
            self.assertEqual(os.path.basename(line["image"]), ("red", "blue")[i % 3 == 0] + ".png")
            self.assertEqual(line["correct"], line["prediction"] == line["answer"])

    def test_answers_do_not_depend_on_the_batch(self):
        predictions = []
        for batch_size in (1, 3, 64):
            results = self.path("results.jsonl")
            self.json("eval", *self.arguments("--results", results, "--batch_size", batch_size))
            with open(results, encoding="utf-8") as file:
                predictions.append([json.loads(line)["prediction"] for line in file])
        self.assertEqual(predictions[0], predictions[1])
        self.assertEqual(predictions[0], predictions[2])

    def test_simt_gives_the_cpu_s_answers(self):
        limits = ("--limit", 3, "--max_new_tokens", 3)
        answers = [self.json("eval", *self.arguments(*limits, "--device", device)) for device in ("cpu", "simt")]
        for key in ("correct", "questions", "kinds"):
            self.assertEqual(answers[0][key], answers[1][key])

    def test_loss_agrees_with_a_forward_pass(self):
        # max_length of the tiny model is below that of these texts: v1 would learn nothing from them.
        data = self.write("short.jsonl", json.dumps({"image": "red.png", "question": "", "answer": "a"}) + "\n")
        self.dataset()
        batch = self.path("batch.safetensors")
        self.done("inspect", "batch", "--dataset", data, "--tokenizer", TINY_TOKENIZER, "--config", model("base"),
                  "--max_length", 64, "--batch_size", 1, "--out", batch)  # fmt: skip
        forward = self.json("inspect", "forward", "--checkpoint", model("base"), "--batch", batch)
        with open(model("base", "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config.update({"lm_max_length": 64, "TOTAL_SEQUENCE_LENGTH": 64 + config["IMAGE_TOKEN_LENGTH"]})
        self.write("config.json", json.dumps(config))
        os.symlink(model("base", "model.safetensors"), self.path("model.safetensors"))
        for device in ("cpu", "simt"):
            result = self.json("eval", "--checkpoint", self.folder, "--tokenizer", TINY_TOKENIZER, "--dataset", data,
                               "--task", "loss", "--device", device)  # fmt: skip
            self.assertAlmostEqual(result["val_loss"], forward["loss"], places=5)
            self.assertAlmostEqual(result["loss_per_token"], forward["loss"], places=5)

    def test_mmstar_and_blind(self):
        for more in (("--task", "mmstar"), ("--task", "mmstar", "--greedy"), ("--blind",), ("--dtype", "bf16")):
            self.assertEqual(self.json("eval", *self.arguments(*more))["questions"], 12)

    def test_limit_and_text(self):
        self.assertIn("of 4", self.done("eval", *self.arguments("--limit", 4)))

    def test_unsound_input(self):
        start = ("--checkpoint", model("base"), "--tokenizer", TINY_TOKENIZER)
        self.refused(["nowhere"], "eval", *start, "--dataset", "nowhere")
        self.refused(["empty.jsonl"], "eval", *start, "--dataset", self.write("empty.jsonl", ""))
        self.refused(["no/such"], "eval", *self.arguments("--results", self.path("no/such/results.jsonl")))
        long = {"image": "red.png", "question": "long " * 50, "answer": "red"}
        too_long = self.write("long.jsonl", json.dumps(long) + "\n")
        self.refused(["labels"], "eval", *start, "--dataset", too_long, "--task", "loss", "--compat", "nanovlm-v1")
        nothing = self.write("bad.jsonl", '{"images": []}\n' * 3)
        self.refused(["3 of 3 records left out"], "eval", *start, "--dataset", nothing)


    def test_bad_records_cost_no_answers(self):
        results = self.path("results.jsonl")
        self.dataset()
        lines = [{"image": name + ".png", "question": "which colour?", "answer": name}
                 for name in ("red", "blue", "gone", "red", "blue")]
        data = self.write("five.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        start = ("--checkpoint", model("base"), "--tokenizer", TINY_TOKENIZER, "--dataset", data, "--json")
        for share, code in ((0.1, 1), (0.2, 0)):
            run = self.run_program("eval", *start, "--results", results, "--max_bad_share", share)
            self.assertEqual(run.returncode, code, run.stderr)
            self.assertEqual(b"ended early: loader: 1 of 5 records are bad" in run.stderr, code == 1)
            self.assertEqual(json.loads(run.stdout)["questions"], 4)
            with open(results, encoding="utf-8") as file:
                self.assertEqual(len(file.readlines()), 4)
            os.remove(results)


class InspectImage(Cli):
    def test_pictures_equal_pillow_s(self):
        expected = Safetensors(fixture("images", "expected_32.safetensors"))
        decoded = Safetensors(fixture("images", "decoded.safetensors"))
        for name in list(expected.tensors)[::7] + ["jpeg-420.jpg", "png-rgba.png"]:
            with self.subTest(name):
                result = self.json("inspect", "image", fixture("images", "files", name), "--size", 32)
                self.assertEqual(result["sha256"], hashlib.sha256(expected.bytes(name)).hexdigest())
                if name in decoded.tensors:
                    self.assertEqual(result["rgb_sha256"], hashlib.sha256(decoded.bytes(name)).hexdigest())
                    self.assertEqual([result["height"], result["width"]], decoded.shape(name)[:2])

    def test_out(self):
        picture = fixture("images", "files", "png-rgba.png")
        expected = Safetensors(fixture("images", "expected_32.safetensors")).bytes("png-rgba.png")
        self.done("inspect", "image", picture, "--size", 32, "--out", self.path("out.safetensors"))
        self.assertEqual(Safetensors(self.path("out.safetensors")).bytes("image_u8"), expected)
        self.done("inspect", "image", picture, "--config", model("base"), "--out", self.path("out.png"))
        again = self.json("inspect", "image", self.path("out.png"), "--size", 32)
        self.assertEqual(again["sha256"], hashlib.sha256(expected).hexdigest())
        self.assertEqual((again["format"], again["mode"], again["width"]), ("PNG", "RGB", 32))

    def test_text_has_no_colour_codes_in_a_pipe(self):
        text = self.done("inspect", "image", fixture("images", "files", "jpeg-exif-6.jpg"))
        self.assertIn("EXIF 6", text)
        self.assertNotIn("\x1b", text)

    def test_unsound_input(self):
        self.refused(["nowhere.jpg"], "inspect", "image", "nowhere.jpg")
        self.refused([self.folder], "inspect", "image", self.folder)
        self.refused(["words.png", "expected"], "inspect", "image", self.write("words.png", "no picture"))
        self.refused(["empty.png"], "inspect", "image", self.write("empty.png", ""))
        with open(fixture("images", "files", "jpeg-420.jpg"), "rb") as file:
            half = file.read()[:2000]
        with open(self.path("half.jpg"), "wb") as file:
            file.write(half)
        self.refused(["half.jpg", "JPEG"], "inspect", "image", self.path("half.jpg"))
        picture = fixture("images", "files", "png-rgba.png")
        self.refused(["no/such"], "inspect", "image", picture, "--out", self.path("no/such/out.png"))


class InspectText(Cli):
    def check_lines(self, tokenizer, strings):
        with open(fixture("tokenizer", strings), encoding="utf-8") as file:
            cases = [json.loads(line) for line in file]
        lines = self.write("lines.jsonl", "".join(json.dumps(case["text"]) + "\n" for case in cases))
        output = self.done("inspect", "text", "--tokenizer", tokenizer, "--lines", lines).splitlines()
        self.assertEqual(len(output), len(cases))
        for case, line in zip(cases, output):
            self.assertEqual(json.loads(line), case["ids"], case["text"])

    def test_lines(self):
        self.check_lines(os.path.join(TOKENIZER, "tokenizer.json"), "strings.jsonl")
        self.check_lines(os.path.join(TINY_TOKENIZER, "tokenizer.json"), "tiny-strings.jsonl")

    def test_string(self):
        for string in ("", "two words", "a\nb", "h\u00e9 \U0001f600", "[1, 2]", '"quoted"', "<|endoftext|>"):
            with self.subTest(string):
                result = self.json("inspect", "text", "--tokenizer", TOKENIZER, string)
                self.assertEqual(result["text"], string)
                self.assertEqual(result["decoded"], string)
                self.assertEqual(len(result["pieces"]), len(result["ids"]))
        dashed = self.done("inspect", "text", "--tokenizer", TOKENIZER, "--", "-5 x")
        self.assertIn("3 tokens: [29,37,1792]", dashed)

    def test_unsound_input(self):
        self.refused(["nowhere"], "inspect", "text", "--tokenizer", "nowhere", "x")
        broken = self.write("tokenizer.json", '{"model": {"type": "BPE"')
        self.refused(["tokenizer.json"], "inspect", "text", "--tokenizer", broken, "x")
        self.refused(["$.model"], "inspect", "text", "--tokenizer", self.write("tokenizer.json", "{}"), "x")
        lines = self.write("lines.jsonl", "7\n")
        self.refused(["lines.jsonl:1", "string", "7"], "inspect", "text", "--tokenizer", TOKENIZER, "--lines", lines)


class InspectBatch(Cli):
    def check_batches(self, name, *arguments):
        with open(fixture("collate", name + ".json"), encoding="utf-8") as file:
            cases = json.load(file)
        expected = Safetensors(fixture("collate", name + ".safetensors"))
        tiny = cases["tokenizer"] != "tokenizer"
        png(self.path("p.png"), 4, (1, 2, 3))
        for number, records in enumerate(cases["batches"]):
            lines = [
                {"image": "p.png", "question": r.get("user", r.get("question")), "answer": r.get("assistant", r["answer"])}
                for r in records
            ]
            data = self.write("data.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
            result = self.json("inspect", "batch", "--dataset", data, "--compat", "nanovlm-v1", "--image_size", 4,
                               "--tokenizer", TINY_TOKENIZER if tiny else TOKENIZER, "--batch_size", len(lines),
                               *(("--max_length", cases["max_length"]) if "max_length" in cases else ()),
                               *arguments)  # fmt: skip
            for field in ("input_ids", "attention_mask", "labels"):
                ours = [sample[field] for sample in result["samples"] if field in sample]
                if ours:
                    self.assertEqual(ours, expected.rows(f"{number}.{field}"), f"{name}, batch {number}, {field}")

    def test_training_batches_equal_the_reference_s(self):
        for name in ("vqa-24", "vqa-tiny-64"):
            self.check_batches(name)

    def test_question_batches_equal_the_reference_s(self):
        self.check_batches("mmstar", "--task", "mmstar")

    def test_text_and_out(self):
        data = self.dataset()
        arguments = ("--dataset", data, "--image_size", 8, "--batch_size", 20)
        text = self.done("inspect", "batch", *arguments, "--out", self.path("batch.safetensors"))
        self.assertIn("[red\u2502<|endoftext|>]", text)
        self.assertIn("left out (no picture)", text)
        written = Safetensors(self.path("batch.safetensors"))
        self.assertEqual(written.shape("images"), [12, 3, 8, 8])
        self.assertEqual(sorted(written.tensors), ["attention_mask", "images", "input_ids", "labels"])

    def test_over_long_records_are_told(self):
        arguments = ("--dataset", self.dataset(), "--tokenizer", TOKENIZER, "--image_size", 8)
        self.refused(["over-long"], "inspect", "batch", *arguments, "--max_length", 3)
        text = self.done("inspect", "batch", *arguments, "--max_length", 3, "--compat", "nanovlm-v1")
        self.assertIn("cut to this length", text)

    def test_unsound_input(self):
        self.refused(["--first 99"], "inspect", "batch", "--dataset", self.dataset(), "--tokenizer", TOKENIZER, "--first",
                     99)  # fmt: skip


class InspectData(Cli):
    def test_counts(self):
        data = self.dataset()
        result = self.json("inspect", "data", data, "--tokenizer", TOKENIZER, "--image_size", 8)
        counts = result["all"]
        self.assertEqual((counts["records"], counts["samples"]), (13, 12))
        self.assertEqual(counts["broken"], {"no picture": 1})
        self.assertEqual(counts["duplicates"], 10)
        self.assertEqual(counts["labels"], 24)  # the answer and the end token
        self.assertEqual(counts["without_loss"], 0)
        self.assertEqual(sorted(result["sources"]), [data, "test"])
        self.assertIn("13", result["first_broken"][0]["message"])
        short = self.json("inspect", "data", data, "--tokenizer", TOKENIZER, "--max_length", 3, "--text_only")
        self.assertEqual(short["all"]["without_loss"], 13)
        self.assertEqual(short["all"]["labels"], 0)

    def test_text_and_sheet(self):
        sheet = self.path("sheet.png")
        text = self.done("inspect", "data", self.dataset(), "--image_size", 8, "--sheet", sheet)
        self.assertIn("broken: 1 no picture", text)
        with open(sheet, "rb") as file:
            header = file.read(24)
        self.assertEqual(header[:8], b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", header[16:])
        self.assertEqual(width, 2 * 24 + 6 * (256 + 24 + 16) - 16)  # 12 cards, six in a row
        self.assertGreater(height, 2 * 300)
        self.done("inspect", "data", self.dataset(), "--sheet", sheet, "--sheet_count", 1)
        with open(sheet, "rb") as file:
            self.assertLess(struct.unpack(">I", file.read(20)[16:])[0], width)
        self.refused(["--sheet", "ends in .png"], "inspect", "data", self.dataset(), "--sheet", self.path("folder"), code=2)

    def test_the_tokenizer_beside_a_configuration(self):
        for name in (model("base", "config.json"), os.path.join(TINY_TOKENIZER, "tokenizer.json")):
            os.symlink(name, self.path(os.path.basename(name)))
        for config in (self.folder, self.path("config.json")):  # the model has fewer tokens than the one in assets/
            self.done("inspect", "data", self.dataset(), "--image_size", 8, "--config", config)

    def test_unsound_input(self):
        self.refused(["found no file"], "inspect", "data", self.path("none"))
        broken = self.write("broken.json", "{}")
        self.refused(["expected an array of records"], "inspect", "data", broken)


class InspectForward(Cli):
    def forward(self, name, *arguments):
        return self.json("inspect", "forward", "--checkpoint", model(name), "--batch", model(name, "batch.safetensors"),
                         *arguments)  # fmt: skip

    def assert_close(self, ours, expected, name, absolute, relative):
        a, b = ours.values(name), expected.values(name)
        self.assertEqual(len(a), len(b), name)
        worst = max(abs(x - y) - absolute - relative * abs(y) if math.isfinite(x) else math.inf for x, y in zip(a, b))
        self.assertLessEqual(worst, 0, name)

    def test_an_empty_batch_is_refused(self):
        header = {"images": {"dtype": "F32", "shape": [0, 3, 32, 32], "data_offsets": [0, 0]}}
        for name in ("input_ids", "labels"):
            header[name] = {"dtype": "I32", "shape": [0, 4], "data_offsets": [0, 0]}
        text = json.dumps(header).encode()
        with open(self.path("empty.safetensors"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
        self.refused(["empty.safetensors", "[0, 4]"], "inspect", "forward", "--checkpoint", model("base"), "--batch",
                     self.path("empty.safetensors"))  # fmt: skip

    def test_every_number_equals_pytorch_s(self):
        for name in MODELS:
            with self.subTest(name):
                out = self.path("out.safetensors")
                result = self.forward(name, "--gradients", "--out", out)
                ours = Safetensors(out)
                with open(model(name, "expected.json"), encoding="utf-8") as file:
                    loss = json.load(file)["loss"]
                self.assertAlmostEqual(result["loss"], loss, delta=1e-5)
                self.assertAlmostEqual(ours.values("loss")[0], loss, delta=1e-5)
                self.assertEqual(ours.shape("loss"), [])
                activations = Safetensors(model(name, "activations.safetensors"))
                gradients = Safetensors(model(name, "grads.safetensors"))
                for stage in activations.tensors:
                    self.assertEqual(ours.shape(stage), activations.shape(stage), stage)
                    self.assert_close(ours, activations, stage, 1e-4, 1e-4)
                for parameter in gradients.tensors:
                    self.assertEqual(ours.shape(parameter), gradients.shape(parameter), parameter)
                    largest = max(map(abs, gradients.values(parameter)))
                    self.assert_close(ours, gradients, parameter, max(1e-4 * largest, 1e-6), 0)
                names = {"loss"} | set(activations.tensors) | set(gradients.tensors)
                self.assertEqual(set(ours.tensors), names)

    def test_packed_and_bf16_agree(self):
        dense, packed = self.forward("base"), self.forward("base", "--packed")
        self.assertAlmostEqual(dense["loss"], packed["loss"], delta=1e-5)
        self.assertAlmostEqual(self.forward("base", "--dtype", "bf16")["loss"], dense["loss"], delta=5e-2)

    def test_stages(self):
        text = self.done("inspect", "forward", "--checkpoint", model("base"), "--batch", model("base", "batch.safetensors"))
        for line in ("VLM - image shape         [3, 3, 32, 32]", "after vision_encoder      [3, 16, 64]",
                     "Before pixel_shuffle      [3, 16, 64]", "logits                    [3, 16, 512]"):  # fmt: skip
            self.assertIn(line, text)

    def test_unsound_input(self):
        batch = model("base", "batch.safetensors")
        start = ("inspect", "forward", "--checkpoint", model("base"), "--batch")
        self.refused(["nowhere"], *start, "nowhere.safetensors")
        self.refused(["expected.json"], *start, model("base", "expected.json"))
        self.refused(["images"], *start, model("base", "grads.safetensors"))
        self.refused(["vit_img_size"], *start, model("untied", "batch.safetensors"))
        self.refused(["--index 3"], *start, batch, "--index", 3)
        self.refused(["no/such"], *start, batch, "--out", self.path("no/such/out.safetensors"))
        self.refused(["config.json"], "inspect", "forward", "--checkpoint", self.folder, "--batch", batch)


class InspectCheckpoint(Cli):
    def test_folder_and_file(self):
        for name in MODELS:
            weights = Safetensors(model(name, "model.safetensors"))
            folder = self.json("inspect", "checkpoint", model(name))
            file = self.json("inspect", "checkpoint", model(name, "model.safetensors"))
            self.assertEqual([t["name"] for t in file["tensors"]], sorted(weights.tensors))
            self.assertEqual(folder["tensors"], file["tensors"])
            for tensor in file["tensors"]:
                values = weights.values(tensor["name"])
                self.assertEqual(tensor["shape"], weights.shape(tensor["name"]))
                self.assertAlmostEqual(tensor["norm"], math.sqrt(sum(v * v for v in values)), places=6)
            with open(model(name, "expected.json"), encoding="utf-8") as expected:
                self.assertEqual(folder["parameters"], json.load(expected)["n_parameters"])
        self.assertIn("decoder.norm.weight", self.done("inspect", "checkpoint", model("base")))

    def broken(self, change):
        """A copy of the base model's weights, its header and bytes changed."""
        with open(model("base", "model.safetensors"), "rb") as file:
            data = file.read()
        length = struct.unpack("<Q", data[:8])[0]
        header, content = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
        change(header, content)
        text = json.dumps(header).encode()
        with open(self.path("model.safetensors"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + content)
        with open(model("base", "config.json"), encoding="utf-8") as file:
            self.write("config.json", file.read())
        return self.folder

    def test_altered_files(self):
        def cut(_, content):
            del content[-100:]

        def renamed(header, _):
            header["MP.other.weight"] = header.pop("MP.proj.weight")
            header["decoder.norms.weight"] = header.pop("decoder.norm.weight")

        def reshaped(header, _):
            header["MP.proj.weight"]["shape"].reverse()

        def not_a_number(header, content):
            begin = header["decoder.norm.weight"]["data_offsets"][0]
            content[begin : begin + 4] = struct.pack("<f", math.nan)

        self.refused(["model.safetensors"], "inspect", "checkpoint", self.broken(cut))
        both = ["MP.proj.weight: missing", "decoder.norm.weight: missing"]
        self.refused(both, "inspect", "checkpoint", self.broken(renamed))
        self.refused(["MP.proj.weight", "[256, 48]", "[48, 256]"], "inspect", "checkpoint", self.broken(reshaped))
        self.refused(["decoder.norm.weight", "nan"], "inspect", "checkpoint", self.broken(not_a_number))

    def test_unsound_input(self):
        self.refused(["nowhere"], "inspect", "checkpoint", "nowhere")
        self.refused(["config.json"], "inspect", "checkpoint", self.folder)
        self.refused(["short"], "inspect", "checkpoint", self.write("short.safetensors", "1234"))
        self.refused(["/dev/null"], "inspect", "checkpoint", "/dev/null")


class InspectConfig(Cli):
    def config(self, **changes):
        with open(model("base", "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config.update(changes)
        return self.write("config.json", json.dumps(config))

    def test_derived_numbers(self):
        result = self.json("inspect", "config", fixture("full-v1", "config.json"))
        self.assertEqual(result["parameters"], 222081600)
        self.assertEqual((result["image_tokens"], result["sequence_length"], result["patches"]), (49, 128, 196))
        self.assertIn("222,081,600", self.done("inspect", "config", fixture("full-v1", "config.json")))
        self.assertEqual(self.json("inspect", "config", model("untied"))["config"]["lm_tie_weights"], False)

    def test_unknown_keys_are_noted(self):
        run = self.run_program("inspect", "config", self.config(colour="blue"))
        self.assertEqual(run.returncode, 0)
        self.assertIn(b'"colour"', run.stderr)

    def test_unsound_input(self):
        self.refused(["nowhere.json"], "inspect", "config", "nowhere.json")
        huge = self.config(vit_hidden_dim=1 << 20, vit_n_heads=1, vit_img_size=8192, vit_patch_size=8,
                           mp_pixel_shuffle_factor=1024, IMAGE_TOKEN_LENGTH=1, lm_hidden_dim=1 << 20, lm_n_heads=1,
                           lm_n_kv_heads=1)  # fmt: skip
        self.refused(["number of parameters"], "inspect", "config", huge)
        self.refused(["config.json"], "inspect", "config", self.write("config.json", "{"))
        self.refused(["config.json"], "inspect", "config", self.write("config.json", "[]"))
        self.refused(["lm_n_heads", "7"], "inspect", "config", self.config(lm_n_heads=7))
        self.refused(["lm_vocab_size", "-5"], "inspect", "config", self.config(lm_vocab_size=-5))
        self.refused(["vit_hidden_dim"], "inspect", "config", self.config(vit_hidden_dim=10**15))
        self.refused(["vit_n_blocks", "string"], "inspect", "config", self.config(vit_n_blocks="two"))
        self.refused(["lm_rms_eps"], "inspect", "config", self.config(lm_rms_eps=0))
        both = self.config(vit_patch_size=0, lm_n_blocks=-1)
        self.refused(["vit_patch_size", "lm_n_blocks"], "inspect", "config", both)


if __name__ == "__main__":
    BIN = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=1)
