#!/bin/sh
# run.sh PROGRAM... - run each test program or script, sum up, close with one plain line.
# V=1 shows all output. A script prints the same "ok NAME" / "not ok NAME" / "ok NAME # SKIP" lines as a program.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # idle team mates sleep: tests use more threads than there are cores
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT
pass=0 fail=0 skip=0
for t in "$@"; do
    timeout "${T_TIMEOUT:-600}" "$t" >"$log" 2>&1 </dev/null; rc=$?
    p=$(grep -c '^ok ' "$log"); s=$(grep -c '^ok .*# SKIP$' "$log"); f=$(grep -c '^not ok ' "$log")
    [ $rc -ne 0 ] && [ "$f" -eq 0 ] && f=1           # crash, sanitizer report or timeout
    [ $rc -eq 0 ] && [ "$p" -eq 0 ] && f=1           # ran nothing: a failure too
    pass=$((pass + p - s)) skip=$((skip + s)) fail=$((fail + f))
    if [ "$f" -gt 0 ] || [ -n "$V" ]; then echo "== $t (exit $rc)"; cat "$log"; fi
    [ "$s" -gt 0 ] && [ -z "$V" ] && grep '^# skip' "$log" | sort | uniq -c | sed "s|^ *\([0-9]*\) # skip|# $t: \1 skipped|"
done
echo "$pass passed, $fail failed, $skip skipped"
[ "$fail" -eq 0 ]
