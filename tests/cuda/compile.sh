#!/bin/sh
# compile.sh - where nvcc is found: every cuda/*.cu compiles for all targets of a release without a warning, and no kernel
# spills registers or needs a stack frame. A file that passed is compiled again only after a change.
NVCC=${NVCC:-/usr/local/cuda/bin/nvcc}
[ -x "$NVCC" ] || { echo "# skip: no nvcc"; echo "ok kernels compile # SKIP"; exit 0; }
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
gencode=
for a in ${ARCHS:-80 86 89 90 100 120}; do gencode="$gencode -gencode=arch=compute_$a,code=sm_$a"; done
rc=0
for f in cuda/*.cu; do
    stamp="${B:-build}/compiles/$(basename "$f" .cu)-$(echo "$gencode" | cksum | cut -d' ' -f1)"
    # shellcheck disable=SC2012
    if [ "$(ls -t "$stamp" "$f" cuda/*.cuh cuda/kern.h "$NVCC" "$0" 2>/dev/null | head -1)" = "$stamp" ]; then
        echo "ok $f compiles"; continue
    fi
    # shellcheck disable=SC2086
    if ! "$NVCC" -std=c++17 -O3 -t 2 $gencode -I. -Xcompiler -Wall -Xptxas -v,-warn-spills -c -o "$tmp/o" "$f" \
        >"$tmp/log" 2>&1; then
        sed 's/^/# /' "$tmp/log" | grep -v 'ptxas info' | head -20
        echo "not ok $f compiles"; rc=1; continue
    fi
    # "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" is what every kernel must say
    awk '/Compiling entry function/ { k = $0 }
         /warning/ || (/stack frame/ && !/^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) { print "# " k; print "# " $0 }' \
        "$tmp/log" >"$tmp/bad"
    if ! grep -q 'bytes stack frame' "$tmp/log"; then echo "# $f: ptxas told nothing" >>"$tmp/bad"; fi
    if [ -s "$tmp/bad" ]; then head -20 "$tmp/bad"; echo "not ok $f compiles"; rc=1; continue; fi
    mkdir -p "${stamp%/*}" && touch "$stamp"
    echo "ok $f compiles"
done
exit $rc
