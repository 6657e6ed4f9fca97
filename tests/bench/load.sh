#!/bin/bash
# load.sh [SECONDS [CLIENTS [MODEL]]] - CLIENTS clients post 480x320 pictures for SECONDS, each the next as soon as it has its answer.
# Every answer must be 200, and the resident size at the end may be at most 5 % above that after a third of the time.
cd "$(dirname "$0")/../.." || exit 2
. tests/e2e/lib.inc
SECONDS_ALL=${1:-60} CLIENTS=${2:-8}
prepare
[ -n "${3:-}" ] && cp "$3" "$T/model.safetensors"
start || exit 1
rss() { sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$DAEMON/status"; }
client() { # its own picture, its own list of codes
    mkpng 480 320 "$1" >"$T/in.$1"
    end=$(($(date +%s) + SECONDS_ALL))
    while [ "$(date +%s)" -lt $end ]; do
        curl -s -o "$T/out.$1" -w '%{http_code} %{time_total}\n' --data-binary "@$T/in.$1" "$U/v1/derain" >>"$T/codes.$1" || echo "000 0" >>"$T/codes.$1"
    done
}
for i in $(seq "$CLIENTS"); do client "$i" & clients="${clients:-} $!"; done
sleep $((SECONDS_ALL / 3)); early=$(rss)
sleep $((SECONDS_ALL * 2 / 3 - 1)); late=$(rss)
wait $clients
cat "$T"/codes.* | sort -n -k2 >"$T/all"
n=$(wc -l <"$T/all"); good=$(grep -c '^200 ' "$T/all")
at() { sed -n "$((n * $1 / 100 + 1))p" "$T/all" | cut -d' ' -f2; }
echo "$n requests, $good answered 200; seconds p50 $(at 50) p95 $(at 95); RSS $((early / 1024)) MB at $((SECONDS_ALL / 3)) s, $((late / 1024)) MB at $SECONDS_ALL s ($(((late - early) * 1000 / early)) per mille)"
curl -s "$U/metrics" | grep -E '^derain_(db_wal_bytes|http_connections|db_commits|jobs_succeeded_total)'
stop && [ "${early:-0}" -gt 0 ] && [ "$n" -gt 0 ] && [ "$n" = "$good" ] && [ $((late * 100)) -le $((early * 105)) ]
