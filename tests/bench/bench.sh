#!/bin/bash
# bench.sh - `make bench`: our speed and memory beside PyTorch's, run by run in turns, in one session.
#
#   B=build RUNS=10 LARGE_RUNS=3 TRAIN_RUNS=10 WAIT_S=60 tests/bench/bench.sh       (0 runs: that part is left out)
#
# Generator of ngf 64 and 9 blocks at 512x512 and 1920x1080, then a training step at crop 128. Each turn is one `deraind
# bench` (its own three warm-ups, then one timed run) and one run of the peer, which stays alive and warm in between.
# The peer is Debian's python3-torch with 2 threads and the malloc settings it needs to be fast; without it our numbers
# stand alone, and the reason is said. A busy machine makes any of these numbers worthless: the script waits for
# quiet up to WAIT_S seconds, and says how much others used meanwhile if that was more than 5 %.
B=${B:-build} RUNS=${RUNS:-10} LARGE_RUNS=${LARGE_RUNS:-3} TRAIN_RUNS=${TRAIN_RUNS:-10} WAIT_S=${WAIT_S:-60} THREADS=${THREADS:-2}
here=$(dirname "$0")
tmp=$(mktemp -d) || exit 2
peer_pid=
stop_peer() { [ -z "$peer_pid" ] || { exec 7>&- 8<&-; wait "$peer_pid" 2>/dev/null; peer_pid=; }; }
trap "" PIPE # a peer that dies is reported, not fatal
trap 'stop_peer; rm -rf "$tmp"' EXIT

# busy and all CPU time of the machine since its start, in seconds; time stolen by a hypervisor counts as busy
cpu_time() {
    awk -v hz="$(getconf CLK_TCK)" '/^cpu / {b = $2+$3+$4+$7+$8+$9; print b / hz, (b + $5 + $6) / hz}' /proc/stat
}
# CPU seconds of the programs that this script has started and waited for
own_time() {
    times >"$tmp/times"
    tr 'ms' '  ' <"$tmp/times" | awk 'NR == 2 {print 60 * $1 + $2 + 60 * $3 + $4}'
}
# percent of the machine that others used between two lines of "busy all own"
foreign() { echo "$1 $2" | awk '{d = $5 - $2; f = d > 0 ? 100 * ($4 - $1 - ($6 - $3)) / d : 0; print (f > 0 ? int(f + 0.5) : 0)}'; }
wait_quiet() {
    local left=$WAIT_S before
    while before="$(cpu_time) 0"; sleep 2; [ "$(foreign "$before" "$(cpu_time) 0")" -gt 5 ] && [ "$left" -gt 0 ]; do
        left=$((left - 2))
    done
}

python=
for p in /usr/bin/python3 python3; do
    [ -z "$python" ] && "$p" -c 'import torch' 2>/dev/null && python=$p
done
if [ -n "$python" ]; then
    echo "peer: PyTorch $("$python" -c 'import torch; print(torch.__version__)'), 2 threads"
else
    echo "peer: none (python3-torch is not installed: apt-get install python3-torch); ours alone"
fi
start_peer() { # infer WxH | train CROP
    [ -n "$python" ] || return 1
    mkfifo "$tmp/in.$2" "$tmp/out.$2" || return 1
    MALLOC_TOP_PAD_=2000000000 MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 OMP_NUM_THREADS=2 \
        PYTHONDONTWRITEBYTECODE=1 "$python" "$here/torch_run.py" "$@" <"$tmp/in.$2" >"$tmp/out.$2" 2>"$tmp/peer.log" &
    peer_pid=$!
    exec 7>"$tmp/in.$2" 8<"$tmp/out.$2"
    local word
    read -r word <&8 && [ "$word" = ready ] && return
    echo "the peer failed at $*: $(tail -n 1 "$tmp/peer.log")"
    stop_peer
    return 1
}
ours() { "$B/deraind" bench --backend cpu --threads "$THREADS" --runs 1 --json "$@"; }
field() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }
median() { sort -n | awk '{v[NR] = $1} END {if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

# compare TITLE TURNS PEER-MODE PEER-SIZE ARGUMENTS-OF-DERAIND-BENCH...
compare() {
    local title=$1 turns=$2 mode=$3 size=$4 i line ms rss
    shift 4
    [ "$turns" -gt 0 ] || return
    : >"$tmp/ours" >"$tmp/peer"
    local our_rss=0 peer_rss=- before busy
    wait_quiet
    own_time >"$tmp/own"
    before="$(cpu_time) $(cat "$tmp/own")"
    start_peer "$mode" "$size"
    for ((i = 0; i < turns; i++)); do
        line=$(ours "$@") || { echo "deraind bench failed"; exit 1; }
        echo "$line" | field median_ms >>"$tmp/ours"
        our_rss=$(echo "$line" | field peak_rss_mb)
        if [ -n "$peer_pid" ]; then
            echo go >&7
            if read -r ms rss <&8; then echo "$ms" >>"$tmp/peer"; peer_rss=$rss; fi
        fi
    done
    stop_peer
    own_time >"$tmp/own"
    busy=$(foreign "$before" "$(cpu_time) $(cat "$tmp/own")")
    [ "$busy" -le 5 ] || echo "WARNING: other programs used $busy % of the machine meanwhile: not to be trusted"
    echo "$title $(median <"$tmp/ours") $our_rss $(median <"$tmp/peer") $peer_rss" |
        awk '{p = NF > 4; printf "%-18s %10.1f %10.0f %10s %10s %8s\n", $1, $2, $3, p ? sprintf("%.1f", $4) : "-",
              $NF, p ? sprintf("%.2fx", $4 / $2) : "-"}'
}

"$B/deraind" model init --ngf 64 --blocks 9 "$tmp/w.safetensors" >/dev/null || exit 1
echo "ngf 64, 9 blocks, float32, $THREADS threads; medians of $RUNS runs ($LARGE_RUNS at 1920x1080)"
printf '%-18s %10s %10s %10s %10s %8s\n' "" "ours ms" "peak MB" "torch ms" "peak MB" "ratio"
compare 512x512 "$RUNS" infer 512x512 --model "$tmp/w.safetensors" --size 512x512
compare 1920x1080 "$LARGE_RUNS" infer 1920x1080 --model "$tmp/w.safetensors" --size 1920x1080
compare "train,crop=128" "$TRAIN_RUNS" train 128 --train --crop 128
