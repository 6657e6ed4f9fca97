#!/bin/bash
# gpu_check.sh - one command that proves and measures the CUDA module on a machine with a GPU, in at most 8 minutes.
#
#   tests/gpu/gpu_check.sh [--out DIR] [--quick] [--parts a,b,c]       from the repository's root
#   tests/gpu/gpu_check.sh --bundle        on the machine that built: the libraries of deraind into build/gpu/lib.tgz
#
# Parts, in order: device build ceilings dump conv kernels forward tune speed train repeat latency soak sanitize compile torch. What runs is what
# lies in build/ (`make && make gpu-tools`); what does not start there is built anew with nvcc. Each part has its share
# of the time; one that fails, is not built or finds no time left does not stop the others. A table comes last, and lies
# with the logs in DIR (build/gpu_check): table.md, rows.tsv, one log a part, device.json for the deviceless plans.
# Exit status: 0 all checks passed, 1 one failed, 2 wrong usage, 77 no GPU (one line says why).
set -u
cd "$(dirname "$0")/../.." || exit 2
out="" quick="" bundle=""
all_parts="device build ceilings dump conv kernels forward tune speed train repeat latency soak sanitize compile torch"
parts=$all_parts
usage() { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --out) [ $# -gt 1 ] || usage; out=$2; shift ;;
    --parts) [ $# -gt 1 ] || usage; parts=${2//,/ }; shift ;;
    --quick) quick=1 ;;
    --bundle) bundle=1 ;;
    *) usage ;;
    esac
    shift
done
for p in $parts; do
    case " $all_parts " in *" $p "*) ;; *) echo "gpu_check: there is no part '$p'; there are: $all_parts" >&2; exit 2 ;; esac
done
. tests/gpu/env.inc

# what is measured: NAME:NGF:BLOCKS of the generators, pictures, the training step
nets="ngf64-9b:64:9 ngf32-6b:32:6" sizes="256x256 512x512 1920x1080" batches="2 4 8" train_batches="1 4 8 16" crop=256 train_net="64 9"
served=models/derain.safetensors side=256x256 slow=1
[ -z "${GPU_CHECK_TINY:-}" ] || { # small, and times are longer: a CPU plays the GPU
    slow=$GPU_CHECK_TINY
    nets="ngf16-5b:16:5" sizes="48x32 64x48" batches=2 train_batches=1 crop=64 train_net="16 5" served="" side=48x32
}

if [ -n "$bundle" ]; then # all but what belongs to the system's C library
    all=$(mktemp -d) || exit 1
    trap 'rm -rf "$all"' EXIT
    for f in "$B/deraind" "$B/derain" "$B/gpu/picture"; do
        [ -x "$f" ] || { echo "gpu_check: $f is not built: make && make gpu-tools" >&2; exit 1; }
        ldd "$f" | awk '$3 ~ /^\// {print $3}'
    done | sort -u | grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so' |
        xargs -I{} cp -L {} "$all/" && tar -czf "$B/gpu/lib.tgz" -C "$all" . && ls -sh "$B/gpu/lib.tgz"
    exit
fi
why=$(no_gpu)
if [ -n "$why" ]; then echo "gpu_check: $why" >&2; exit 77; fi

out=${out:-$B/gpu_check}
mkdir -p "$out" && out=$(realpath "$out") || exit 2
rows=$out/rows.tsv limit=${GPU_CHECK_SECONDS:-470} tmp=$(mktemp -d) || exit 2
: >"$rows"
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null; rm -rf "$tmp"' EXIT
fill_gaps "$tmp/lib"
begin=$SECONDS
left() { echo $((limit - (SECONDS - begin))); }

# row ITEM VALUE AGAINST VERDICT: verdict is ok, FAIL, info, not built or left out
row() { printf '%s\t%s\t%s\t%s\t%s\n' "$part" "$1" "$2" "$3" "$4" | tee -a "$rows" | tr '\t' ' '; }
verdict() { if [ "$1" = 0 ]; then echo ok; else echo FAIL; fi; }
part_left() { local a b; a=$((part_end - SECONDS)) b=$(left); echo $((a < b ? a : b)); }
# run SECONDS COMMAND...: under a time cap, that of the part at most; 124 when it ran past it
run() {
    local s=$(($1 * slow)) most
    shift
    most=$(part_left)
    [ "$most" -ge 1 ] || return 124
    timeout -k 5 "$((s < most ? s : most))" "$@"
}
code_text() { if [ "$1" = 124 ] || [ "$1" = 137 ]; then echo "stopped by its time cap"; else echo "exit $1"; fi; }
last() { tail -n 1 "$1" | tr '\t' ' ' | cut -c 1-150; }
field() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p"; }
built() { [ -x "$1" ] || { row "$(basename "$1")" "" "make gpu-tools" "not built"; return 1; }; }
# does it start here? a missing library or a newer glibc says no, whatever else the program does
starts() { [ -x "$1" ] && ! ldd "$1" 2>&1 | grep -qE 'not found|not a dynamic|No such'; }
tool() { # the path of a tool under either of its folders
    local f
    for f in "$B/gpu/$1" "$B/tests/gpu/$1"; do [ ! -x "$f" ] || { echo "$f"; return; }; done
    echo "$B/gpu/$1"
}

