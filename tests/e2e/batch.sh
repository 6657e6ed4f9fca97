#!/bin/bash
# batch.sh - the daemon on the GPU module in emulation: pictures that come at once run in batches, and each client gets the very
# pixels of a request that comes alone, whoever else is in the batch, leaves it, or is cancelled.
. "$(dirname "$0")/lib.inc"
need curl
export OMP_WAIT_POLICY=passive THREADS=1 DERAIN_MODULE_DIR="$B/cusim"
[ -f "$B/cusim/derain-cuda.so" ] || { echo "# skip: no emulated module"; echo "ok batch # SKIP"; exit 0; }
prepare

# 12 small pictures: ten on one grid of 96 x 64, of different true sizes and channels, and two on another
i=0
for s in "96 64 3" "95 63 3" "96 61 1" "93 64 4" "96 64 3" "94 62 1" "96 64 4" "95 64 3" "96 63 3" "93 61 1" "40 40 3" "40 40 1"; do
    set -- $s
    i=$((i + 1))
    mkpng "$1" "$2" "$i" "$3" >"$T/in$i.png"
done
N=$i

metric() { curl -sS "$U/metrics" | sed -n "s/^$1 //p"; }
alone() { # with batches switched off, one after the other
    start --backend cuda --workers 1 --batch 1 || return 1
    for i in $(seq $N); do curl -sSf --data-binary "@$T/in$i.png" "$U/v1/derain" -o "$T/alone$i.png" || return 1; done
    [ "$(metric derain_batches_total)" = $N ] || return 1
    cmp -s "$T/in1.png" "$T/alone1.png" && return 1
    stop
}
as_run_gives_it() { # the offline command uses no batches either
    "$B/deraind" run --quiet --backend cuda --model "$T/model.safetensors" "$T/in4.png" "$T/ref.png" && cmp "$T/ref.png" "$T/alone4.png"
}
at_once() { # at_once DIR: all N from N clients
    mkdir -p "$T/$1"
    pids=
    for i in $(seq $N); do
        curl -sSf --max-time 120 --data-binary "@$T/in$i.png" "$U/v1/derain" -o "$T/$1/$i.png" & pids="$pids $!"
    done
    for p in $pids; do wait "$p" || return 1; done
    for i in $(seq $N); do cmp "$T/$1/$i.png" "$T/alone$i.png" || return 1; done
}
in_batches() {
    start --backend cuda --workers 8 || return 1
    at_once first && at_once second && at_once third || return 1
    runs=$(metric derain_batches_total) pictures=$(metric derain_batch_pictures_total)
    echo "$pictures pictures in $runs runs"
    [ "$pictures" = $((3 * N)) ] && [ "$runs" -lt "$pictures" ] && [ "$(metric derain_batch_wait_seconds_count)" = "$pictures" ] || return 1
    [ "$(metric derain_workers)" = 8 ] && [ "$(metric derain_cpu_takeovers_total)" = 0 ]
}
async() { # the job's id
    curl -sS -H 'Prefer: respond-async' --data-binary "@$T/$1" "$U/v1/derain" | sed 's/.*"id":"\(job_[^"]*\)".*/\1/'
}
some_leave() { # of 12 jobs at once, some are cancelled and some clients are killed; the others get their pixels
    pids= jobs=
    for i in $(seq $N); do
        case $i in
        2 | 7) curl -sS --max-time 60 --data-binary "@$T/in$i.png" "$U/v1/derain" -o /dev/null 2>/dev/null & gone="$gone $!" ;;
        3 | 8) jobs="$jobs $(async in$i.png)" ;;
        *) curl -sSf --max-time 120 --data-binary "@$T/in$i.png" "$U/v1/derain" -o "$T/left$i.png" & pids="$pids $!" ;;
        esac
    done
    for p in $gone; do kill -9 "$p" 2>/dev/null; done
    for j in $jobs; do curl -sS -o /dev/null -X POST "$U/v1/jobs/$j/cancel"; done
    for p in $pids; do wait "$p" || return 1; done
    for i in 1 4 5 6 9 10 11 12; do cmp "$T/left$i.png" "$T/alone$i.png" || return 1; done
    for j in $jobs; do
        http "$U/v1/jobs/$j?wait=20&if_state_not=running"
        state=$(member state)
        [ "$state" = cancelled ] || [ "$state" = succeeded ] || { echo "$j is $state"; return 1; }
    done
}
a_killed_daemon_goes_on() { # kill -9 in the middle of batches: the next life gives every picture
    jobs=
    for i in 1 2 3 4 5 6; do jobs="$jobs $(async in$i.png)"; done
    kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null; DAEMON=
    start --backend cuda --workers 8 || return 1
    i=0
    for j in $jobs; do
        i=$((i + 1))
        for _ in 1 2 3; do
            http "$U/v1/jobs/$j?wait=30"
            [ "$(member state)" = succeeded ] && break
        done
        http "$U/v1/jobs/$j/result"
        [ "$code" = 200 ] && cmp "$T/body" "$T/alone$i.png" || { echo "picture $i: $code"; return 1; }
    done
}

gone=
check each_alone alone
check the_offline_command_gives_the_same as_run_gives_it
check twelve_at_once_run_in_batches_with_the_same_pixels in_batches
check who_leaves_disturbs_nobody some_leave
check a_killed_daemon_goes_on a_killed_daemon_goes_on
check down stop
exit $failed
