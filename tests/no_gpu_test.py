#!/usr/bin/env python3
"""`--device cuda` without a GPU: each program says why in one line, and runs on the cpu all the same.

    tests/no_gpu_test.py BIN_FOLDER

Where there is a GPU, it is hidden from the programs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BIN = os.path.abspath(sys.argv.pop(1))
FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
MODEL = os.path.join(FIXTURES, "tiny-v1", "base")
TRAIN = os.path.join(FIXTURES, "train-v1")
TOKENIZER = os.path.join(FIXTURES, "tokenizer", "tiny")
PICTURE = os.path.join(FIXTURES, "images", "files", "png-112x112.png")
REASONS = ("this build was made without CUDA", "no CUDA driver is installed", "the driver is too old",
           "the driver finds no GPU")


class NoGpu(unittest.TestCase):
    def run_on(self, device, program, *arguments):
        """The program's answer on stdout, and its lines on stderr about the device."""
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run([os.path.join(BIN, program), *arguments, "--device", device, "--json"], text=True,
                              capture_output=True, timeout=300, env=environment, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout), [line for line in done.stderr.split("\n") if "cuda device" in line]

    def check(self, program, arguments, answer):
        expected, silence = self.run_on("cpu", program, *arguments("cpu"))
        found, lines = self.run_on("cuda", program, *arguments("cuda"))
        self.assertEqual(silence, [])
        self.assertEqual(len(lines), 1, lines)
        reason = re.search("no cuda device: (.*); running on cpu$", lines[0])
        self.assertTrue(reason and reason[1].startswith(REASONS), lines[0])
        self.assertEqual(answer(found), answer(expected))

    def test_generate(self):
        self.check("generate", lambda _: ("--checkpoint", MODEL, "--tokenizer", TOKENIZER, "--image", PICTURE,
                                          "--max_new_tokens", "3", "--greedy"),
                   lambda result: [one["tokens"] for one in result["generations"]])

    def test_eval(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(PICTURE, os.path.join(folder, "picture.png"))
            data = os.path.join(folder, "test.jsonl")
            with open(data, "w", encoding="utf-8") as file:
                file.write(json.dumps({"images": ["picture.png"],
                                       "texts": [{"user": "which colour?", "assistant": "red"}]}))
            self.check("eval", lambda _: ("--checkpoint", MODEL, "--tokenizer", TOKENIZER, "--dataset", data),
                       lambda result: (result["questions"], result["correct"]))

    def test_train(self):
        with tempfile.TemporaryDirectory() as folder:
            self.check("train", lambda device: ("--batches", os.path.join(TRAIN, "batches.safetensors"), "--checkpoint",
                                                TRAIN, "--dtype", "f32", "--max_training_steps", "1", "--out",
                                                os.path.join(folder, device)),
                       lambda result: (result["steps"], result["loss"]))


if __name__ == "__main__":
    unittest.main()