part_device() {
    { nvidia-smi; nvidia-smi -q -d CLOCK,POWER,MEMORY,ECC; uname -a; nproc; free -g; ldd --version | head -n 1
      "$CUDA_HOME/bin/nvcc" --version; "$B/deraind" --version; echo "LD_LIBRARY_PATH=$LD_LIBRARY_PATH"; } 2>&1
    local gpu lib
    gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv,noheader 2>/dev/null | head -n 1)
    row device "${gpu:-none}" "" info
    row date "$(date -u +%Y-%m-%dT%H:%MZ)" "" info
    row commit "$(cat "$B/commit" 2>/dev/null || git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" "" info
    row nvcc "$("$CUDA_HOME/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \(.*\)/\1/p')" "" info
    lib=$(tr ':' '\n' <<<"$LD_LIBRARY_PATH" | while read -r d; do ls "$d"/libcudnn_graph.so.9 2>/dev/null; done | head -n 1)
    row cuDNN "${lib:-not found}" "" "$([ -n "$lib" ] || [ "$BACKEND" = cpu ] && echo info || echo FAIL)"
    [ -z "$python" ] || row PyTorch "$("$python" -c 'import torch as t; print(t.__version__, "CUDA", t.version.cuda, "cuDNN", t.backends.cudnn.version())')" "" info
    [ ! -x "$B/deraind" ] || row deraind "$("$B/deraind" --version 2>&1 | tr -s ' \n' ' ' | cut -c 1-200)" "" info
}

part_build() {
    local again="" f
    for f in ceilings picture conv_check; do starts "$(tool $f)" || again="$again $(tool $f)"; done
    for f in tests/cuda/test_kern_*.cpp; do
        [ ! -e "$f" ] || { f=$B/gpu/$(basename "$f" .cpp); starts "$f" || again="$again $f"; }
    done
    starts "$B/deraind" || again="$again $B/deraind"
    [ "$BACKEND" = cpu ] || starts "$B/derain-cuda.so" || again="$again $B/derain-cuda.so"
    [ "$BACKEND" = cpu ] || starts "$B/tests/cuda/test_precision" || again="$again $B/tests/cuda/test_precision"
    [ -n "$again" ] || { row "binaries of build/" "all start" "" ok; return; }
    echo "to be built here:$again"
    # one target after the other (-k): one that cannot be made leaves the rest; old ones that do not start are in the way
    for f in $again; do rm -f "$f"; done
    # shellcheck disable=SC2086
    run 150 nice make -k -j"$(nproc)" CUDA=1 GPU_ARCHS="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)" $again 2>&1
    if ! starts "$B/gpu/ceilings" && [ -x "$CUDA_HOME/bin/nvcc" ]; then # needs nothing else of the repository
        mkdir -p "$B/gpu" && run 40 "$CUDA_HOME/bin/nvcc" -std=c++17 -O2 -arch=native -o "$B/gpu/ceilings" tests/gpu/ceilings.cu 2>&1
    fi
    for f in $again; do
        row "$f" "$(starts "$f" && echo "built here" || echo "does not start")" "" "$(starts "$f" && echo ok || echo "not built")"
    done
}

part_ceilings() {
    built "$B/gpu/ceilings" || return
    run 20 "$B/gpu/ceilings" ${quick:+--quick} >"$tmp/ceilings"
    local rc=$?
    cat "$tmp/ceilings"
    while read -r name value unit; do row "$name" "$value $unit" "" info; done <"$tmp/ceilings"
    [ $rc = 0 ] || row ceilings "$(code_text $rc)" "" FAIL
}

part_dump() {
    local t
    t=$(tool conv_check)
    built "$t" || return
    run 20 "$t" --dump-device "$out/device.json" 2>&1
    local rc=$?
    [ -s "$out/device.json" ] || rc=1
    row "device description" "$(wc -c <"$out/device.json" 2>/dev/null) bytes, device.json" "" "$(verdict $rc)"
}

