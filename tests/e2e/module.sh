#!/bin/bash
# module.sh - the CUDA module where something is missing: one line with the reason, exit code 0, and the CPU's picture; and
# where it is whole (in emulation), the module's own picture, in each precision. DERAIN_MODULE_DIR says where deraind looks.
cd "$(dirname "$0")/../.." || exit 2
export OMP_WAIT_POLICY=passive
. tests/e2e/lib.inc
prepare
CC=${CC:-cc}
run() { DERAIN_MODULE_DIR=$1 "$B/deraind" run --backend "$2" --model "$T/model.safetensors" "$T/a.png" "$T/$3.png"; }
"$B/deraind" run --backend cpu --model "$T/model.safetensors" "$T/a.png" "$T/cpu.png" >/dev/null 2>&1 || exit 2

# goes_on DIR TEXT: auto gives the CPU's picture; --version has one line with TEXT; cuda alone fails with exit 1 and the same
goes_on() {
    run "$1" auto auto || return 1
    cmp "$T/cpu.png" "$T/auto.png" || return 1
    DERAIN_MODULE_DIR=$1 "$B/deraind" --version >"$T/version" 2>&1 || return 1
    grep 'cuda .*not available' "$T/version" | grep -F -- "$2" || { cat "$T/version"; return 1; }
    run "$1" cuda never && return 1
    [ ! -e "$T/never.png" ]
}
make_module() { # make_module NAME [LINK OPTION]: from stdin
    mkdir -p "$T/$1"
    "$CC" -shared -fPIC -o "$T/$1/derain-cuda.so" -I. -x c - "${@:2}"
}

check "no module" goes_on "$T/nowhere" "no module for backend 'cuda'"
make_module abi <<'C'
#include "core/tensor/backend.h"
static const dr_backend_ops ops = {.abi = DR_BACKEND_ABI + 1, .size = sizeof ops, .name = "cuda"};
const dr_backend_ops *dr_backend_entry(void);
const dr_backend_ops *dr_backend_entry(void) { return &ops; }
C
check "module of another interface" goes_on "$T/abi" "was built for interface"
make_module size <<'C'
#include "core/tensor/backend.h"
static const dr_backend_ops ops = {.abi = DR_BACKEND_ABI, .size = 8, .name = "cuda"};
const dr_backend_ops *dr_backend_entry(void);
const dr_backend_ops *dr_backend_entry(void) { return &ops; }
C
check "module with a table of another size" goes_on "$T/size" "table has 8 bytes"
make_module empty <<'C'
int nothing;
C
check "a library that is no module" goes_on "$T/empty" "no symbol dr_backend_entry"
mkdir -p "$T/text" && echo "no library" >"$T/text/derain-cuda.so"
check "a file that is no library" goes_on "$T/text" "no module for backend 'cuda'"
echo 'void dr_test_cudnn(void); void dr_test_cudnn(void) {}' |
    "$CC" -shared -fPIC -o "$T/libcudnn_gone.so" -Wl,-soname,libcudnn_gone.so -x c - || exit 2
make_module cudnn -L"$T" -lcudnn_gone <<'C'
void dr_test_cudnn(void);
void *dr_backend_entry(void);
void *dr_backend_entry(void) { dr_test_cudnn(); return 0; }
C
rm "$T/libcudnn_gone.so"
check "module without its cuDNN" goes_on "$T/cudnn" "libcudnn_gone.so"

if [ -f "$B/derain-cuda.so" ] && ! nvidia-smi -L >/dev/null 2>&1; then
    check "the real module without a driver" goes_on "$B" "no usable NVIDIA driver"
else
    echo "# skip: no module was built, or there is a GPU"
    echo "ok the real module without a driver # SKIP"
fi

near() { # at most two grey levels off the CPU's picture: both as rows of numbers
    "$B/deraind" eval --backend cpu --model "$T/model.safetensors" --rainy "$T/x" --clean "$T/y" --json |
        sed -n 's/.*"input": *{"psnr_y": *\([0-9.]*\).*/\1/p' | head -n 1 | awk '{exit !($1 >= 48)}'
}
emulated() {
    run "$B/cusim" cuda emulated || return 1
    mkdir -p "$T/x" "$T/y" && cp "$T/emulated.png" "$T/x/a.png" && cp "$T/cpu.png" "$T/y/a.png"
    cmp -s "$T/a.png" "$T/emulated.png" && return 1
    near
}
check "the module in emulation gives the CPU's picture" emulated

# each precision has a picture of its own, auto has that of f16, and a name that is none is wrong usage
precisions() {
    local p
    for p in f32 bf16 f16 auto; do
        DERAIN_MODULE_DIR=$B/cusim "$B/deraind" run --backend cuda --precision $p --model "$T/model.safetensors" "$T/b.png" "$T/$p.png" || return 1
    done
    cmp "$T/f16.png" "$T/auto.png" || return 1
    for p in "f16 bf16" "f16 f32" "bf16 f32"; do cmp -s "$T/${p% *}.png" "$T/${p#* }.png" && { echo "$p: equal"; return 1; }; done
    "$B/deraind" run --precision f8 --model "$T/model.safetensors" "$T/a.png" "$T/never.png"
    [ $? -eq 2 ] || return 1
    "$B/deraind" bench --train --precision f16 --runs 1
    [ $? -eq 2 ] || return 1
    DERAIN_MODULE_DIR=$B/cusim "$B/deraind" --version | grep 'cuda .*, f16)'
}
check "precisions of the module in emulation" precisions
# served PRECISION TEXT: the daemon on the emulated device says what it computes in, and gives the picture of deraind run
served() {
    DERAIN_MODULE_DIR=$PWD/$B/cusim start --backend cuda --precision "$1" || return 1
    answers 200 ", $1)" "$U/v1/version" && answers 200 "derain_range_reruns_total 0" "$U/metrics" &&
        http --data-binary "@$T/b.png" "$U/v1/derain" && [ "$code" = 200 ] && cp "$T/body" "$T/served.png" && stop || return 1
    [ -s "$T/served.png" ] && cmp "$T/served.png" "$T/$1.png"
}
check "the daemon in bf16" served bf16
check "the daemon in f16" served f16
refused() { start --precision f8 && return 1; grep "precision must be one of auto|f32|f16|bf16" "$T/log"; }
check "a precision that is none" refused
exit $failed
