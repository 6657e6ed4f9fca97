#!/bin/bash
# memory.sh - one budget for pictures and a training, with the real daemon: a training that does not fit is refused, a
# running one takes its part, what was let in before it is done first, and one that no longer fits fails with its reason.
. "$(dirname "$0")/lib.inc"
need curl
prepare
"$B/deraind" model init --ngf 16 --blocks 5 --seed 7 "$T/model.safetensors" >/dev/null || exit 2
mkpng 96 64 1 >"$T/small.png"
mkpng 900 700 2 >"$T/large.png"
mkpng 2000 2000 2 >"$T/huge.png"
mkdir -p "$T/wet" "$T/dry"
for i in 1 2 3; do mkpng $((80 + 8 * i)) 96 "$i" >"$T/wet/$i.png"; mkpng 96 $((80 + 8 * i)) $((i + 20)) >"$T/dry/$i.png"; done
up() { start "$@" && export DERAIN_URL="$U"; }
state() { http "$U/v1/jobs/$1"; member state; }
wait_for() {
    for _ in $(seq 600); do s=$(state "$1"); [ "$s" = "$2" ] && return 0; case $s in failed|cancelled|succeeded) break ;; esac; sleep 0.1; done
    echo "$1 is $s, not $2:"; head -c 900 "$T/body"; return 1
}
train() { # train MEMBERS
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",\"parent\":\"none\",\"ngf\":16,\"blocks\":5,\"ndf\":16,\"threads\":1,$1}" "$U/v1/jobs"
    job=$(member id)
}
gauge() { http "$U/metrics"; sed -n 's/^derain_training_memory_bytes //p' "$T/body" | awk '{printf "%.0f\n", $1}'; }
number() { grep -o "\"$1\":[0-9]*" "$T/body" | head -1 | cut -d: -f2; }
pixels() { http "$U/v1/limits"; number pixels_max; }

too_large_is_refused() { # before there is a job, with the numbers
    up --mem-budget 480M || return 1
    "$B/derain" train --rainy "$T/wet" --clean "$T/dry" --set-aside --steps 1 --crop 64 --follow >"$T/out" 2>"$T/err" || { cat "$T/err"; return 1; }
    set=$(sed -n 's/^\(ds_[^:]*\):.*/\1/p' "$T/err")
    train '"crop":512,"batch":8,"steps":10'
    [ "$code" = 413 ] && [ "$(member code)" = training_too_large ] && [ "$(member setting)" = mem_budget ] || { cat "$T/body"; return 1; }
    actual=$(number actual); limit=$(number limit)
    [ "$limit" -lt $((480 << 20)) ] && [ "$actual" -gt "$limit" ] || return 1
    http "$U/v1/limits"; [ "$(number training_bytes_max)" = "$limit" ]
}
a_running_one_takes_its_part() { # the largest pictures are refused meanwhile, large ones go in bands, small ones as ever
    [ "$(gauge)" = 0 ] || return 1
    before=$(pixels)
    http --data-binary "@$T/large.png" "$U/v1/derain"; [ "$code" = 200 ] || { cat "$T/body"; return 1; }
    train '"crop":128,"batch":1,"steps":100000'; [ "$code" = 201 ] || { cat "$T/body"; return 1; }
    wait_for "$job" running || return 1
    for _ in $(seq 100); do held=$(gauge); [ "$held" != 0 ] && break; sleep 0.05; done
    after=$(pixels)
    [ "$held" -gt 0 ] && [ "$after" -lt "$before" ] || { echo "held $held, pixels $before then $after"; return 1; }
    [ "$before" -ge 4000000 ] && [ "$after" -lt 4000000 ] || { echo "held $held, pixels $before then $after"; return 1; }
    http --data-binary "@$T/small.png" "$U/v1/derain"; [ "$code" = 200 ] || { cat "$T/body"; return 1; }
    http --data-binary "@$T/large.png" "$U/v1/derain"; [ "$code" = 200 ] || { cat "$T/body"; return 1; }
    http --data-binary "@$T/huge.png" "$U/v1/derain"
    [ "$code" = 413 ] && [ "$(member setting)" = mem_budget ] && grep -q 'a training holds a part' "$T/body" || { cat "$T/body"; return 1; }
    for _ in $(seq 300); do http "$U/v1/jobs/$job"; grep -q '"step":[1-9]' "$T/body" && break; sleep 0.1; done
    rss=$(awk '/VmHWM/ { print $2 * 1024 }' "/proc/$DAEMON/status")
    echo "# the training was said to hold $((held >> 20)) MB; the whole daemon's peak is $((rss >> 20)) MB" >"$T/summary"
    [ "$rss" -lt $((480 << 20)) ] || return 1
    http -X POST -d '' "$U/v1/jobs/$job/cancel"; wait_for "$job" cancelled || return 1
    for _ in $(seq 100); do [ "$(gauge)" = 0 ] && break; sleep 0.05; done
    [ "$(gauge)" = 0 ] && [ "$(pixels)" = "$before" ] || return 1
    http --data-binary "@$T/large.png" "$U/v1/derain"; [ "$code" = 200 ]
}
what_was_let_in_is_done_first() { # large pictures that wait; the training begins after them, and none fails
    ids=
    for _ in 1 2 3 4; do http -H 'Prefer: respond-async' --data-binary "@$T/large.png" "$U/v1/derain"; [ "$code" = 202 ] || return 1; ids="$ids $(member id)"; done
    train '"crop":128,"batch":1,"steps":100000'; [ "$code" = 201 ] || { cat "$T/body"; return 1; }
    for id in $ids; do wait_for "$id" succeeded || return 1; done
    for _ in $(seq 200); do http "$U/v1/jobs/$job/events"; grep -q '"code":"started"' "$T/body" && break; sleep 0.1; done
    grep -q '"code":"waits_for_pictures"' "$T/body" && grep -q '"code":"started"' "$T/body" || { cat "$T/body"; return 1; }
}
under_a_smaller_budget_it_fails() { # paused, restarted with less, resumed: a problem, no crash, and the service goes on
    for _ in $(seq 300); do http "$U/v1/jobs/$job"; grep -q '"step":[1-9]' "$T/body" && break; sleep 0.1; done
    http -X POST -d '' "$U/v1/jobs/$job/pause"; wait_for "$job" paused || return 1
    stop && up --mem-budget 120M || return 1
    http -X POST -d '' "$U/v1/jobs/$job/resume"; wait_for "$job" failed || return 1
    grep -q '"code":"training_too_large"' "$T/body" && grep -q '"setting":"mem_budget"' "$T/body" || { cat "$T/body"; return 1; }
    [ "$(gauge)" = 0 ] || return 1
    http --data-binary "@$T/small.png" "$U/v1/derain"; [ "$code" = 200 ] && stop
}
check a_training_that_does_not_fit_is_refused too_large_is_refused
check a_running_training_takes_its_part a_running_one_takes_its_part
cat "$T/summary" 2>/dev/null
check what_was_let_in_before_is_done_first what_was_let_in_is_done_first
check under_a_smaller_budget_it_fails_with_its_reason under_a_smaller_budget_it_fails
exit $failed
