#!/bin/bash
# training.sh [ROUNDS] - a training through the real programs: folders uploaded by the client, trained beside derain requests,
# killed at random moments, on a full disk. make test kills 4 times; 30 are the acceptance run.
. "$(dirname "$0")/lib.inc"
need curl
ROUNDS=${1:-${ROUNDS:-4}}
STEPS=$((ROUNDS * 8 > 24 ? ROUNDS * 8 : 24))
prepare
"$B/deraind" model init --ngf 16 --blocks 5 --seed 7 "$T/model.safetensors" >/dev/null || exit 2 # training needs five blocks
set= job=
derain() { "$B/derain" "$@"; }
mkdir -p "$T/wet" "$T/dry" "$T/pairs/rainy" "$T/pairs/clean"
for i in 1 2 3 4; do
    mkpng $((80 + 8 * i)) 96 "$i" >"$T/wet/$i.png"
    mkpng 96 $((80 + 8 * i)) $((i + 20)) >"$T/dry/$i.png"
done
for i in 1 2; do
    mkpng 64 72 $((i + 40)) >"$T/pairs/rainy/$i.png"
    mkpng 64 72 $((i + 60)) >"$T/pairs/clean/$i.png"
done
NETS='"parent":"none","crop":64,"ngf":16,"blocks":5,"ndf":16,"threads":1,"seed":3'

up() { start "$@" && export DERAIN_URL="$U"; }
state() { http "$U/v1/jobs/$1"; member state; }
wait_for() { # wait_for ID STATE [TENTHS]
    for _ in $(seq "${3:-900}"); do
        s=$(state "$1")
        [ "$s" = "$2" ] && return 0
        case $s in failed|cancelled) break ;; esac
        sleep 0.1
    done
    echo "$1 is $s, not $2:"; head -c 900 "$T/body"; return 1
}
train() { # train MEMBERS: a tiny training on the set; its id in $job
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",$NETS,$1}" "$U/v1/jobs"
    job=$(member id)
    [ "$code" = 201 ] || { cat "$T/body"; return 1; }
}
bits() { for f in latest best train; do sha256sum <"$T/data/training/$1/$f.safetensors" || return 1; done; }

