#!/usr/bin/env python3
"""Compiles the CUDA kernels and prints what each needs, as the table of docs/kernels.md.

usage: tools/kernel_table.py [--json] [--arch 80,90a] [--nvcc PATH] [FILE.cu ...]
       all of kernels/*/*.cu by default; needs nvcc, but no GPU

A kernel's dtypes and variants share a row: the largest figures of them. With --json each is told by its signature.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def compiler_report(nvcc, source, architecture):
    command = [nvcc, "-std=c++20", "--expt-relaxed-constexpr", f"-arch=sm_{architecture}", "-Xptxas=-v",
               "-DNANOVLM_BACKEND=Cuda", f"-I{ROOT}", "-c", source, "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout + done.stderr


def kernels(report):
    """Yields (signature, registers, bytes of static shared memory, bytes spilled) for each entry function."""
    for entry in report.split("Compiling entry function '")[1:]:
        signature = subprocess.run(["c++filt", entry.split("'")[0]], capture_output=True, text=True, check=True).stdout
        spills = sum(map(int, re.findall(r"(\d+) bytes spill", entry)))
        shared = re.search(r"(\d+) bytes smem", entry)
        registers = int(re.search(r"Used (\d+) registers", entry).group(1))
        yield signature.strip(), registers, int(shared.group(1)) if shared else 0, spills


def print_json(compiled):
    names = ("registers", "shared", "spilled")
    rows = [{"signature": signature, "arch": architecture} | dict(zip(names, figures))
            for _, architecture, found in compiled for signature, *figures in found]
    print(json.dumps({"kernels": rows}))


def print_table(compiled):
    print("| file | kernel | sm | variants | registers | static shared memory | spilled |")
    print("|---|---|---|---|---|---|---|")
    for source, architecture, found in compiled:
        rows = {}
        for signature, *figures in found:
            rows.setdefault(re.search(r"(\w+)_kernel\b", signature).group(1), []).append(figures)
        for name, variants in rows.items():
            registers, shared, spills = map(max, zip(*variants))
            print(f"| {source.relative_to(ROOT / 'kernels')} | {name} | {architecture} | "
                  f"{len(variants)} | {registers} | {shared} B | {spills} B |", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arch", default="80,90a")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    given = parser.parse_args()
    sources = [path.resolve() for path in given.sources] or sorted(ROOT.glob("kernels/*/*.cu"))
    compiled = ((source, architecture, kernels(compiler_report(given.nvcc, source, architecture)))
                for source in sources for architecture in given.arch.split(","))
    (print_json if given.json else print_table)(compiled)


if __name__ == "__main__":
    main()
