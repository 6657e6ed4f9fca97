#!/bin/sh
# gpu_scripts.sh - what of tests/gpu can be tried without a GPU: refusals, and the PyTorch peer at tiny sizes on the CPU.
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
bad=0
is() { # is NAME CODE COMMAND...
    name=$1 code=$2; shift 2
    "$@" >"$T/out" 2>"$T/err" </dev/null; rc=$?
    if [ $rc -eq "$code" ]; then echo "ok $name"
    else bad=1; echo "# exit $rc, expected $code"; sed 's/^/# /' "$T/out" "$T/err" | head -12; echo "not ok $name"; fi
}
check() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "ok $name"; else bad=1; echo "not ok $name"; fi; }
skip() { echo "# skip: $2"; echo "ok $1 # SKIP"; }

for f in tests/gpu/gpu_check.sh tests/gpu/gpu_train.sh; do is "parses_$(basename $f .sh)" 0 bash -n $f; done
is check_refuses_an_unknown_part 2 tests/gpu/gpu_check.sh --parts nonsense
is check_refuses_an_unknown_flag 2 tests/gpu/gpu_check.sh --nonsense
is train_wants_three_arguments 2 tests/gpu/gpu_train.sh 1
is train_wants_minutes_as_a_number 2 tests/gpu/gpu_train.sh soon "$T" "$T/o"
if command -v nvidia-smi >/dev/null; then
    skip check_without_a_gpu_is_code_77 "there may be a GPU here"
else
    is check_without_a_gpu_is_code_77 77 tests/gpu/gpu_check.sh --out "$T/o"
    check check_says_why_in_one_line [ "$(grep -c 'no GPU: ' "$T/err")/$(wc -l <"$T/err")" = 1/1 ]
    is train_without_a_gpu_is_code_77 77 tests/gpu/gpu_train.sh 1 "$T" "$T/o"
fi

# the parts that need no kernels, small and on the CPU: each leaves its rows, none of which failed
B=${B:-build}
if [ ! -x "$B/gpu/picture" ]; then
    skip check_runs_on_the_cpu "$B/gpu/picture is not built"
else
    is check_runs_on_the_cpu 0 env GPU_CHECK_TINY=1 GPU_CHECK_BACKEND=cpu tests/gpu/gpu_check.sh --quick --out "$T/o" --parts device,tune,speed,train,latency
    for row in "| tune | .*nothing to tune" "| speed | .* 64x48 b1 | [0-9.]* ms" "| train | .* b1 | [0-9.]* ms" "| latency | .*p99 | [0-9.]* ms beside" \
        "| latency | the training's speed beside requests | [0-9.]* steps/s | [0-9.]* alone"; do
        check "check_table_$(echo "$row" | tr -cs 'a-z0-9\n' '_')" grep -q "^$row" "$T/o/table.md"
    done
    [ -z "$(awk -F'\t' 'NF != 5' "$T/o/rows.tsv")" ] && echo "ok check_rows_have_five_columns" || { bad=1; echo "not ok check_rows_have_five_columns"; }
fi

python=
for p in /usr/bin/python3 python3; do [ -n "$python" ] || ! "$p" -c 'import torch' 2>/dev/null || python=$p; done
if [ -z "$python" ]; then
    skip torch_ref_runs "no Python here has torch"
else
    is torch_ref_runs 0 env OMP_NUM_THREADS=1 "$python" tests/gpu/torch_ref.py --device cpu --tiny --out "$T/t.json"
    # NAME of a cell with a time: inference in both layouts, a training step of both objectives
    for cell in "infer .* amp-nchw" "infer .* amp-nhwc" "train .*released" "train .*product"; do
        check "torch_ref_times_$(echo "$cell" | tr -cs 'a-z\n' '_')" grep -Eq "^$cell.* [0-9.]+ ms$" "$T/out"
    done
    check torch_ref_writes_json "$python" -c 'import json, sys; assert len(json.load(open(sys.argv[1]))["cells"]) > 8' "$T/t.json"
fi
exit $bad