part_conv() {
    local t
    t=$(tool conv_check)
    built "$t" || return
    run 75 "$t" >"$tmp/conv" 2>&1
    local rc=$?
    cat "$tmp/conv"
    row "each layer against plain loops" "$(last "$tmp/conv")" "$(code_text $rc)" "$(verdict $rc)"
}

kernel_tests() { for f in "$B"/gpu/test_kern_*; do [ ! -x "$f" ] || echo "$f"; done; }

part_kernels() {
    local f rc n bad
    [ -n "$(kernel_tests)" ] || { row "kernel tests" "" "make gpu-tools" "not built"; return; }
    for f in $(kernel_tests); do
        echo "== $f"
        run 30 "$f" >"$tmp/kern" 2>&1
        rc=$? n=$(grep -c '^ok ' "$tmp/kern") bad=$(grep -c '^not ok ' "$tmp/kern")
        cat "$tmp/kern"
        [ "$n" -gt 0 ] || rc=1 # ran nothing: a failure too
        row "$(basename "$f")" "$n passed, $bad failed" "$(code_text $rc)" "$(verdict $rc)"
    done
}

part_sanitize() {
    local cs f rc t
    cs=$(command -v compute-sanitizer) || cs=$CUDA_HOME/bin/compute-sanitizer
    [ -x "$cs" ] || { row compute-sanitizer "not on this machine" "" "left out"; return; }
    [ -n "$(kernel_tests)" ] || { row "kernel tests" "" "make gpu-tools" "not built"; return; }
    for t in memcheck racecheck initcheck; do
        for f in $(kernel_tests); do
            echo "== $t $f"
            run 15 "$cs" --tool $t --error-exitcode 9 "$f" >"$tmp/san" 2>&1
            rc=$?
            tail -n 20 "$tmp/san"
            if [ $rc = 124 ] || [ $rc = 137 ]; then row "$t $(basename "$f")" "too slow for its time" "" "left out"
            else row "$t $(basename "$f")" "$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$tmp/san" | tail -n 1 | sed 's/=* *//')" "$(code_text $rc)" "$(verdict $rc)"; fi
        done
    done
}

# weights NAME ARGUMENTS...: random ones, made once
weights() {
    [ -f "$tmp/$1" ] || run 20 "$B/deraind" model init "${@:2}" "$tmp/$1" >/dev/null 2>&1
    echo "$tmp/$1"
}

part_forward() {
    local size m name rc got most psnr t n
    built "$B/deraind" && built "$B/gpu/picture" || return
    weights ngf64.safetensors --ngf 64 --blocks 9 --seed 1 >/dev/null
    for size in 256x256 333x517 1920x1080; do
        run 10 "$B/gpu/picture" make $size "$tmp/$size.png" || { row "$size" "no picture" "" FAIL; continue; }
        for m in models/derain.safetensors "$tmp/ngf64.safetensors"; do
            name="$size $(basename "$m" .safetensors)"
            [ -z "$quick" ] || [ "$m" = models/derain.safetensors ] || continue
            echo "== $name"
            run 60 "$B/deraind" run --backend cpu --model "$m" "$tmp/$size.png" "$tmp/cpu.png" 2>&1 &&
                run 30 "$B/deraind" run --backend "$BACKEND" --model "$m" "$tmp/$size.png" "$tmp/gpu.png" 2>&1 &&
                got=$(run 20 "$B/gpu/picture" diff "$tmp/cpu.png" "$tmp/gpu.png")
            rc=$?
            [ $rc = 0 ] || { row "$name" "$(code_text $rc), see forward.log" "" FAIL; continue; }
            read -r most psnr <<<"$got"
            # equal to the input would prove nothing
            [ "$(run 20 "$B/gpu/picture" diff "$tmp/cpu.png" "$tmp/$size.png" | cut -d' ' -f1)" -gt 2 ] || rc=1
            row "$name" "max $most grey levels, PSNR $psnr dB" "CPU: max 2, 48 dB" \
                "$(awk -v m="$most" -v p="$psnr" -v r=$rc 'BEGIN {print (r == 0 && m <= 2 && p >= 48) ? "ok" : "FAIL"}')"
            [ "$m" = models/derain.safetensors ] || continue # beside it: bf16, which had 3 to 6 levels on an H100
            run 30 "$B/deraind" run --backend "$BACKEND" --precision bf16 --model "$m" "$tmp/$size.png" "$tmp/bf16.png" 2>&1 &&
                read -r most psnr <<<"$(run 20 "$B/gpu/picture" diff "$tmp/cpu.png" "$tmp/bf16.png")" &&
                row "$name in bf16" "max $most grey levels, PSNR $psnr dB" "" info
        done
    done
    # the last size again with too little memory for it as a whole: in bands
    size=1920x1080 m=models/derain.safetensors
    run 30 "$B/deraind" run --backend "$BACKEND" --model $m "$tmp/$size.png" "$tmp/gpu.png" 2>&1 &&
        run 30 "$B/deraind" run --backend "$BACKEND" --mem-budget 600M --model $m "$tmp/$size.png" "$tmp/bands.png" 2>&1 &&
        got=$(run 20 "$B/gpu/picture" diff "$tmp/gpu.png" "$tmp/bands.png")
    rc=$?
    read -r most psnr <<<"$got"
    [ $rc != 0 ] || awk -v m="$most" 'BEGIN {exit m > 1}' || rc=1
    row "$size in bands" "max $most grey levels, PSNR $psnr dB" "as a whole: max 1" "$(verdict $rc)"
    # what f16 cannot hold: tests/cuda/test_precision.c on the device
    t=$B/tests/cuda/test_precision
    [ "$BACKEND" = cuda ] || { row "beyond f16" "no GPU is asked for" "" "left out"; return; }
    built "$t" || return
    DERAIN_GPU_TEST=1 DERAIN_MODULE_DIR=$B run 60 "$t" >"$tmp/beyond" 2>&1
    rc=$? n=$(grep -c '^ok ' "$tmp/beyond")
    cat "$tmp/beyond"
    [ "$n" -gt 0 ] || rc=1
    row "weights and pictures beyond f16" "$n passed, $(grep -c '^not ok ' "$tmp/beyond") failed" "$(code_text $rc)" "$(verdict $rc)"
}

