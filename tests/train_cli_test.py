"""`train` as a user runs it: against nanoVLM's own runs, on a small data set, and on unsound input.

    python3 tests/train_cli_test.py build/release/bin
"""

import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

BIN = os.path.abspath(sys.argv.pop(1))
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIXTURES = os.path.join(ROOT, "tests", "fixtures")
TRAIN = os.path.join(FIXTURES, "train-v1")
BACKBONES = os.path.join(FIXTURES, "backbones")
TOKENIZER = os.path.join(ROOT, "assets", "tokenizer")

TINY = {
    "vlm": {
        "vit_hidden_dim": 16, "vit_inter_dim": 32, "vit_patch_size": 8, "vit_img_size": 16, "vit_n_heads": 2,
        "vit_n_blocks": 1, "lm_hidden_dim": 16, "lm_inter_dim": 32, "lm_n_heads": 2, "lm_n_kv_heads": 1,
        "lm_n_blocks": 1, "IMAGE_TOKEN_LENGTH": 1, "TOTAL_SEQUENCE_LENGTH": 33, "lm_max_length": 32,
        "mp_pixel_shuffle_factor": 2, "vlm_load_backbone_weights": False,
    },
    "train": {"batch_size": 4, "epochs": 2, "eval_interval": 3, "val_ratio": 0.2, "lr_mp": 0.01,
              "lr_backbones": 0.01, "init": "balanced"},
}


