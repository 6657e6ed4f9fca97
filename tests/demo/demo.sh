#!/bin/sh
# demo.sh - the whole way, once: start the daemon on a free loopback port with the shipped weights, derain two pictures through
# the client (one waiting, one as a job that is watched and fetched), put before and after side by side, stop the daemon.
# B is the build folder; DERAIN_MODEL names other weights.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} model=${DERAIN_MODEL:-models/derain.safetensors}
out=$B/demo log=$B/demo/deraind.log pid=
[ -f "$model" ] || { echo "demo: there are no weights in $model" >&2; exit 1; }
rm -rf "$out" && mkdir -p "$out" || exit 1
data=$(mktemp -d) || exit 1
stop() {
    [ -z "$pid" ] && return 0
    kill -TERM "$pid" 2>/dev/null; wait "$pid"; rc=$?; pid=
    return $rc
}
trap 'stop; rm -rf "$data"' EXIT
trap 'exit 130' INT TERM
fail() { echo "demo: $1" >&2; [ -s "$log" ] && tail -5 "$log" >&2; exit 1; }
now() { date +%s%N; }
seconds() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }

begin=$(now)
DERAIN_MODULE_DIR=${DERAIN_MODULE_DIR:-$PWD/$B} "$B/deraind" serve --listen 127.0.0.1:0 --data "$data" --model "$model" \
    --free-min-bytes 0 --free-min-percent 0 2>"$log" &
pid=$!
url=
for _ in $(seq 600); do
    url=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$log")
    [ -n "$url" ] && break
    kill -0 "$pid" 2>/dev/null || fail "the daemon did not start"
    sleep 0.1
done
[ -n "$url" ] || fail "the daemon was not ready within a minute"
echo "demo: deraind with $model listens on $url ($(seconds "$begin") s)"
derain() { "$B/derain" "$@" --url "$url"; }

t=$(now)
derain put tests/demo/launch.jpg -q -o "$out/launch.derained.png" || fail "the first picture failed"
echo "demo: launch.jpg derained while we waited, $(seconds "$t") s"
t=$(now)
job=$(derain put tests/demo/raccoon.jpg --async) || fail "the second picture was not taken"
derain watch "$job" >"$out/job.txt" || fail "job $job failed"
derain get "$job" -q -o "$out/raccoon.derained.png" || fail "the result of $job could not be fetched"
echo "demo: raccoon.jpg derained as $job, $(seconds "$t") s"
"$B/tests/demo/beside" "$out/before-after.png" before tests/demo/launch.jpg after "$out/launch.derained.png" \
    before tests/demo/raccoon.jpg after "$out/raccoon.derained.png" || fail "no before/after picture"
stop || fail "the daemon ended with an error"
echo "demo: done in $(seconds "$begin") s; look at"
for f in before-after launch.derained raccoon.derained; do echo "  $out/$f.png"; done