# what part tune found; speed and train then show both
plans=$out/plans.tsv
has_plans() { [ -s "$plans" ]; }

# tune_one NAME ARGUMENTS...: a row for each line of deraind tune
tune_one() {
    local name=$1 rc what n before after
    shift
    echo "== $name"
    run 60 "$B/deraind" tune --backend "$BACKEND" --plan-cache "$plans" "$@" >"$tmp/tune" 2>"$tmp/tune.err"
    rc=$?
    cat "$tmp/tune" "$tmp/tune.err"
    cat "$tmp/tune.err" >>"$tmp/tune.all"
    if grep -q '^nothing to tune' "$tmp/tune"; then row "$name" "$(last "$tmp/tune")" "" "left out"; return 1; fi
    while read -r what n before after; do
        row "$name $what" "$n plans, $after ms" "untuned: $before ms" info
    done < <(sed -n 's/^\(.*\): \([0-9]*\) plans tuned, \([0-9.]*\) ms before, \([0-9.]*\) ms after$/\1 \2 \3 \4/p' "$tmp/tune" | sed 's/training step, crop \([0-9]*\), batch /crop-\1-b/')
    [ $rc = 0 ] || row "$name" "$(code_text $rc): $(last "$tmp/tune.err")" "" FAIL
}

# the fastest plans for what speed and train measure; what the first layer's two ways take; a picture through both
part_tune() {
    local net name ngf blocks m rc most psnr window columns whole
    built "$B/deraind" && built "$B/gpu/picture" || return
    rm -f "$plans"
    : >"$tmp/tune.all"
    for net in $nets; do
        IFS=: read -r name ngf blocks <<<"$net"
        m=$(weights "$name.st" --ngf "$ngf" --blocks "$blocks")
        tune_one "$name" --model "$m" --sizes "${sizes// /,}" || return
    done
    read -r ngf blocks <<<"$train_net"
    tune_one train --train --precision bf16 --crop $crop --ngf "$ngf" --blocks "$blocks" --batch "${train_batches// /,}"
    while IFS=$'\t' read -r window columns whole; do
        row "$window" "$columns by columns" "$whole whole" info
    done < <(sed -n 's/.*tuned the \(.* window over .*\): \([0-9.]* ms\) by columns, \([0-9.]* ms\) whole$/\1\t\2\t\3/p' "$tmp/tune.all")
    has_plans || { row "tuned plans" "none were written" "" FAIL; return; }
    run 10 "$B/gpu/picture" make $side "$tmp/tune.png" &&
        run 30 "$B/deraind" run --backend "$BACKEND" --model "$m" "$tmp/tune.png" "$tmp/tune.1.png" >/dev/null 2>&1 &&
        run 30 "$B/deraind" run --backend "$BACKEND" --model "$m" --plan-cache "$plans" "$tmp/tune.png" "$tmp/tune.2.png" >/dev/null 2>&1 &&
        read -r most psnr <<<"$(run 20 "$B/gpu/picture" diff "$tmp/tune.1.png" "$tmp/tune.2.png")"
    rc=$?
    [ $rc = 0 ] || { row "a picture with tuned plans" "$(code_text $rc), see tune.log" "" FAIL; return; }
    row "a picture with tuned plans" "max $most grey levels, PSNR $psnr dB" "untuned: 40 dB" "$(awk -v p="$psnr" 'BEGIN {print (p >= 40) ? "ok" : "FAIL"}')"
}