def png(side, colour):
    """A plain picture as the bytes of a PNG file."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes(colour) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Train(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def run_train(self, *arguments, code=0):
        result = subprocess.run([os.path.join(BIN, "train"), *arguments], capture_output=True, text=True, timeout=300,
                                env={**os.environ, "OMP_WAIT_POLICY": "passive"})
        if "no simt device: this build was made without it" in result.stderr:
            self.skipTest(result.stderr)
        self.assertEqual(result.returncode, code, result.stderr[-2000:])
        return result

    def metrics(self, out):
        with open(os.path.join(out, "metrics.jsonl")) as file:
            return [json.loads(line) for line in file]

    def write_data(self, rows=40, bad=()):
        """Pictures of two colours, one question; rows in `bad` name a picture that is not there."""
        os.makedirs(self.path("data"))
        for name, colour in (("red", (250, 20, 20)), ("blue", (20, 20, 250))):
            with open(self.path("data", name + ".png"), "wb") as file:
                file.write(png(16, colour))
        with open(self.path("data", "train.jsonl"), "w") as file:
            for row in range(rows):
                name = ("red", "blue")[row % 2]
                picture = "gone.png" if row in bad else name + ".png"
                file.write(json.dumps({"images": [picture],
                                       "texts": [{"user": "what color?", "assistant": name, "source": "test"}]}) + "\n")
        with open(self.path("config.json"), "w") as file:
            json.dump(TINY, file)

    def metric(self, out, key):
        return [line[key] for line in self.metrics(self.path(out)) if key in line]

    def data_arguments(self, out, *more):
        return ("--config", self.path("config.json"), "--train_dataset", self.path("data"), "--tokenizer", TOKENIZER,
                "--out", self.path(out), *more)

    def test_runs_equal_nanovlm_s(self):
        for name in ("accum1-clip", "accum4", "accum4-tail"):
            with self.subTest(name):
                with open(os.path.join(TRAIN, name + ".json")) as file:
                    golden = json.load(file)
                out = self.path(name)
                clip = golden["max_grad_norm"]
                self.run_train("--batches", os.path.join(TRAIN, "batches.safetensors"), "--checkpoint", TRAIN,
                               "--micro_batches_per_epoch", str(golden["micro_batches_per_epoch"]),
                               "--epochs", str(golden["epochs"]), "--dtype", "f32", "--out", out,
                               "--gradient_accumulation_steps", str(golden["gradient_accumulation_steps"]),
                               "--max_grad_norm", "none" if clip is None else str(clip))
                lines = [line for line in self.metrics(out) if "batch_loss" in line]
                losses = golden["per_micro_batch"]["loss"]
                self.assertEqual(len(lines), len(losses))
                for line, loss in zip(lines, losses):
                    self.assertAlmostEqual(line["batch_loss"], loss, delta=5e-4)
                rates = [line["lr_mp"] for line in lines if "lr_mp" in line]
                for rate, expected in zip(rates, golden["per_step"]["lr_mp"], strict=True):
                    self.assertAlmostEqual(rate, expected, delta=1e-12)
                if clip is not None:
                    norms = [line["grad_norm"] for line in lines if "grad_norm" in line]
                    for norm, expected in zip(norms, golden["per_step"]["grad_norm_before_clipping"], strict=True):
                        self.assertAlmostEqual(norm / expected, 1, delta=1e-3)

    def test_a_run_from_parquet_equals_nanovlm_s(self):
        for name in ("fp32", "fp32-accum2"):
            with self.subTest(name):
                self.check_run_from_parquet(name)

    def check_run_from_parquet(self, name):
        with open(os.path.join(FIXTURES, "e2e-v1", name + ".json")) as file:
            golden = json.load(file)
        out = self.path(name)
        arguments = ["--train_dataset", os.path.join(FIXTURES, "data", "cauldron.parquet"), "--tokenizer",
                     os.path.join(FIXTURES, "tokenizer", "tiny"), "--checkpoint", os.path.join(FIXTURES, "e2e-v1", "init"),
                     "--compat", "nanovlm-v1", "--dense", "true", "--dtype", "f32", "--out", out]
        for field in ("batch_size", "gradient_accumulation_steps", "epochs", "val_ratio", "eval_interval", "max_grad_norm",
                      "lr_mp", "lr_backbones"):
            arguments += ["--" + field, "none" if golden[field] is None else str(golden[field])]
        result = subprocess.run([os.path.join(BIN, "train"), *arguments], capture_output=True, text=True, timeout=300)
        if "without Arrow" in result.stderr:
            self.skipTest("this build has no Arrow")
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])

        def logged(entries, kind):
            return [(entry["step"], entry[kind]) for entry in entries if kind in entry]

        # The reference validates with every micro-batch of a step that is due; the last of them sees its update.
        for kind in ("batch_loss", "epoch_loss", "val_loss"):
            for (step, loss), (due, reference) in zip(logged(self.metrics(out), kind), logged(golden["log"], kind),
                                                      strict=True):
                self.assertAlmostEqual(loss / reference, 1, delta=5e-3, msg=kind)
                if kind != "epoch_loss":  # the reference logs no step with it
                    self.assertEqual(step, due, kind)

    def test_a_run_that_would_learn_nothing_does_not_start(self):
        self.write_data()
        arguments = self.data_arguments("out", "--lm_max_length", "8", "--TOTAL_SEQUENCE_LENGTH", "9")
        line = self.run_train(*arguments, code=1).stderr.strip().splitlines()[-1]
        self.assertIn("32 of 32 samples carry no loss", line)
        self.assertIn("lm_max_length 8", line)

    def test_batches_without_a_label_are_steps_with_nanovlm_v1(self):
        self.write_data(rows=10)
        data = self.path("data", "train.jsonl")
        with open(data) as file:
            lines = file.readlines()
        for long, val_ratio in (((2, 9), "0"), (range(10), "0.2")):
            too_long = [line.replace("color?", "color? " * 40) if i in long else line for i, line in enumerate(lines)]
            with open(data, "w") as file:
                file.writelines(too_long)
            arguments = self.data_arguments("out", "--batch_size", "1", "--epochs", "1", "--val_ratio", val_ratio,
                                            "--max_no_loss_share", "0.1", "--compat", "nanovlm-v1")
            self.run_train(*arguments)
            losses = self.metric("out", "batch_loss")
            self.assertEqual((len(losses), losses.count(None)), (10, 2) if val_ratio == "0" else (8, 8))  # null: NaN
            self.assertEqual(self.metric("out", "val_loss"), [] if val_ratio == "0" else [None] * 3)
        self.assertFalse(os.path.exists(self.path("out", "best")))

    def test_a_data_set_is_learned_and_the_same_bits_come_twice(self):
        self.write_data()
        for out in ("a", "b"):
            result = self.run_train(*self.data_arguments(out, "--epochs", "6", "--json"))
            summary = json.loads(result.stdout)
            self.assertTrue(os.path.exists(os.path.join(summary["checkpoint"], "model.safetensors")))
        lines = self.metrics(self.path("a"))
        losses = [line["batch_loss"] for line in lines if "batch_loss" in line]
        self.assertLess(losses[-1], losses[0] / 4)
        self.assertTrue(any("val_loss" in line for line in lines))
        self.assertTrue(os.path.exists(self.path("a", "best", "config.json")))
        with open(self.path("a", "last", "model.safetensors"), "rb") as a, \
                open(self.path("b", "last", "model.safetensors"), "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_simt_trains_as_cpu_does(self):
        self.write_data()
        losses = {}
        for device in ("cpu", "simt"):
            self.run_train(*self.data_arguments(device, "--device", device, "--dtype", "f32", "--epochs", "3",
                                                "--max_training_steps", "20"))
            losses[device] = [line["batch_loss"] for line in self.metrics(self.path(device)) if "batch_loss" in line]
        self.assertEqual(len(losses["cpu"]), 20)
        for cpu, simt in zip(losses["cpu"], losses["simt"], strict=True):
            self.assertAlmostEqual(cpu, simt, delta=1e-5 * max(1, abs(cpu)))

    def test_what_is_chosen_in_place_of_separate_kernels_trains_as_they_do(self):
        self.write_data()
        losses = {}
        for kernel in ("projector=separate", "projector=fused", "mlp=epilogue"):
            self.run_train(*self.data_arguments(kernel, "--device", "simt", "--dtype", "bf16", "--epochs", "1",
                                                "--max_training_steps", "4", "--kernel", kernel))
            losses[kernel] = [line["batch_loss"] for line in self.metrics(self.path(kernel)) if "batch_loss" in line]
        separate = losses["projector=separate"]
        self.assertEqual(len(separate), 4)
        self.assertEqual(losses, dict.fromkeys(losses, separate))

    def test_recorded_steps_change_no_bit(self):
        self.write_data()
        losses = {}
        for out, flags in (("plain", ()), ("recorded", ("--cuda_graph",))):
            result = self.run_train(*self.data_arguments(out, "--dense", "true", "--epochs", "3",
                                                         "--max_training_steps", "12", *flags))
            self.assertEqual("recorded launches:" in result.stderr, out == "recorded")
            losses[out] = [line["batch_loss"] for line in self.metrics(self.path(out)) if "batch_loss" in line]
        self.assertEqual(len(losses["plain"]), 12)
        self.assertEqual(losses["plain"], losses["recorded"])

    def test_a_run_starts_from_backbones_and_freezes_what_has_rate_0(self):
        self.write_data()
        with open(self.path("config.json"), "w") as file:
            # A factor for the backbone's four patches a side; it does not divide the default picture's 14.
            json.dump({"vlm": {"mp_pixel_shuffle_factor": 4, "lm_max_length": 32},
                       "train": {**TINY["train"], "epochs": 4}}, file)
        backbones = ("--vit_model_type", os.path.join(BACKBONES, "siglip"),
                     "--lm_model_type", os.path.join(BACKBONES, "llama-sharded"))
        result = self.run_train(*self.data_arguments("out", *backbones, "--lr_backbones", "0"))
        self.assertIn("vit_hidden_dim = 48", result.stdout)
        self.assertIn("TOTAL_SEQUENCE_LENGTH = 33", result.stdout)
        self.assertIn("Extending token embeddings from 97 to 49152", result.stderr)
        losses = [line["batch_loss"] for line in self.metrics(self.path("out")) if "batch_loss" in line]
        self.assertLess(losses[-1], losses[0])
        trained = self.tensors(self.path("out", "last"))
        for name, mapped in (("vision_encoder.", "siglip"), ("decoder.", "llama-sharded")):
            for key, data in self.tensors(BACKBONES, mapped + ".mapped.safetensors").items():
                if "token_embedding" not in key and "inv_freq" not in key:
                    self.assertTrue(trained[name + key].startswith(data), name + key)

        result = self.run_train(*self.data_arguments("bad", *backbones, "--lm_vocab_size", "50"), code=1)
        self.assertIn("lm_vocab_size is 50, but must be at least the file's vocab_size, 97", result.stderr)

    def tensors(self, *path):
        """The tensors of a safetensors file, or of a checkpoint's, as bytes by name."""
        path = os.path.join(*path)
        with open(path if os.path.isfile(path) else os.path.join(path, "model.safetensors"), "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            data = file.read()
        header.pop("__metadata__", None)
        return {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}

    def test_an_earlier_run_s_metrics_stay(self):
        self.write_data()
        for _ in range(2):
            self.run_train(*self.data_arguments("out", "--epochs", "1"))
        self.assertTrue(os.path.exists(self.path("out", "metrics.1.jsonl")))

    def test_bad_records_are_counted_and_too_many_stop(self):
        self.write_data(rows=80, bad=(3, 11))
        result = self.run_train(*self.data_arguments("out", "--epochs", "1"))
        self.assertRegex(result.stderr, r"[12] of \d+ records left out")
        self.assertRegex(result.stderr, r"left out: .*train.jsonl:\d+.*gone.png")
        shutil.rmtree(self.path("data"))
        self.write_data(rows=80, bad=range(0, 80, 2))
        result = self.run_train(*self.data_arguments("out2", "--epochs", "1"), code=1)
        self.assertIn("missing picture", result.stderr)

    def test_bad_validation_records_cost_no_run(self):
        self.write_data(bad=(39,))
        start = ("--shuffle", "none", "--epochs", "1")  # as stored: the last rows are for validation
        result = self.run_train(*self.data_arguments("one", *start, "--val_ratio", "0.025", "--json"))
        self.assertIn("warning: step 8 has no validation loss: ", result.stderr)
        self.assertEqual(json.loads(result.stdout)["failed_validations"], 3)  # steps 3, 6 and the last
        self.assertTrue(os.path.exists(self.path("one", "last", "model.safetensors")))
        result = self.run_train(*self.data_arguments("refused", *start))
        self.assertIn("1 of 8 records are bad", result.stderr)
        self.assertEqual(self.metric("refused", "val_loss"), [])
        self.run_train(*self.data_arguments("allowed", *start, "--max_bad_share", "0.2"))
        self.assertEqual(len(self.metric("allowed", "val_loss")), 3)

    def test_a_run_that_ends_early_for_left_out_records_is_validated_too(self):
        self.write_data(bad=(5,))
        result = self.run_train(*self.data_arguments("out", "--shuffle", "none", "--epochs", "1", "--batch_size", "3",
                                                     "--val_ratio", "0.025", "--eval_interval", "100"))
        self.assertIn("the data ended after 12 of 13 steps", result.stderr)
        self.assertEqual(len(self.metric("out", "val_loss")), 1)
        self.assertEqual(len(self.metric("out", "epoch_loss")), 1)
        self.assertTrue(os.path.exists(self.path("out", "best", "model.safetensors")))

    def test_a_checkpoint_s_configuration_decides(self):
        self.write_data()
        short = ("--max_training_steps", "1")
        self.run_train(*self.data_arguments("first", *short))
        resumed = ("--train_dataset", self.path("data"), "--checkpoint", self.path("first", "last"), "--batch_size", "4",
                   *short)
        result = self.run_train(*resumed, "--out", self.path("second"), "--lm_max_length", "32")
        self.assertIn("  lm_max_length = 32\n", result.stdout)
        self.assertIn("  vit_hidden_dim = 16\n", result.stdout)
        self.assertNotIn("warning: ", result.stderr)
        result = self.run_train(*resumed, "--out", self.path("third"), "--lm_max_length", "8", code=2)
        self.assertRegex(result.stderr, "--lm_max_length is 8, but the checkpoint .* has 32")
        with open(self.path("other.json"), "w") as file:
            json.dump({"vlm": {**TINY["vlm"], "lm_max_length": 8}}, file)
        result = self.run_train(*resumed, "--out", self.path("fourth"), "--config", self.path("other.json"))
        self.assertRegex(result.stderr, "warning: the checkpoint .* no effect for lm_max_length\n")

    def test_a_resumed_model_may_have_another_name(self):
        self.write_data()
        short = ("--train_dataset", self.path("data"), "--batch_size", "4", "--max_training_steps", "1")
        first = self.data_arguments("first", "--max_training_steps", "1", "--hf_repo_name", "someone/first")
        self.run_train(*first)

        def saved(out):
            with open(self.path(out, "last", "config.json")) as file:
                return json.load(file)

        resumed = (*short, "--checkpoint", self.path("first", "last"))
        self.run_train(*resumed, "--out", self.path("same"))
        self.assertEqual(saved("same"), saved("first"))
        self.assertEqual(saved("same")["hf_repo_name"], "someone/first")
        for name, given in (("someone/flag", ("--hf_repo_name", "someone/flag")),
                            ("nanoVLM", ("--hf_repo_name", "nanoVLM")),
                            ("someone/file", ("--config", self.path("named.json")))):
            with open(self.path("named.json"), "w") as file:
                json.dump({"vlm": {**TINY["vlm"], "hf_repo_name": name}}, file)
            result = self.run_train(*resumed, "--out", self.path("named"), *given)
            self.assertNotIn("hf_repo_name", result.stderr)
            self.assertEqual(saved("named"), {**saved("first"), "hf_repo_name": name})

    def test_flags_mend_a_file_s_configuration(self):
        self.write_data()
        with open(self.path("config.json"), "w") as file:
            json.dump({**TINY, "vlm": {**TINY["vlm"], "vit_hidden_dim": 17}}, file)  # heads do not divide it
        self.run_train(*self.data_arguments("out", "--max_training_steps", "1"), code=1)
        self.run_train(*self.data_arguments("out", "--max_training_steps", "1", "--vit_hidden_dim", "16"))

    def test_the_tokenizer_that_the_configuration_names(self):
        self.write_data()
        start = ("--config", self.path("config.json"), "--train_dataset", self.path("data"), "--max_training_steps", "1")
        result = self.run_train(*start, "--out", self.path("absent"), "--lm_tokenizer", "/no/such/tok")
        self.assertIn("warning: lm_tokenizer is /no/such/tok, where no tokenizer.json is: the one in assets/ is used",
                      result.stderr)
        folder = os.path.join(FIXTURES, "tokenizer", "tiny")
        result = self.run_train(*start, "--out", self.path("named"), "--lm_tokenizer", folder)
        self.assertNotIn("lm_tokenizer is", result.stderr)
        with open(os.path.join(folder, "tokenizer.json"), "rb") as named, \
                open(self.path("named", "last", "tokenizer.json"), "rb") as kept:
            self.assertEqual(named.read(), kept.read())

    def test_a_run_that_does_not_start_leaves_metrics_alone(self):
        self.write_data()
        self.run_train(*self.data_arguments("out", "--max_training_steps", "1"))
        before = self.metrics(self.path("out"))
        self.run_train("--config", self.path("config.json"), "--train_dataset", self.path("nosuch"), "--out",
                       self.path("out"), code=1)
        self.assertEqual(self.metrics(self.path("out")), before)
        self.assertFalse(os.path.exists(self.path("out", "metrics.1.jsonl")))

    def test_names_that_are_no_utf_8(self):
        self.write_data()
        out = self.path(os.fsdecode(b"out\xff"))
        arguments = self.data_arguments(out, "--max_training_steps", "1", "--vlm_checkpoint_path", b"a\xff", "--run_name",
                                        b"run\xff", "--json")
        result = subprocess.run([os.path.join(BIN, "train"), *arguments], capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])
        self.assertEqual(json.loads(result.stdout)["run"], "run\ufffd")
        self.assertTrue(os.path.exists(os.path.join(out, "last", "config.json")))

    def test_lines_on_a_terminal_do_not_touch(self):
        self.write_data()
        master, slave = pty.openpty()
        process = subprocess.Popen([os.path.join(BIN, "train"), *self.data_arguments(
            "out", "--max_training_steps", "2", "--eval_in_epochs", "false")], stdout=slave, stderr=slave)
        os.close(slave)
        output = b""
        try:
            while part := os.read(master, 4096):
                output += part
        except OSError:  # the other end is closed
            pass
        os.close(master)
        self.assertEqual(process.wait(), 0, output[-2000:])
        self.assertIn(b"step 2/2", output)
        self.assertIn(b"\nEpoch 1/2", output)

    def test_bad_usage(self):
        for arguments in (("--nonsense", "1"), (), ("--out", self.path("x")),
                          ("--out", self.path("x"), "--batches", "b", "--device", "tpu"),
                          ("--out", self.path("x"), "--train_dataset", "a", "--batches", "b")):
            self.run_train(*arguments, code=2)
        self.write_data()
        for flag, value in (("vit_n_heads", "3"), ("epochs", "many"), ("lr_mp", "abc"), ("lr_mp", "-1"),
                            ("batch_size", "0"), ("batch_size", ""), ("blind", "maybe"),
                            ("gradient_accumulation_steps", str(2**63 - 1)), ("epochs", str(2**62))):
            with self.subTest(flag=flag, value=value):
                line = self.run_train(*self.data_arguments("o", "--" + flag, value), code=2).stderr
                self.assertTrue(line.startswith("train: ") and line.count("\n") == 1, line)
                self.assertIn(flag, line)
        with open(self.path("config.json"), "w") as file:
            json.dump({"train": {"batch_size": 0}}, file)
        self.run_train(*self.data_arguments("o", "--epochs", "1"), code=1)  # not the flag's mistake

    def test_unsound_input_is_one_line(self):
        self.write_data()
        batches = os.path.join(TRAIN, "batches.safetensors")
        blocked = self.path("file")
        with open(blocked, "w"):
            pass
        os.makedirs(self.path("empty"))
        with open(self.path("empty", "train.jsonl"), "w"):
            pass
        for arguments, expected in (
                (("--batches", self.path("none.safetensors"), "--checkpoint", TRAIN, "--out", self.path("o")),
                 "none.safetensors"),
                (("--batches", batches, "--checkpoint", self.path("empty"), "--out", self.path("o")), "config.json"),
                (("--batches", batches, "--checkpoint", TRAIN, "--out", os.path.join(blocked, "x")), "file"),
                (("--config", self.path("config.json"), "--train_dataset", self.path("empty"), "--tokenizer", TOKENIZER,
                  "--out", self.path("o")), "empty"),
        ):
            with self.subTest(expected):
                result = self.run_train(*arguments, code=1)
                line = result.stderr.strip().splitlines()[-1]
                self.assertTrue(line.startswith("train: "), line)
                self.assertIn(expected, result.stderr)


if __name__ == "__main__":
    unittest.main()
