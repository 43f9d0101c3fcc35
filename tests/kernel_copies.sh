#!/bin/sh
# kernel_copies.sh NM LIBRARY LIBRARY
#
# Kernel files are compiled twice, for the GPU (nvcc) and for the executor on the host, and a program has both. Where
# both define the same weak function (a template or an inline function that was not inlined) the linker keeps one of
# them, and a launch for the GPU could end up in the executor. So no function of ours may be defined in both libraries:
# kernels/launch.h gives each a namespace.
nm=$1 first=$2 second=$3
functions() {
  symbols=$("$nm" --defined-only "$1") || exit 2
  echo "$symbols" | awk '$2 ~ /^[WVuT]$/ && $3 ~ /^_Z.*7nanovlm/ && $3 !~ /^_ZNK?St|^_ZT[IS]/ { print $3 }' | sort -u
}
of_first=$(mktemp) of_second=$(mktemp)
trap 'rm -f "$of_first" "$of_second"' EXIT
functions "$first" >"$of_first" || exit 2
functions "$second" >"$of_second" || exit 2
[ -s "$of_first" ] && [ -s "$of_second" ] || { echo "kernel_copies: a library without functions" >&2; exit 2; }
found=$(comm -12 "$of_first" "$of_second")
[ -z "$found" ] && exit 0
echo "$found" >&2
exit 1