# ours.infer and ours.train: "KIND TAB CELL TAB MILLISECONDS TAB NOTE", cells named as torch_ref.py names them
bench_one() { # bench_one KIND CELL NOTE SECONDS ARGUMENTS...
    local kind=$1 cell=$2 note=$3 s=$4 rc ms
    shift 4
    run "$s" "$B/deraind" bench --backend "$BACKEND" --json "$@" >"$tmp/bench" 2>&1
    rc=$?
    cat "$tmp/bench"
    ms=$(field median_ms <"$tmp/bench")
    if [ $rc = 0 ] && [ -n "$ms" ]; then printf '%s\t%s\t%s\t%s\n' "$kind" "$cell" "$ms" "$note" >>"$tmp/ours.$kind"
    else row "$cell${note:+, $note}" "$(code_text $rc): $(last "$tmp/bench")" "" FAIL; fi
}
part_speed() {
    local net name ngf blocks m size b runs
    built "$B/deraind" || return
    : >"$tmp/ours.infer"
    runs=$([ -n "$quick" ] && echo 10 || echo 40)
    for net in $nets; do
        IFS=: read -r name ngf blocks <<<"$net"
        m=$(weights "$name.st" --ngf "$ngf" --blocks "$blocks")
        for size in $sizes; do
            bench_one infer "$name $size b1" "" 30 --model "$m" --size $size --runs "$runs"
            ! has_plans || bench_one infer "$name $size b1" tuned 30 --model "$m" --size $size --runs "$runs" --plan-cache "$plans"
        done
        # pictures together, where deraind bench knows how: its answer then says how many there were
        run 30 "$B/deraind" bench --backend "$BACKEND" --json --model "$m" --size $side --runs 1 --batch 2 >"$tmp/bench" 2>&1
        if [ "$(field batch <"$tmp/bench")" != 2 ]; then row "$name $side b2 and more" "deraind bench takes one picture at a time" "" "not built"; continue; fi
        for b in $batches; do bench_one infer "$name $side b$b" "" 30 --model "$m" --size $side --runs "$runs" --batch $b; done
    done
}

part_train() {
    local batch ngf blocks runs cell
    built "$B/deraind" || return
    : >"$tmp/ours.train"
    read -r ngf blocks <<<"$train_net"
    runs=$([ -n "$quick" ] && echo 5 || echo 15)
    for batch in $train_batches; do
        cell="released ngf$ngf-${blocks}b crop $crop b$batch"
        set -- --train --precision bf16 --ngf "$ngf" --blocks "$blocks" --crop $crop --batch "$batch" --runs "$runs"
        bench_one train "$cell" "" 40 "$@"
        ! has_plans || bench_one train "$cell" tuned 40 "$@" --plan-cache "$plans"
    done
}

# torch_part NAME SECONDS KINDS: its lines join those of the same run
torch_part() {
    [ -n "$python" ] || { row PyTorch "no Python here has torch" "" "left out"; return; }
    local rc device=cuda
    { [ "$BACKEND" = cpu ] || is_emulated; } && device=cpu
    run $(($2 + 5)) "$python" tests/gpu/torch_ref.py --device $device --seconds "$2" --only "$3" ${quick:+--quick} ${GPU_CHECK_TINY:+--tiny} \
        --out "$out/$1.json" >"$tmp/torch.$1" 2>&1
    rc=$?
    cat "$tmp/torch.$1"
    cat "$tmp/torch.$1" >>"$tmp/torch"
    [ $rc = 0 ] || row PyTorch "$(code_text $rc): $(last "$tmp/torch.$1")" "" "left out"
}
part_compile() {
    local cell why
    torch_part compile $(($(part_left) - 5)) compile
    [ -f "$tmp/torch.compile" ] || return
    while IFS=$'\t' read -r cell why; do row "$cell" "$why" "" "$([ "${why%% *}" = left ] && echo "left out" || echo info)"; done \
        < <(sed -n 's/^infer  *\(.*compile-[a-z-]*\)  *\([^ ].*\)$/\1\t\2/p' "$tmp/torch.compile")
}
part_torch() {
    local n ms
    torch_part torch $(($(part_left) - 5)) matmul,infer,train
    [ -f "$tmp/torch.torch" ] || return
    sed -n 's/^matmul  *bf16 \([0-9]*\)^3  *\([0-9.]*\) ms$/\1\t\2/p' "$tmp/torch.torch" | while IFS=$'\t' read -r n ms; do
        row "matrix product bf16 $n^3" "$(awk -v m="$ms" -v n="$n" 'BEGIN {printf "%.0f TFLOP/s", 2 * n ^ 3 / m / 1e9}')" "" info
    done
}

