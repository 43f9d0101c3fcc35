#!/bin/sh
# Runs a compiler and keeps what it says beside what it makes: `keep_report.sh nvcc ... -o x.o` writes x.o.report, where
# tools/kernel_table.py reads what ptxas says of each kernel. The build puts it before nvcc.
report= previous=
for argument; do
  [ "$previous" = -o ] && report=$argument.report
  previous=$argument
done
[ -n "$report" ] || exec "$@"
"$@" >"$report" 2>&1
status=$?
[ "$status" = 0 ] || cat "$report" >&2
exit "$status"
