#!/usr/bin/env python3
"""What each CUDA kernel needs, as ptxas reports it: the table of docs/kernels.md.

usage: tools/kernel_table.py [--json | --check | --write] [--reports DIR] [--arch 80,90a] [--nvcc PATH] [FILE.cu ...]
       all of kernels/*/*.cu by default; needs nvcc, but no GPU

  --reports DIR  reads the reports that a build left in DIR (tools/keep_report.sh) instead of compiling
  --check        fails where a kernel spills registers, or where docs/kernels.md says something else. Another release of
                 nvcc gives other figures: then only spills count
  --write        puts the table into docs/kernels.md
  --json         tells each kernel by its signature

In the table a kernel's dtypes and variants share a row: the largest figures of them.
"""
import argparse
import collections
import difflib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "kernels.md"
HEAD = ["| file | kernel | sm | variants | registers | static shared memory | stack | spilled |",
        "|---|---|---|---|---|---|---|---|"]
# Spills that a bench row pays for, as (file, kernel, sm): why.
ALLOWED_SPILLS = {}

Kernel = collections.namedtuple("Kernel", "source architecture signature registers shared stack spilled")


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout + done.stderr


def compiler_report(nvcc, source, architecture):
    return output_of([nvcc, "-std=c++20", "--expt-relaxed-constexpr", f"-arch=sm_{architecture}", "-Xptxas=-v",
                      "-DNANOVLM_BACKEND=Cuda", f"-I{ROOT}", "-c", source, "-o", "/dev/null"])


def kept_report(folder, source):
    found = list(folder.rglob(f"{source.parent.name}/{source.name}.o.report"))
    if len(found) != 1:
        sys.exit(f"{folder}: expected one report of {source.name}, found {len(found)}")
    return found[0].read_text()


def kernels(source, architecture, report):
    """The entry functions that the report has for the architecture, by name."""
    found = []
    for entry in report.split("Compiling entry function ")[1:]:
        mangled, compiled_for = re.match(r"'(\w+)' for 'sm_(\w+)'", entry).groups()
        if compiled_for != architecture:
            continue
        signature = output_of(["c++filt", mangled]).strip()
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", entry)))
        stack = int(re.search(r"(\d+) bytes stack frame", entry).group(1))
        shared = re.search(r"(\d+) bytes smem", entry)
        registers = int(re.search(r"Used (\d+) registers", entry).group(1))
        found.append(Kernel(source, architecture, signature, registers, int(shared.group(1)) if shared else 0, stack,
                            spilled))
    return sorted(found, key=lambda kernel: kernel.signature)


def print_json(compiled):
    rows = [{"signature": k.signature, "arch": k.architecture, "registers": k.registers, "shared": k.shared,
             "stack": k.stack, "spilled": k.spilled} for k in compiled]
    print(json.dumps({"kernels": rows}))


def table(compiled):
    rows = collections.defaultdict(list)
    for kernel in compiled:
        name = re.search(r"(\w+)_kernel\b", kernel.signature).group(1)
        rows[str(kernel.source.relative_to(ROOT / "kernels")), name, kernel.architecture].append(kernel)
    lines, spills = list(HEAD), []
    for key, variants in rows.items():
        registers, shared, stack, spilled = (max(figure) for figure in zip(*(kernel[3:] for kernel in variants)))
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {len(variants)} | {registers} | {shared} B | {stack} B | "
                     f"{spilled} B |")
        if spilled and key not in ALLOWED_SPILLS:
            spills.append(f"{key[0]}: {key[1]} spills {spilled} bytes of registers on sm_{key[2]}")
    return lines, spills


def committed():
    """docs/kernels.md: what stands before the table, the table, what stands after it; and the nvcc it is of."""
    lines = PAGE.read_text().split("\n")
    begin = lines.index(HEAD[0])
    end = next(i for i in range(begin, len(lines)) if not lines[i].startswith("|"))
    return lines[:begin], lines[begin:end], lines[end:], re.search(r"nvcc (\d+\.\d+)", PAGE.read_text()).group(1)


def check(lines, spills, nvcc):
    before, written, after, written_by = committed()
    release = re.search(r"release (\d+\.\d+)", output_of([nvcc, "--version"])).group(1)
    differences = []
    if release == written_by:
        differences = list(difflib.unified_diff(written, lines, "docs/kernels.md", "nvcc", n=0, lineterm=""))
    else:
        print(f"kernel_table: docs/kernels.md is of nvcc {written_by}, and this is {release}: only spills are checked")
    for line in spills + differences:
        print(line, file=sys.stderr)
    if differences:
        print("kernel_table: docs/kernels.md is out of date: tools/kernel_table.py --write", file=sys.stderr)
    sys.exit(1 if spills or differences else 0)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--reports", type=pathlib.Path)
    parser.add_argument("--arch", default="80,90a")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    given = parser.parse_args()
    sources = [path.resolve() for path in given.sources] or sorted(ROOT.glob("kernels/*/*.cu"))
    compiled = []
    for source in sources:
        kept = kept_report(given.reports, source) if given.reports else None
        for architecture in given.arch.split(","):
            compiled += kernels(source, architecture, kept or compiler_report(given.nvcc, source, architecture))

    if given.json:
        return print_json(compiled)
    lines, spills = table(compiled)
    if given.check:
        check(lines, spills, given.nvcc)
    elif given.write:
        before, _, after, _ = committed()
        PAGE.write_text("\n".join(before + lines + after))
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