# made-up pictures and a small training, enough for every op
train_data() {
    local i
    mkdir -p "$tmp/rainy" "$tmp/clean"
    for i in 1 2 3 4; do
        run 10 "$B/gpu/picture" make $((200 + 8 * i))x$((240 - 8 * i)) "$tmp/rainy/$i.png"
        run 10 "$B/gpu/picture" make $((240 + 8 * i))x$((200 - 8 * i)) "$tmp/clean/$i.png"
    done
}
small_train() { # small_train FOLDER ARGUMENTS...
    run 60 "$B/deraind" train --backend "$BACKEND" --precision bf16 --rainy "$tmp/rainy" --clean "$tmp/clean" --out "$tmp/$1" \
        --crop 64 --ngf 32 --blocks 5 --ndf 32 --w-nce 1 --w-cycle 1 --steps 20 --save-every 1000 --seed 7 "${@:2}" 2>&1
}
part_repeat() {
    local rc sums m
    built "$B/deraind" && built "$B/gpu/picture" || return
    train_data
    small_train one && small_train two && small_train three --stop-after 9 &&
        run 60 "$B/deraind" train --backend "$BACKEND" --precision bf16 --rainy "$tmp/rainy" --clean "$tmp/clean" --out "$tmp/three" \
            --resume "$tmp/three/checkpoint.safetensors" 2>&1
    rc=$?
    [ $rc = 0 ] || { row "20 training steps" "$(code_text $rc), see repeat.log" "" FAIL; return; }
    read -ra sums <<<"$(sha256sum "$tmp"/{one,two,three}/checkpoint.safetensors | cut -c 1-16 | tr '\n' ' ')"
    row "20 steps twice" "checkpoints ${sums[0]} ${sums[1]}" "equal bits" "$(verdict "$([ "${sums[0]}" = "${sums[1]}" ]; echo $?)")"
    row "9 steps, resumed" "checkpoint ${sums[2]}" "unbroken: ${sums[0]}" "$(verdict "$([ "${sums[0]}" = "${sums[2]}" ]; echo $?)")"
    m=models/derain.safetensors
    for i in 1 2; do run 30 "$B/deraind" run --backend "$BACKEND" --model $m "$tmp/rainy/4.png" "$tmp/rep$i.png" >/dev/null 2>&1; done
    cmp -s "$tmp/rep1.png" "$tmp/rep2.png"
    row "a picture twice" "" "equal bits" "$(verdict $?)"
}

# serve LOG ARGUMENTS...: a daemon over a fresh folder; its address in $url. end_daemon: its exit status
serve() {
    local log=$1 i
    shift
    rm -rf "$tmp/data"
    "$B/deraind" serve --listen 127.0.0.1:0 --data "$tmp/data" --backend "$BACKEND" --free-min-bytes 0 --free-min-percent 0 "$@" 2>"$log" &
    daemon=$!
    for i in $(seq 200); do
        url=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$log" | head -n 1)
        [ -z "$url" ] || return 0
        kill -0 $daemon 2>/dev/null || break
        sleep 0.1
    done
    end_daemon
    return 1
}
end_daemon() {
    local rc
    kill -TERM "$daemon" 2>/dev/null
    wait "$daemon"
    rc=$?
    daemon=
    return $rc
}