client_trains() { # from folders to a new version; the second time nothing is sent
    up || return 1
    derain train --rainy "$T/wet" --clean "$T/dry" --paired "$T/pairs" --set-aside --steps 4 --crop 64 --follow >"$T/out" 2>"$T/err" ||
        { cat "$T/out" "$T/err"; return 1; }
    grep -q 'checkpoint of step' "$T/out" && grep -q 'evaluation of step' "$T/out" && grep -q succeeded "$T/out" || { cat "$T/out"; return 1; }
    grep -q '12 pictures, 12 of them sent' "$T/err" || { cat "$T/err"; return 1; }
    set=$(sed -n 's/^\(ds_[^:]*\):.*/\1/p' "$T/err")
    job=$(derain train --rainy "$T/wet" --clean "$T/dry" --paired "$T/pairs" --set-aside --steps 100000 --crop 64 2>"$T/err") || return 1
    grep -q '12 pictures, 0 of them sent' "$T/err" || { cat "$T/err"; return 1; }
    derain pause "$job" 2>/dev/null && wait_for "$job" paused 100 && derain cancel "$job" 2>/dev/null && wait_for "$job" cancelled 100 || return 1
    derain datasets | grep -q "$set *ready" && derain logs "$job" | grep -q paused && derain models | grep -q '^derain  2'
}
pictures_pass() { # a derain request a moment during a training: none fails, and none waits for long
    train '"steps":100000' && wait_for "$job" running 100 || return 1
    for i in $(seq 25); do
        http --data-binary "@$T/a.png" "$U/v1/derain"
        [ "$code" = 200 ] || { echo "picture $i: $code"; cat "$T/body"; return 1; }
        sleep 0.1
    done
    http "$U/metrics"
    all=$(sed -n 's/^derain_training_yield_seconds_count //p' "$T/body")
    quick=$(sed -n 's/^derain_training_yield_seconds_bucket{le="0.4"} //p' "$T/body")
    echo "# $all pictures found the training in an op, $quick of them waited less than 0.4 s" >"$T/summary"
    http -X POST -d '' "$U/v1/jobs/$job/cancel"
    [ "$all" -gt 0 ] && [ $((quick * 100)) -ge $((all * 99)) ] && wait_for "$job" cancelled 100
}
unbroken() { train "\"steps\":$STEPS,\"save_every\":3,\"eval_every\":8" && whole=$job && wait_for "$whole" succeeded && bits "$whole" >"$T/want"; }
killed() {
    train "\"steps\":$STEPS,\"save_every\":3,\"eval_every\":8" || return 1
    kills=0
    while [ $kills -lt "$ROUNDS" ] && [ "$(state "$job")" != succeeded ]; do
        sleep "0.$((RANDOM % 800 + 100))"
        kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null; DAEMON=
        kills=$((kills + 1))
        up --job-attempts-max 100 || return 1
    done 2>>"$T/noise"
    wait_for "$job" succeeded && bits "$job" >"$T/got" && cmp "$T/want" "$T/got" || return 1
    echo "# killed $kills times" >"$T/summary"
    [ $kills -gt 0 ]
}
nothing_left() { # no half-written file, the last three checkpoints and the best
    find "$T/data" -name '*.tmp-*' | grep . && return 1
    n=$(ls "$T/data/training/$job" | grep -c '^step_')
    [ "$n" -ge 3 ] && [ "$n" -le 4 ] || { ls "$T/data/training/$job"; return 1; }
    http -X DELETE "$U/v1/jobs/$job"
    [ "$code" = 204 ] || return 1
    for _ in $(seq 150); do [ -d "$T/data/training/$job" ] || return 0; sleep 0.1; done
    echo "the folder of an erased training is still there"; return 1
}
full_disk() { # told with the last good step; the training goes on, and saves again when there is room
    train '"steps":100000,"save_every":2' && wait_for "$job" running 100 || return 1
    for _ in $(seq 300); do http "$U/v1/jobs/$job/checkpoints"; grep -q '"step":2' "$T/body" && break; sleep 0.1; done
    dd if=/dev/zero of="$T/data/filler" bs=64k 2>/dev/null
    for _ in $(seq 300); do grep -q 'checkpoint: .*disk\|checkpoint: .*space' "$T/log" && break; sleep 0.1; done
    rm -f "$T/data/filler" # the store is on the same disk: it can say so from now on
    for _ in $(seq 300); do http "$U/v1/jobs/$job/events"; grep -q '"code":"disk_full"' "$T/body" && break; sleep 0.1; done
    grep -q 'the last good checkpoint is that of step' "$T/body" || { tail -c 600 "$T/body"; return 1; }
    last=$(grep -o '"type":"checkpoint","data":{[^}]*' "$T/body" | tail -1)
    for _ in $(seq 300); do
        http "$U/v1/jobs/$job/events"
        [ "$(grep -o '"type":"checkpoint","data":{[^}]*' "$T/body" | tail -1)" != "$last" ] && break
        sleep 0.1
    done
    [ "$(state "$job")" = running ] && http -X POST -d '' "$U/v1/jobs/$job/cancel" && wait_for "$job" cancelled 100
}
on_small_disk() {
    stop || return 1
    rm -rf "$T/data"; mkdir "$T/data" "$T/tiny"
    mount -t tmpfs -o size=120m tmpfs "$T/tiny" || return 1
    rmdir "$T/data"; ln -s tiny "$T/data"
    up || return 1
    derain train --rainy "$T/wet" --clean "$T/dry" --set-aside --steps 1 --crop 64 --quiet 2>"$T/err" >"$T/out" || { cat "$T/err"; return 1; }
    set=$(derain datasets | sed -n 's/^\(ds_[^ ]*\).*/\1/p')
    full_disk && stop
}
check client_trains_from_folders client_trains
check pictures_pass_a_training pictures_pass
cat "$T/summary"
check an_unbroken_training unbroken
check "killed_${ROUNDS}_times_it_has_the_same_bits" killed
cat "$T/summary"
check nothing_is_left_over nothing_left
if [ "$(id -u)" = 0 ] && mkdir -p "$T/probe" && mount -t tmpfs tmpfs "$T/probe" 2>/dev/null; then
    umount "$T/probe"
    check a_full_disk_costs_a_checkpoint on_small_disk
else
    echo "ok a_full_disk_costs_a_checkpoint # SKIP no tmpfs without root"
fi
exit $failed
