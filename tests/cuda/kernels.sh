#!/bin/sh
# kernels.sh - the CUDA kernels on the CPU: every test program in three orders of threads and blocks, then once with
# ASan and UBSan, and its own stand-in for the runtime likewise.
B=${B:-build}
rc=0
one() { # NAME PROGRAM: its lines, with the name of the run before each case
    log=$(mktemp) || exit 2
    timeout 300 "$2" >"$log" 2>&1; r=$?
    sed "s|^ok |ok $1: |; s|^not ok |not ok $1: |" "$log"
    grep -q '^ok ' "$log" || r=1
    if [ $r -ne 0 ]; then rc=1; grep -q '^not ok ' "$log" || echo "not ok $1 # exit $r"; fi
    rm -f "$log"
}
for t in tests/cuda/test_*.cpp; do
    n=$(basename "$t" .cpp)
    for order in fwd rev rand:7; do CUSIM_ORDER=$order one "$n $order" "$B/cusim/$n"; done
    one "$n sanitized" "$B/cusim-san/$n"
done
exit $rc
