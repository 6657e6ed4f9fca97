#!/bin/bash
# leavers.sh [ROUNDS] - clients that go away: in the middle of each kind of upload, of an event stream, and of a request that
# waits. Afterwards the daemon holds no connection, no file descriptor, no file and no job of theirs.
. "$(dirname "$0")/lib.inc"
need curl
ROUNDS=${1:-${ROUNDS:-5}}
THREADS=1
prepare
"$B/deraind" model init --ngf 32 --blocks 5 --residual 1 --seed 7 "$T/model.safetensors" >/dev/null || exit 2
mkpng 1600 1200 5 >"$T/big.png"
mkdir -p "$T/set/rainy" "$T/set/clean"
for i in 1 2 3 4; do
    mkpng 200 160 "$i" 3 scene >"$T/set/rainy/$i.png"
    mkpng 200 160 $((i + 100)) 3 scene >"$T/set/clean/$i.png"
done
tar -C "$T/set" -cf "$T/set.tar" rainy clean
SHA=$(sha256sum <"$T/big.png" | cut -d' ' -f1)

metric() { curl -s "$U/metrics" | sed -n "s/^$1 //p"; }
descriptors() { ls "/proc/$DAEMON/fd" | wc -l; }
files() { find "$T/data/spool" "$T/data/blobs" -type f | wc -l; }
# leave CURL-ARGS...: a request whose client is gone after a moment
leave() { curl -s -o /dev/null --max-time "0.$((RANDOM % 6 + 2))" "$@" && { echo "it was answered before its client left: $*"; return 1; }; return 0; }
# A few descriptors more are connections to the database, which stay open for the next reader; every case has more leavers.
settled() { # settled FILES DESCRIPTORS: what is left after those who left; the connection that asks is one
    for _ in $(seq 150); do
        n=$(files) c=$(metric derain_http_connections) w=$(metric derain_requests_waiting)
        [ "$n" = "$1" ] && [ "$c" = 1 ] && [ "$w" = 0 ] && d=$(descriptors) && [ "$d" -le $(($2 + 4)) ] && return 0
        sleep 0.1
    done
    echo "$n files (were $1), $c connections, $w waiting, $d descriptors (were $2)"; return 1
}
idle() { for _ in $(seq 150); do [ "$(metric derain_http_connections)" = 1 ] && break; sleep 0.1; done; before=$(files) open=$(descriptors); }
no_job() { [ "$(curl -s "$U/v1/jobs?state=queued,running" | grep -c '"id"')" = 0 ]; }

uploads() { # with a rate at which the body takes longer than its client stays
    http -d '{}' "$U/v1/datasets"
    set=$(member id)
    [ "$code" = 201 ] || return 1
    idle
    for _ in $(seq "$ROUNDS"); do
        leave --limit-rate 50k --data-binary "@$T/big.png" "$U/v1/derain" &&
            leave --limit-rate 50k -F "image=@$T/big.png" "$U/v1/derain" &&
            leave --limit-rate 50k -T "$T/big.png" "$U/v1/blobs/$SHA" &&
            leave --limit-rate 50k -T "$T/big.png" "$U/v1/datasets/$set/rainy/big.png" &&
            leave --limit-rate 50k --data-binary "@$T/set.tar" "$U/v1/datasets" &&
            leave --limit-rate 50k -T "$T/model.safetensors" -X POST "$U/v1/models/derain/versions" || return 1
    done
    settled "$before" "$open" && no_job || return 1
    [ -z "$(find "$T/data/models" -name 'tmp*')" ] || { find "$T/data/models"; return 1; }
    http "$U/v1/datasets/$set"
    grep -q '"files":0' "$T/body" && answers 404 blob_not_found "$U/v1/blobs/$SHA"
}
waiting() { # for a picture: its job goes with its client
    idle
    cancelled=$(metric 'derain_jobs{state="cancelled"}')
    for _ in $(seq $((ROUNDS * 2))); do leave --data-binary "@$T/big.png" "$U/v1/derain" || return 1; done
    for _ in $(seq 100); do no_job && break; sleep 0.1; done
    # what a cancelled job leaves is its row and its input, until retention erases both
    now=$(metric 'derain_jobs{state="cancelled"}')
    [ "$now" = $((cancelled + ROUNDS * 2)) ] || { echo "$now cancelled, not $((cancelled + ROUNDS * 2))"; return 1; }
    for id in $(curl -s "$U/v1/jobs?state=cancelled" | grep -o '"id":"job_[^"]*' | cut -d'"' -f4); do
        http -X DELETE "$U/v1/jobs/$id"
        [ "$code" = 204 ] || return 1
    done
    settled "$before" "$open"
}
training() { # a running one, to be watched
    http --data-binary "@$T/set.tar" "$U/v1/datasets"
    set=$(member id)
    http -d '{"set_aside":true}' "$U/v1/datasets/$set/seal"
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",\"steps\":100000,\"crop\":64,\"threads\":1,
        \"save_every\":1000000,\"sample_every\":1000000}" "$U/v1/jobs"
    job=$(member id)
    [ "$code" = 201 ] || { head -c 300 "$T/body"; return 1; }
    for _ in $(seq 300); do http "$U/v1/jobs/$job"; [ "$(member state)" = running ] && return 0; sleep 0.1; done
    return 1
}
streams() { # of events, and requests that wait for a change
    # the training's own files come and go: only connections, waiting requests and descriptors are counted
    idle
    for _ in $(seq "$ROUNDS"); do
        for _ in 1 2 3 4; do leave -N -H 'Accept: text/event-stream' "$U/v1/jobs/$job/events" & done
        leave "$U/v1/jobs/$job?wait=60&if_state_not=running" &
        leave "$U/v1/datasets/$set?wait=60&if_state_not=ready" &
        wait $(jobs -p | grep -vx "$DAEMON")
    done
    for _ in $(seq 150); do
        c=$(metric derain_http_connections) w=$(metric derain_requests_waiting) d=$(descriptors)
        [ "$c" = 1 ] && [ "$w" = 0 ] && [ "$d" -le $((open + 4)) ] && break
        sleep 0.1
    done
    [ "$c" = 1 ] && [ "$w" = 0 ] && [ "$d" -le $((open + 4)) ] || { echo "$c connections, $w waiting, $d descriptors (were $open)"; return 1; }
    http "$U/v1/jobs/$job"
    [ "$(member state)" = running ] || { echo "the training is $(member state)"; return 1; }
    http -X POST -d '' "$U/v1/jobs/$job/cancel"
}
check daemon_comes_up start
check uploads_that_break_off_leave_nothing uploads
check a_picture_nobody_waits_for_is_cancelled waiting
check a_training_runs training
check streams_and_waits_that_break_off_leave_nothing streams
check daemon_ends_in_order stop
exit $failed
