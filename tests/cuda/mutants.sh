#!/bin/sh
# mutants.sh - builds tests/cusim/mutants.cu once right and once with each planted bug, under the sanitizers, and asks
# that the right one passes in every order and that each bug is found in each; what finds it is told.
B=${B:-build} CXX=${CXX:-g++}
flags="-std=c++17 -g -O1 -fno-strict-aliasing -Wno-unknown-pragmas -DDR_CUSIM -I. -Itests/cusim/include -Itests/cusim
       -fsanitize=address,undefined -fsanitize-sections=cusim_shared -fno-sanitize-recover=undefined"
lib="$B/cusim-san/tests/cusim/cusim.o $B/cusim-san/tests/cusim/runtime.o $B/cusim-san/tests/cusim/clock.o"
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
rc=0
export ASAN_OPTIONS=detect_leaks=0 # the mutants do not tidy up
names='right barrier_missing_before_read barrier_missing_after_read barrier_in_divergent_branch wrong_shuffle_mask
       lane_exits_early shared_overflow dynamic_shared_short sum_not_written output_short gather_out_of_range
       misaligned_vector_load syncwarp_missing'
i=0
for name in $names; do
    # shellcheck disable=SC2086
    if ! $CXX $flags -DMUTANT=$i -x c++ tests/cusim/mutants.cu -x none $lib -o "$tmp/m" 2>"$tmp/log"; then
        head -5 "$tmp/log"; echo "not ok mutant $name"; rc=1; i=$((i + 1)); continue
    fi
    bad= how=
    for order in fwd rev rand:5; do
        CUSIM_ORDER=$order timeout 60 "$tmp/m" >"$tmp/log" 2>&1; r=$?
        if [ $i -eq 0 ] && [ $r -ne 0 ]; then bad="$bad $order"; fi
        if [ $i -ne 0 ] && [ $r -eq 0 ]; then bad="$bad $order"; fi
        [ -n "$how" ] || how=$(grep -m1 -oE 'cusim: .*|runtime error: .*|ERROR: AddressSanitizer: [a-z-]*' "$tmp/log")
    done
    [ $i -eq 0 ] || echo "# $name: ${how:-wrong result}"
    if [ -n "$bad" ]; then echo "not ok mutant $name #$bad"; rc=1; else echo "ok mutant $name"; fi
    i=$((i + 1))
done
exit $rc
