#!/usr/bin/env python3
"""Compiles the CUDA kernels and prints what each needs, as the table of docs/kernels.md.

usage: tools/kernel_table.py [FILE.cu ...]      all of kernels/*/*.cu by default; needs nvcc, but no GPU

A kernel's dtypes and variants share a row: the largest figures of them.
"""
import pathlib
import re
import subprocess
import sys

ARCHITECTURES = ("80", "90a")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def compiler_report(source, architecture):
    command = ["nvcc", "-std=c++20", "--expt-relaxed-constexpr", f"-arch=sm_{architecture}", "-Xptxas=-v",
               "-DNANOVLM_BACKEND=Cuda", f"-I{ROOT}", "-c", source, "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout + done.stderr


def kernels(report):
    """Yields (kernel, registers, bytes of static shared memory, bytes spilled) for each entry function."""
    for entry in report.split("Compiling entry function '")[1:]:
        plain = subprocess.run(["c++filt", entry.split("'")[0]], capture_output=True, text=True, check=True).stdout
        spills = sum(map(int, re.findall(r"(\d+) bytes spill", entry)))
        shared = re.search(r"(\d+) bytes smem", entry)
        registers = int(re.search(r"Used (\d+) registers", entry).group(1))
        yield re.search(r"(\w+)_kernel\b", plain).group(1), registers, int(shared.group(1)) if shared else 0, spills


def main():
    sources = [pathlib.Path(name).resolve() for name in sys.argv[1:]] or sorted(ROOT.glob("kernels/*/*.cu"))
    print("| file | kernel | sm | variants | registers | static shared memory | spilled |")
    print("|---|---|---|---|---|---|---|")
    for source in sources:
        for architecture in ARCHITECTURES:
            rows = {}
            for name, *figures in kernels(compiler_report(source, architecture)):
                rows.setdefault(name, []).append(figures)
            for name, variants in rows.items():
                registers, shared, spills = map(max, zip(*variants))
                print(f"| {source.relative_to(ROOT / 'kernels')} | {name} | {architecture} | "
                      f"{len(variants)} | {registers} | {shared} B | {spills} B |", flush=True)


if __name__ == "__main__":
    main()
