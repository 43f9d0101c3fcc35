#!/usr/bin/env python3
"""Takes the kernel out of docs/add-a-kernel.md, for a test to build: guide_kernel.py GUIDE.md OUT_FOLDER

Writes mine.cuh, as it stands there, and racy.cuh, the same without its first __syncthreads().
"""

import re
import sys
from pathlib import Path

guide, folder = map(Path, sys.argv[1:])
blocks = re.findall(r"^```cpp\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
kernels = [block for block in blocks if "attention_mine_kernel" in block]
if len(kernels) != 1:
    sys.exit(f"{guide}: expected one block of C++ with attention_mine_kernel, found {len(kernels)}")
racy, barriers = re.subn(r"^ *__syncthreads\(\);.*\n", "", kernels[0], count=1, flags=re.MULTILINE)
if barriers != 1:
    sys.exit(f"{guide}: expected a barrier in its kernel")
folder.mkdir(parents=True, exist_ok=True)
(folder / "mine.cuh").write_text(kernels[0], encoding="utf-8")
(folder / "racy.cuh").write_text(racy.replace("mine", "racy"), encoding="utf-8")