# What requests wait for a training beside them, in one daemon: a picture at random moments without it, with it, and the
# training with and without the pictures.
part_latency() {
    local url="" job="" state="" s i m py=${python:-$(command -v python3)}
    built "$B/deraind" && built "$B/derain" && built "$B/gpu/picture" || return
    [ -n "$py" ] || { row latency "no Python" "" "left out"; return; }
    s=$((($(part_left) - 15) / 4)) i=$((slow * $([ -n "$quick" ] && echo 4 || echo 9)))
    [ "$s" -lt $i ] || s=$i
    [ "$s" -ge 3 ] || { row latency "no time" "" "left out"; return; }
    train_data
    run 10 "$B/gpu/picture" make $side "$tmp/latency.png" || return
    m=$served
    [ -n "$m" ] || m=$(weights served.st --ngf 16 --blocks 5)
    serve "$out/latency.daemon.log" --model "$m" || { row latency "the daemon did not start: $(last "$out/latency.daemon.log")" "" FAIL; return; }
    ask() { run $((2 * s + 30)) "$py" tests/gpu/latency.py "$url" "$tmp/latency.png" --seconds "$1" "${@:2}"; }
    value() { sed -n "s/^$2 //p" "$tmp/latency.$1"; }
    ask 1 >/dev/null # plans, recordings
    ask $s >"$tmp/latency.alone" || row "requests alone" "$(tr '\n' ' ' <"$tmp/latency.alone")" "all answered" FAIL
    # shellcheck disable=SC2086
    job=$(run 60 "$B/derain" train --url "$url" -q --rainy "$tmp/rainy" --clean "$tmp/clean" --set-aside --steps 1000000 --crop $((crop / 2 > 64 ? crop / 2 : 64)) \
        --batch "$([ -n "${GPU_CHECK_TINY:-}" ] && echo 1 || echo 8)" --eval-every 1000000 --set metric_every="$([ -n "${GPU_CHECK_TINY:-}" ] && echo 1 || echo 10)" 2>"$tmp/latency.err" | tail -n 1)
    for i in $(seq 300); do
        state=$(run 5 "$B/derain" show --url "$url" --json "$job" 2>/dev/null | tr -d '\n ' | sed -n 's/.*"state":"\([a-z]*\)".*/\1/p')
        [ "$state" != running ] || break
        [ "$(part_left)" -gt $((3 * s)) ] || break
        sleep 0.1
    done
    if [ "$state" != running ]; then
        row training "it does not run: ${state:-no job} $(last "$tmp/latency.err")" "" FAIL
        end_daemon
        return
    fi
    sleep 2
    ask $s --job "$job" --only-steps >"$tmp/latency.free" || row "training alone" "it did not move" "" FAIL
    ask $s --job "$job" >"$tmp/latency.both" || row "requests beside it" "$(tr '\n' ' ' <"$tmp/latency.both")" "all answered" FAIL
    cat "$tmp"/latency.{alone,free,both}
    run 10 "$B/derain" cancel --url "$url" -q "$job" >/dev/null 2>&1
    end_daemon
    for i in p50 p99; do
        row "$side requests, $i" "$(value both ${i}_ms) ms beside a training" "$(value alone ${i}_ms) ms without" info
    done
    row "added by the training, p99" "$(awk -v a="$(value alone p99_ms)" -v b="$(value both p99_ms)" 'BEGIN {printf "%.2f ms", b - a}')" "at most 6 ms" \
        "$(awk -v a="$(value alone p99_ms)" -v b="$(value both p99_ms)" -v real="$([ "$BACKEND" = cpu ] || is_emulated || echo 1)" \
            'BEGIN {print a == "" || b == "" ? "FAIL" : !real ? "info" : b - a <= 6 ? "ok" : "FAIL"}')"
    row "the training's speed beside requests" "$(value both steps_per_s) steps/s" \
        "$(awk -v a="$(value free steps_per_s)" -v b="$(value both steps_per_s)" 'BEGIN {printf "%s alone, %.0f %%", a, (a > 0) ? 100 * b / a : 0}')" info
}

