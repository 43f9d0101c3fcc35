#!/bin/sh
# kernel_symbols.sh NM OBJECT...
#
# The CPU kernels are compiled once for each instruction set. Where two object files define the same weak function (an
# inline function or a template that was not inlined) the linker keeps one of them, and AVX-512 code could end up in the
# path of a processor without it. So the objects of the wider instruction sets may define no weak symbol, unless its
# name holds its backend's tag and so cannot be another's.
nm=$1
shift
[ $# -gt 0 ] || { echo "kernel_symbols: no object files given" >&2; exit 2; }
found=$(for object; do
  symbols=$("$nm" --defined-only "$object") || { echo "$object: nm failed"; continue; }
  # DW.ref.*: a pointer to the C++ runtime's exception handler, data and the same everywhere.
  echo "$symbols" | awk -v object="$object" '$2 ~ /^[WVu]$/ && $3 !~ /CpuAvx2|CpuAvx512|^DW\.ref\./ { print object ": " $3 }'
done)
[ -z "$found" ] && exit 0
echo "$found" >&2
exit 1
