#!/usr/bin/env python3
"""What a bench writes: the same rows as JSON, CSV and Markdown.

    tests/bench_report_test.py BENCH_FOLDER
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import unittest

BENCHES = os.path.abspath(sys.argv.pop(1))


# Prints a picture's size and the colours of more than 20 of its pixels.
COLOURS = """import sys
from PIL import Image
picture = Image.open(sys.argv[1]).convert("RGB")
print(picture.size, [colour for n, colour in picture.getcolors(10**6) if n > 20])"""


def can_import(python, module):
    return subprocess.run([python, "-c", f"import {module}"], stderr=subprocess.DEVNULL).returncode == 0


class BenchReport(unittest.TestCase):
    def run_bench(self, *arguments, code=0, bench=("adamw", "--parameters", "1000")):
        command = [os.path.join(BENCHES, bench[0]), *bench[1:], "--no-ptxas", *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def test_every_format_has_the_same_rows(self):
        with tempfile.TemporaryDirectory() as folder:
            path = {kind: os.path.join(folder, "report." + kind) for kind in ("json", "csv", "md")}
            flags = [word for kind in path for word in ("--" + kind, path[kind])]
            table = self.run_bench("--device", "simt", *flags).stdout
            with open(path["json"]) as file:
                rows = json.load(file)["rows"]
            with open(path["csv"], newline="") as file:
                values = list(csv.DictReader(file))
            with open(path["md"]) as file:
                lines = [line for line in file.read().splitlines() if line.startswith("|")]
        self.assertEqual(len(values), len(rows))
        self.assertEqual(len(lines), 2 + len(rows))
        self.assertEqual(len({line.count("|") for line in lines}), 1)
        for row, cells, line in zip(rows, values, lines[2:], strict=True):
            self.assertEqual({name for name, cell in cells.items() if cell}, set(row))
            for name, value in row.items():
                self.assertEqual(cells[name] if isinstance(value, str) else float(cells[name]), value)
            self.assertEqual(line.split("|")[1].strip(), row["kernel"])
            self.assertIn(row["kernel"], table)

    def test_a_run_is_compared_with_an_earlier_one(self):
        counted = ("--device", "simt", "--dtype", "bf16")
        with tempfile.TemporaryDirectory() as folder:
            before = os.path.join(folder, "before.json")
            self.run_bench(*counted, "--json", before)
            self.run_bench(*counted, "--compare", before)
            gone = self.run_bench(*counted, "--dir", "step", "--compare", before, code=1).stdout
            self.assertRegex(gone, r"(?m)^gone: .*norm.*: in .*before.json, not in this run$")
            with open(before) as file:
                document = json.load(file)
            for row in document["rows"]:
                row["l2_mb"] *= 0.9
            with open(before, "w") as file:
                json.dump(document, file)
            self.assertRegex(self.run_bench(*counted, "--compare", before, code=1).stdout, r"(?m)^grown: .*l2_mb was")

    def test_json_has_what_a_reader_elsewhere_needs(self):
        timed = ("--device", "cpu", "--min-time", "0.01", "--min-samples", "5", "--dtype", "bf16", "--dir", "step")
        report = json.loads(self.run_bench(*timed, "--json").stdout)
        self.assertEqual(report["device"]["kind"], "cpu")
        self.assertGreater(report["device"]["last_cache_bytes"], 0)
        self.assertEqual(set(report["ceilings"]), {"copy_gbps", "product_tflops_bf16"})
        self.assertTrue(all(rate > 0 for rate in report["ceilings"].values()))
        self.assertRegex(report.get("git", "0123456"), "^[0-9a-f]{7,}(-dirty)?$")
        for row in report["rows"]:
            samples = sorted(row["samples_us"])
            self.assertEqual(len(samples), row["n"])
            self.assertAlmostEqual(samples[int(0.5 * (len(samples) - 1) + 0.5)], row["us_p50"])
            self.assertAlmostEqual(samples[0], row["us_min"])
        self.assertNotIn("samples_us", self.run_bench(*timed).stdout)

    def test_clocks_are_a_gpu_s_alone(self):
        timed = self.run_bench("--device", "cpu", "--cache", "hot", "--min-time", "0.01", "--json")
        rows = json.loads(timed.stdout)["rows"]
        self.assertTrue(rows)
        for row in rows:
            self.assertFalse({"sm_mhz_min", "sm_mhz_max", "mem_mhz", "throttle"} & set(row))

    def test_no_rate_is_made_of_what_is_not_known(self):
        timed = ("--device", "cpu", "--impl", "ours", "--min-time", "0.01", "--min-samples", "1", "--json")
        rates = {"tflops", "pct_peak", "gbps", "pct_copy", "pct_floor", "cache"}
        for bench, known in (
            (("step", "--batch", "1", "--dtype", "bf16"), set()),
            (("adamw", "--parameters", "1000"), {"gbps", "pct_copy", "pct_floor", "cache"}),
        ):
            for row in json.loads(self.run_bench(*timed, bench=bench).stdout)["rows"]:
                self.assertEqual(rates & set(row), known)

    def test_operands_that_fit_a_cache_are_not_called_cold(self):
        short = ("--device", "cpu", "--impl", "ours", "--min-time", "0.01", "--min-samples", "1", "--json")
        for tensors in ("1", "400"):  # a set of many small tensors costs no more than its bytes
            bench = ("adamw", "--parameters", "1000", "--dtype", "bf16", "--tensors", tensors)
            report = json.loads(self.run_bench(*short, bench=bench).stdout)
            self.assertEqual({row["cache"] for row in report["rows"]}, {"cache"})
            self.assertEqual(sum("not cold: 64 sets" in note for note in report["notes"]), len(report["rows"]))

    def test_naive_kernels_are_right(self):
        """A bench checks what it measures: on simt where it is named, else beside ours."""
        for bench in (
            ("adamw", "--parameters", "1000", "--dir", "step", "--dtype", "bf16"),
            ("attention", "--dir", "fwd,bwd", "--batch", "2", "--seq", "17", "--dtype", "bf16"),
            ("patch_embedding", "--batch", "1", "--dir", "fwd,bwd", "--dtype", "bf16"),
        ):
            with self.subTest(bench[0]):
                for impl, operation in (("all", "= " + bench[0]), ("naive", "= naive " + bench[0])):
                    rows = json.loads(self.run_bench("--device", "simt", "--impl", impl, "--json", bench=bench).stdout)
                    operations = {row["kernel"] for row in rows["rows"] if row["kernel"].startswith("=")}
                    self.assertEqual(operations, {operation})
                timed = ("--device", "cpu", "--cache", "hot", "--min-time", "0.01", "--min-samples", "1", "--json")
                rows = json.loads(self.run_bench(*timed, bench=bench).stdout)["rows"]
                for dir in {row["dir"] for row in rows}:
                    self.assertLessEqual({"ours", "naive"}, {row["impl"] for row in rows if row["dir"] == dir})

    def test_a_check_alone_takes_no_time(self):
        for device in ("cpu", "simt"):
            bench = ("attention", "--seq", "17", "--heads", "2", "--kv-heads", "1", "--dim", "32", "--causal", "0")
            only = ("--batch", "1", "--check", "only", "--impl", "ours", "--device", device, "--json")
            rows = json.loads(self.run_bench(*only, bench=bench).stdout)["rows"]
            self.assertEqual([row["dir"] for row in rows], 2 * ["fwd", "bwd", "decode"])
            for row in rows:
                self.assertEqual([row[name] for name in ("heads", "kv_heads", "dim", "causal", "rope")], [2, 1, 32, 0, 1])
                self.assertIn("rel_err", row)
                self.assertFalse({"us_p50", "l2_mb"} & set(row))

    def test_decode_counts_a_token_where_there_is_no_time(self):
        command = [os.path.join(BENCHES, "decode"), "--device", "simt", "--context", "2", "--json"]
        report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        kernels = {row["kernel"]: row for row in report["rows"]}
        self.assertLessEqual({"attention_decode", "sampling", "= decode"}, set(kernels))
        self.assertGreater(kernels["attention_decode"]["l2_mb"], 0)
        self.assertFalse({"ms/token", "tokens/s"} & {name for row in report["rows"] for name in row})

    def test_a_report_becomes_a_picture(self):
        """tools/plot_bench.py, where some Python has Pillow: a row of panels a direction, a colour a line."""
        has_pillow = [p for p in ("/usr/bin/python3", sys.executable) if can_import(p, "PIL")]
        if not has_pillow:
            self.skipTest("no Pillow (python3-pil)")
        plot = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools", "plot_bench.py")
        counted = ("--device", "simt", "--heads", "1", "--batch", "1", "--dtype", "bf16", "--impl", "ours,naive", "--dir")
        with tempfile.TemporaryDirectory() as folder:
            report, picture = os.path.join(folder, "report.json"), os.path.join(folder, "picture.png")
            sizes = []
            for directions in ("fwd", "fwd,bwd"):
                self.run_bench(*counted, directions, "--json", report, bench=("attention", "--seq", "8,16"))
                subprocess.run([has_pillow[0], plot, report, picture], check=True)
                seen = subprocess.run([has_pillow[0], "-c", COLOURS, picture], capture_output=True, text=True, check=True).stdout
                for colour in ("(31, 95, 191)", "(209, 96, 31)"):
                    self.assertIn(colour, seen)
                sizes.append(seen[: seen.index(")")])
            self.assertNotEqual(sizes[0], sizes[1])
            wrong = subprocess.run([has_pillow[0], plot, report, picture, "--x", "columns"], capture_output=True, text=True)
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("expected rows with columns", wrong.stderr)

    def test_both_caches_are_a_row_each(self):
        timed = ("--device", "cpu", "--impl", "ours", "--min-time", "0.01", "--min-samples", "1", "--json")
        rows = json.loads(self.run_bench(*timed, "--cache", "both", "--dir", "norm").stdout)["rows"]
        self.assertEqual({row["operands"] for row in rows}, {"rotate", "stay"})

    def test_sizes_are_positive(self):
        for command in ("attention --seq 0", "attention --seq -5", "attention --kv-heads -1", "norm --batch 0",
                        "adamw --parameters 0", "norm --min-samples 0", "norm --max-time 0", "matmul --shape 1,0,1",
                        "decode --tokens 0", "decode --context -1", "train_step --batch 0", "loader --batch 0",
                        "loader --workers -1"):
            with self.subTest(command):
                subject, flag, value = command.split()
                done = subprocess.run([os.path.join(BENCHES, subject), flag, value], capture_output=True, text=True)
                self.assertEqual(done.returncode, 2)
                self.assertIn(flag, done.stderr)
        self.assertIn("must divide the 9 of --heads",
                      self.run_bench("--kv-heads", "2", bench=["attention"], code=2).stderr)

    def test_a_loader_may_have_no_workers(self):
        command = [os.path.join(BENCHES, "loader"), "--workers", "0,1", "--dataset", "/no/such"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("/no/such", done.stderr)

    def test_what_no_memory_holds_is_named(self):
        large = ("attention", "--seq", "4000000000000", "--dir", "fwd", "--dtype", "bf16", "--device", "cpu")
        self.assertIn("does not hold attention fwd bf16 of seq 4000000000000 batch 12",
                      self.run_bench(bench=large, code=1).stderr)

    def test_mistakes_are_named(self):
        line = self.run_bench("--device", "simt", "--csv", "/no/such/folder/x.csv", code=1).stderr
        self.assertIn("/no/such/folder/x.csv: can't be written", line)
        self.assertIn("attention=none", self.run_bench("--kernel", "attention=none", code=2).stderr)
        self.assertIn("one kernel an operation",
                      self.run_bench("--device", "cpu", "--kernel", "attention=fma", code=1).stderr)


if __name__ == "__main__":
    unittest.main()