# the daemon under requests of changing sizes; memory of the second half against the first, once warm
part_soak() {
    local url="" seconds n=0 bad=0 end i
    built "$B/deraind" && built "$B/derain" && built "$B/gpu/picture" || return
    seconds=$(($(part_left) - 12))
    [ "$seconds" -lt "$([ -n "$quick" ] && echo 15 || echo 60)" ] || seconds=$([ -n "$quick" ] && echo 15 || echo 60)
    [ "$seconds" -ge 10 ] || { row soak "no time" "" "left out"; return; }
    for i in 256x256 333x517 640x480 1024x768; do run 10 "$B/gpu/picture" make $i "$tmp/soak.$i.png" || return; done
    serve "$out/soak.daemon.log" --model models/derain.safetensors || { row soak "the daemon did not start: $(last "$out/soak.daemon.log")" "" FAIL; return; }
    : >"$out/soak.tsv"
    end=$((SECONDS + seconds))
    while [ $SECONDS -lt $end ]; do
        for i in 256x256 333x517 640x480 1024x768; do
            run 20 "$B/derain" put --url "$url" -q -f -o "$tmp/soak.out.png" "$tmp/soak.$i.png" >/dev/null 2>>"$tmp/soak.err" || bad=$((bad + 1))
            n=$((n + 1))
        done
        printf '%s\t%s\t%s\n' $((end - SECONDS)) \
            "$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null | head -n 1)" \
            "$(awk '/VmRSS/ {print int($2 / 1024)}' /proc/$daemon/status 2>/dev/null)" >>"$out/soak.tsv"
    done
    head -n 3 "$tmp/soak.err"
    end_daemon
    i=$?
    row "soak $seconds s" "$n requests, $bad failed, daemon's exit $i" "none fails" "$(verdict $((bad + i + (n == 0))))"
    # column 2: MiB on the device; 3: resident MiB on the host. The first quarter is warm-up.
    for i in 2:device:16 3:host:32; do
        awk -F'\t' -v c="${i%%:*}" '$c != "" {v[++n] = $c} END {if (n < 4) exit; for (k = 1; k <= n; k++) {
            if (k > n / 4 && k <= n / 2 && v[k] > a) a = v[k]; if (k > n / 2 && v[k] > b) b = v[k]} print a, b}' "$out/soak.tsv" >"$tmp/mem"
        read -r a b <"$tmp/mem" || { row "memory, $(cut -d: -f2 <<<"$i")" "too few samples" "" "left out"; continue; }
        row "memory, $(cut -d: -f2 <<<"$i")" "$a then $b MiB" "flat" "$(awk -v a="$a" -v b="$b" -v t="${i##*:}" 'BEGIN {print (b - a > t + 0.02 * a) ? "FAIL" : "ok"}')"
    done
}

# ratios: ours against the best eager figure and torch.compile; printed when both have run
ratios() {
    local kind target=$tmp/torch
    [ -f "$target" ] || : >"$target"
    for kind in infer train; do
        [ -s "$tmp/ours.$kind" ] || continue
        [ $kind = infer ] && part=speed || part=train
        while IFS=$'\t' read -r _ cell ms note; do
            read -r best compiled <<<"$(awk -v k=$kind -v cell="$cell" '$1 == k && /[0-9.] ms$/ && index($0, cell " ") {
                t = $(NF - 1); if (/ compile-/) {if (!c || t < c) c = t} else if (!b || t < b) b = t}
                END {print b ? b : "-", c ? c : "-"}' "$target")"
            row "$cell${note:+, $note}" "$(awk -v m="$ms" 'BEGIN {printf "%.2f ms", m}')" \
                "$(awk -v m="$ms" -v b="$best" -v c="$compiled" 'BEGIN {
                    printf "eager %s", b == "-" ? "not measured" : sprintf("%.2f ms, %.2fx", b, b / m)
                    if (c != "-") printf "; compile %.2f ms, %.2fx", c, c / m}')" info
        done <"$tmp/ours.$kind"
    done
}

# Caps. By estimate the parts take 460 s together, build 0 s of them where the binaries start; those that find no time left
# say so, which are then the last: their figures are the least likely to have changed.
declare -A cap=([device]=20 [build]=190 [ceilings]=20 [dump]=10 [conv]=60 [kernels]=30 [forward]=70 [tune]=60 [speed]=50 [train]=60
    [repeat]=45 [latency]=60 [soak]=75 [sanitize]=45 [compile]=95 [torch]=75)
for part in $all_parts; do
    case " $parts " in *" $part "*) ;; *) continue ;; esac
    if [ "$(left)" -lt 5 ]; then row "$part" "no time left of $limit s" "" "left out"; continue; fi
    part_end=$((SECONDS + slow * ${cap[$part]})) part_begin=$SECONDS
    echo "== $part"
    "part_$part" >"$out/$part.log" 2>&1
    echo "   $((SECONDS - part_begin)) s"
done
ratios >/dev/null

{
    echo "| part | item | value | against | verdict |"
    echo "| --- | --- | --- | --- | --- |"
    for part in $all_parts; do
        awk -F'\t' -v p="$part" '$1 == p {gsub(/\|/, "/"); printf "| %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5}' "$rows"
    done
    echo
    awk -F'\t' -v s=$((SECONDS - begin)) '{n[$5]++} END {printf "%d ok, %d failed, %d not built, %d left out; %d s\n",
        n["ok"], n["FAIL"], n["not built"], n["left out"], s}' "$rows"
} >"$out/table.md"
echo
cat "$out/table.md"
! grep -q "$(printf '\tFAIL$')" "$rows"
