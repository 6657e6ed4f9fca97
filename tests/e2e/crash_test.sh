#!/bin/bash
# crash_test.sh [ROUNDS] - kill -9 at random moments under load, again and again. Every job that was acknowledged by a 202 must
# end, after the restarts, in exactly one final state `succeeded`, which never changes once it was seen, with one result whose
# bytes are those of an undisturbed run. make test does 5 rounds; 50 are the acceptance run.
. "$(dirname "$0")/lib.inc"
need curl
ROUNDS=${1:-${ROUNDS:-5}}
THREADS=1
prepare
KINDS=4
for k in $(seq $KINDS); do
    mkpng $((32 + 16 * k)) 48 "$k" >"$T/p$k.png"
    "$B/deraind" run --quiet --backend cpu --model "$T/model.safetensors" "$T/p$k.png" "$T/want$k.png" || exit 2
    sha256sum <"$T/want$k.png" | cut -d' ' -f1 >"$T/want$k"
done
: >"$T/final.before"

submit() { # until the daemon dies; what was acknowledged goes into a file of its own, as "ID KIND"
    n=0
    while [ $n -lt 12 ]; do # at most so many a round: the backlog must not grow without end on a slow machine
        n=$((n + 1)); k=$((n % KINDS + 1))
        code=$(curl -s --max-time 10 -o "$T/ack.$1" -w '%{http_code}' -H 'Prefer: respond-async' --data-binary "@$T/p$k.png" "$U/v1/derain") || return
        [ "$code" = 202 ] && echo "$(sed 's/.*"id":"\([^"]*\)".*/\1/' "$T/ack.$1") $k" >>"$T/acked.$1"
    done
}

# all jobs as lines "ID STATE FINISHED_AT RESULT_SHA", sorted
all_jobs() {
    next=/v1/jobs?limit=500
    while [ -n "$next" ]; do
        http "$U$next"
        [ "$code" = 200 ] || return 1
        sed 's/{"id":"job_/\n&/g' "$T/body" | sed -n 's/^{"id":"\([^"]*\)","type":"derain","state":"\([^"]*\)".*"finished_at":\([^,]*\),.*"result":\(null\|{[^}]*}\).*/\1 \2 \3 \4/p'
        next=$(header Link | sed -n 's/<\(.*\)>; rel="next"/\1/p')
    done | sed 's/{.*"sha256":"\([^"]*\)".*}/\1/' | sort >"$T/jobs"
}

round() {
    start --queue-max 1000000 --connections-per-ip 0 || return 1
    all_jobs || { echo "cannot list"; return 1; }
    grep -E ' (succeeded|failed|cancelled|expired) ' "$T/jobs" >"$T/final" || true
    changed=$(comm -23 "$T/final.before" "$T/final")
    [ -z "$changed" ] || { echo "final states changed:"; echo "$changed"; return 1; }
    cp "$T/final" "$T/final.before"
    pids=
    for s in 1 2 3; do submit $s & pids="$pids $!"; done
    sleep "0.$((RANDOM % 900 + 50))"
    kill -9 "$DAEMON"
    wait "$DAEMON" 2>/dev/null
    DAEMON=
    wait $pids
    return 0
}

crashes() {
    for i in $(seq "$ROUNDS"); do round || { echo "round $i"; return 1; }; done 2>>"$T/noise"
    cat "$T"/acked.* | sort -u >"$T/acked"
    echo "# $ROUNDS rounds, $(wc -l <"$T/acked") acknowledged jobs" >"$T/summary"
    [ -s "$T/acked" ]
}
settle() { # the last life works off everything
    start --queue-max 1000000 || return 1
    for _ in $(seq 4000); do
        http "$U/v1/jobs?state=queued,running&limit=1"
        grep -q '"items":\[\]' "$T/body" && return 0
        sleep 0.1
    done
    return 1
}
all_succeeded() {
    all_jobs || return 1
    changed=$(comm -23 "$T/final.before" "$T/jobs")
    [ -z "$changed" ] || { echo "final states changed:"; echo "$changed"; return 1; }
    while read -r id kind; do
        line=$(grep "^$id " "$T/jobs") || { echo "$id is lost"; return 1; }
        [ "$(echo "$line" | wc -l)" = 1 ] || { echo "$id is there twice"; return 1; }
        set -- $line
        [ "$2" = succeeded ] || { echo "$line"; return 1; }
        [ "$4" = "$(cat "$T/want$kind")" ] || { echo "$id has another result: $line"; return 1; }
    done <"$T/acked"
}
results_match() {
    while read -r id kind; do
        [ -f "$T/data/results/$id" ] || { echo "$id: no file"; return 1; }
        [ "$(sha256sum <"$T/data/results/$id" | cut -d' ' -f1)" = "$(cat "$T/want$kind")" ] || { echo "$id: other bytes"; return 1; }
    done <"$T/acked"
    id=$(tail -1 "$T/acked" | cut -d' ' -f1)
    http "$U/v1/jobs/$id/result"
    [ "$code" = 200 ] && cmp "$T/body" "$T/want$(tail -1 "$T/acked" | cut -d' ' -f2).png"
}
no_leftovers() { # no half-written file, no file without a job
    stop && start || return 1
    all_jobs || return 1
    cut -d' ' -f1 "$T/jobs" >"$T/ids"
    { ls "$T/data/spool"; ls "$T/data/results"; } | sort -u >"$T/files"
    extra=$(comm -13 "$T/ids" "$T/files")
    [ -z "$extra" ] || { echo "files without a job: $extra"; return 1; }
    stop
}
check "kill_9_under_load_${ROUNDS}_rounds" crashes
cat "$T/summary"
check everything_queued_is_worked_off settle
check acknowledged_jobs_succeeded_once all_succeeded
check results_have_the_right_bytes results_match
check no_files_left_over no_leftovers
exit $failed
