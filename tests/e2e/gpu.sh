#!/bin/bash
# gpu.sh - the real daemon on an emulated GPU (build/cusim): what /metrics and /v1/version tell of it, a training beside
# pictures, and a device that is lost under both: the CPU goes on with the pictures, the training waits with its last
# checkpoint and goes on from it after a restart.
. "$(dirname "$0")/lib.inc"
need curl
[ -e "$B/cusim/derain-cuda.so" ] || { echo "# skip: no emulated module"; echo "ok gpu # SKIP"; exit 0; }
prepare
"$B/deraind" model init --ngf 16 --blocks 5 --seed 7 "$T/model.safetensors" >/dev/null || exit 2
mkpng 48 40 3 >"$T/tiny.png"
mkdir -p "$T/wet" "$T/dry"
for i in 1 2 3; do mkpng $((80 + 8 * i)) 96 "$i" >"$T/wet/$i.png"; mkpng 96 $((80 + 8 * i)) $((i + 20)) >"$T/dry/$i.png"; done
export DERAIN_MODULE_DIR="$B/cusim" CUSIM_LOST_FILE="$T/lost"
case $DERAIN_MODULE_DIR in /*) ;; *) DERAIN_MODULE_DIR=$PWD/$DERAIN_MODULE_DIR ;; esac
up() { start "$@" && export DERAIN_URL="$U"; }
metric() { http "$U/metrics"; sed -n "s/^$1 //p" "$T/body" | awk '{printf "%.3f\n", $1}'; }
more() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b) }'; }
state() { http "$U/v1/jobs/$1"; member state; }
wait_for() {
    for _ in $(seq 1200); do s=$(state "$1"); [ "$s" = "$2" ] && return 0; case $s in failed|cancelled|succeeded) break ;; esac; sleep 0.1; done
    echo "$1 is $s, not $2:"; head -c 900 "$T/body"; return 1
}
events() { http "$U/v1/jobs/$job/events"; }
wait_event() { for _ in $(seq 1200); do events; grep -q "$1" "$T/body" && return 0; sleep 0.1; done; tail -c 900 "$T/body"; return 1; }
picture() { http --data-binary "@$T/tiny.png" "$U/v1/derain"; [ "$code" = 200 ] || { cat "$T/body"; return 1; }; }

the_cpu_has_no_gpu_lines() {
    up --backend cpu || return 1
    http "$U/metrics"
    grep -q 'derain_gpu_' "$T/body" && { grep derain_gpu_ "$T/body"; return 1; }
    for w in derain comparison training; do
        grep -q "^derain_gate_busy_seconds_total{who=\"$w\"} 0" "$T/body" && grep -q "^derain_gate_waited_seconds_total{who=\"$w\"} 0" "$T/body" || return 1
    done
    answers 200 '"gpu":null' "$U/v1/version" && picture && more "$(metric 'derain_gate_busy_seconds_total{who="derain"}')" 0 && stop
}
a_gpu_tells_of_itself() {
    up --backend cuda || return 1
    [ "$(metric derain_gpu_memory_bytes)" = 4294967296.000 ] || return 1
    used=$(metric derain_gpu_memory_used_bytes); free=$(metric derain_gpu_memory_free_bytes)
    more "$used" 1000000 && more "$free" "$used" && more 4294967296 "$free" || { echo "$used $free"; return 1; }
    for _ in 1 2 3 4; do picture || return 1; done
    [ "$(metric derain_gpu_runs_recorded_total)" = 1.000 ] && [ "$(metric derain_gpu_runs_replayed_total)" = 3.000 ] || { grep gpu "$T/body"; return 1; }
    grep -q '^derain_gpu_plans ' "$T/body" && grep -q '^derain_gpu_plans_tuned ' "$T/body" || return 1
    [ "$(metric derain_device_lost)" = 0.000 ] && answers 200 '"gpu":{"memory_bytes":4294967296' "$U/v1/version"
}
it_trains_beside_pictures() {
    "$B/derain" train --rainy "$T/wet" --clean "$T/dry" --set-aside --steps 1 --crop 64 --set ngf=16 --set parent=none --set ndf=16 \
        --set threads=1 --follow >"$T/out" 2>"$T/err" || { cat "$T/out" "$T/err"; return 1; }
    set=$(sed -n 's/^\(ds_[^:]*\):.*/\1/p' "$T/err")
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",\"parent\":\"none\",\"crop\":1024,\"batch\":2,\"ngf\":64,\"steps\":1}" "$U/v1/jobs"
    [ "$code" = 413 ] && [ "$(member code)" = training_too_large ] && grep -q "of the GPU's memory, which has 4096 MB" "$T/body" || { cat "$T/body"; return 1; }
    alone=$(metric derain_gpu_memory_used_bytes)
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",\"parent\":\"none\",\"crop\":64,\"ngf\":16,\"ndf\":16,\"blocks\":5,\"threads\":1,\"batch\":2,\"micro_batch\":1,\"steps\":100000,\"save_every\":1}" "$U/v1/jobs"
    job=$(member id)
    wait_for "$job" running && wait_event '"code":"started"' && grep -q 'batch 2.*; 1 of a batch at a time' "$T/body" && more "$(metric derain_gpu_memory_used_bytes)" "$alone" || return 1
    for _ in 1 2 3; do picture || return 1; done
    more "$(metric 'derain_gate_busy_seconds_total{who="training"}')" 0.1
}
a_lost_device_ends_nobody() { # and the checkpoint stays
    for _ in $(seq 1200); do http "$U/v1/jobs/$job/checkpoints"; grep -q '"step":[2-9]' "$T/body" && break; sleep 0.1; done
    touch "$T/lost"
    wait_for "$job" paused && wait_event '"code":"device_lost"' || return 1
    grep -q 'it goes on from the checkpoint of step [1-9]' "$T/body" || { tail -c 600 "$T/body"; return 1; }
    http "$U/v1/jobs/$job/checkpoints"; sha256sum "$T/data/training/$job"/step_*.safetensors >"$T/sums" || { ls -R "$T/data/training/$job"; return 1; }
    for _ in 1 2; do picture || return 1; done
    [ "$(metric derain_device_lost)" = 1.000 ] && more "$(metric derain_cpu_takeovers_total)" 1 || return 1
    grep -q derain_gpu_ "$T/body" && return 1
    answers 200 '"name":"device","ok":false' "$U/health/ready?verbose=1" || return 1
    http -X POST -d '' "$U/v1/jobs/$job/resume" # too early: it comes back and is not lost
    wait_event '"code":"device_lost".*"code":"device_lost"' && wait_for "$job" paused && picture && sha256sum --quiet -c "$T/sums"
}
after_a_restart_it_goes_on() {
    stop || return 1
    rm "$T/lost"
    up --backend cuda && [ "$(state "$job")" = paused ] || return 1
    http -X POST -d '' "$U/v1/jobs/$job/resume"
    wait_event '"code":"resumed"' && wait_for "$job" running || return 1
    http -X POST -d '' "$U/v1/jobs/$job/cancel"; wait_for "$job" cancelled && stop
}
check the_cpu_has_no_gpu_lines the_cpu_has_no_gpu_lines
check a_gpu_tells_of_itself a_gpu_tells_of_itself
check it_trains_beside_pictures it_trains_beside_pictures
check a_lost_device_ends_nobody a_lost_device_ends_nobody
check after_a_restart_it_goes_on after_a_restart_it_goes_on
exit $failed
