#!/bin/bash
# finetune.sh [STEPS] [DATA] - the acceptance run of training as a service, on real photographs: the client uploads a data set,
# the shipped weights are fine-tuned with it while another client derains a picture each second, and the gate gives its
# verdict over that run, over one that changed nothing, and over one that blurs. Prints what it measured, and leaves
# pictures, curves and events in KEEP where that is set. make test does a few steps; 300 are the acceptance run.
. "$(dirname "$0")/lib.inc"
need curl
STEPS=${1:-${STEPS:-12}}
DATA=${2:-${DATA:-../shared/data}}
KEEP=${KEEP:-}
[ -d "$DATA/train/Rain800/rainy" ] || { echo "# skip: no photographs in $DATA/train/Rain800"; echo "ok finetune # SKIP"; exit 0; }
prepare
# few steps want few pictures, but twenty of a side, so that some are held out; the verdict counts in the acceptance run only
EVERY=1 CROP=128
[ "$STEPS" -lt 100 ] && EVERY=3 CROP=64

# every eighth number is held out with its truth; of the others the even ones give rainy pictures, the odd ones dry ones,
# so that no scene stands on both sides
mkdir -p "$T/rainy" "$T/dry" "$T/pairs/rainy" "$T/pairs/clean"
i=0
for f in "$DATA"/train/Rain800/rainy/*; do
    n=$(basename "$f") k=$((i / EVERY))
    if [ $((i % EVERY)) = 0 ]; then
        case $((k % 8)) in
        3) cp "$f" "$T/pairs/rainy/"; cp "$DATA/train/Rain800/clean/$n" "$T/pairs/clean/" ;;
        0|2|4|6) cp "$f" "$T/rainy/" ;;
        *) cp "$DATA/train/Rain800/clean/$n" "$T/dry/" ;;
        esac
    fi
    i=$((i + 1))
done
traffic=$(ls "$DATA"/real/spa_*.png | head -5)

derain() { "$B/derain" "$@"; }
metric() { curl -s "$U/metrics" | sed -n "s/^$1 //p"; }
up() { start --model models/derain.safetensors --threads 2 "$@" && export DERAIN_URL="$U"; }
job_of() { grep -o 'job_[0-9A-Z]*' "$1" | head -1; }
gate_of() { http "$U/v1/jobs/$1/events?after=0&limit=1000"; grep -o '"type":"gate","data":{.*' "$T/body" | sed 's/,{"seq".*//'; }

trained() { # beside the traffic
    (
        k=0
        while [ ! -e "$T/stop" ]; do
            t0=$(date +%s%N)
            f=$(echo "$traffic" | sed -n "$((k % 5 + 1))p")
            if derain put "$f" -o "$T/out.png" --force --quiet 2>>"$T/failed"; then r=ok; else r=failed; fi
            t=$(($(date +%s%N) - t0))
            echo "$r $((t / 1000000))" >>"$T/puts"
            k=$((k + 1))
            [ $t -lt 1000000000 ] && sleep "$(awk "BEGIN { print (1000000000 - $t) / 1e9 }")"
        done
    ) &
    client=$!
    derain train --rainy "$T/rainy" --clean "$T/dry" --paired "$T/pairs" --name acceptance --set-aside --steps "$STEPS" --crop $CROP \
        --set lr=1e-4 --set gate.make_default=true --set sample_every=$((STEPS / 3)) --eval-every $((STEPS / 3)) --follow >"$T/log.train" 2>"$T/err.train"
    rc=$?
    touch "$T/stop"; wait $client
    job=$(job_of "$T/err.train")
    [ $rc = 0 ] || { tail -5 "$T/log.train" "$T/err.train"; return 1; }
    grep -q '^[-0-9: ]*gate: ' "$T/log.train"
}
no_picture_failed() {
    ok=$(grep -c '^ok' "$T/puts"); bad=$(grep -c '^failed' "$T/puts")
    cut -d' ' -f2 "$T/puts" | sort -n >"$T/ms"
    at() { sed -n "$((($(wc -l <"$T/ms") * $1 + 99) / 100))p" "$T/ms"; }
    echo "# $ok pictures beside $STEPS steps, $bad failed; a whole derain put took $(at 50) ms (median), $(at 99) ms (99 %)" >>"$T/summary"
    [ "$bad" = 0 ] && [ "$ok" -gt 0 ] || { cat "$T/failed"; return 1; }
}
waits_are_short() { # the histogram's 99th percentile is below 0.4 s
    curl -s "$U/metrics" >"$T/metrics"
    all=$(sed -n 's/^derain_training_yield_seconds_count //p' "$T/metrics")
    p99=$(sed -n 's/^derain_training_yield_seconds_bucket{le="\([0-9.]*\)"} \([0-9]*\)/\1 \2/p' "$T/metrics" |
        awk -v all="$all" '$2 >= 0.99 * all { print $1; exit }')
    echo "# $all of them found the training in an op; 99 % of these waited for it less than $p99 s" >>"$T/summary"
    [ -n "$p99" ] && awk "BEGIN { exit !($p99 <= 0.4) }"
}
shown() { # curves and samples are there
    http "$U/v1/jobs/$job/curves.svg"
    [ "$code" = 200 ] && [ "$(grep -o '<polyline' "$T/body" | wc -l)" -ge 8 ] || { echo "curves: $code"; return 1; }
    [ -z "$KEEP" ] || cp "$T/body" "$KEEP/curves.svg"
    for s in $((STEPS / 3)) "$STEPS"; do
        http "$U/v1/jobs/$job/samples/$s.png"
        [ "$code" = 200 ] && [ "$(head -c 4 "$T/body" | od -An -tx1 | tr -d ' ')" = 89504e47 ] || { echo "sample $s: $code"; return 1; }
        [ -z "$KEEP" ] || cp "$T/body" "$KEEP/sample-$s.png"
    done
    http -H 'Accept: text/csv' "$U/v1/jobs/$job/metrics"
    [ "$code" = 200 ] && head -1 "$T/body" | grep -q transplant || return 1
    [ -z "$KEEP" ] || cp "$T/body" "$KEEP/metrics.csv"
}
verdict_helps() { # a few steps prove nothing; 300 make it better on pictures that were held out
    grep -A8 'gate: ' "$T/log.train" | sed 's/^/# /' >>"$T/summary"
    [ -z "$KEEP" ] || cp "$T/log.train" "$KEEP/events.txt"
    [ "$STEPS" -lt 100 ] && return 0
    gate_of "$job" | grep -q '"verdict":"accepted"' && derain models | grep -q 'derain *2 .*default'
}
verdict_identity() { # nets that learn nothing: the generator stands still and takes no rain off
    "$B/deraind" model init --ngf 16 --blocks 5 --residual 1 --seed 3 "$T/identity.safetensors" >/dev/null || return 1
    http --data-binary "@$T/identity.safetensors" "$U/v1/models/nothing/versions"
    [ "$code" = 201 ] || { cat "$T/body"; return 1; }
    set=$(sed -n 's/^\(ds_[^:]*\):.*/\1/p' "$T/err.train")
    derain train --dataset "$set" --parent nothing/1 --steps 2 --crop 64 --set warmup=2 --follow >"$T/log.identity" 2>"$T/err.identity" || { cat "$T/err.identity"; return 1; }
    gate_of "$(job_of "$T/err.identity")" >"$T/gate"
    grep -A8 'gate: ' "$T/log.identity" | sed 's/^/# /' >>"$T/summary"
    [ -z "$KEEP" ] || cp "$T/gate" "$KEEP/gate-identity.json"
    grep -q '"verdict":"rejected"' "$T/gate" && grep -q '"name":"rain","ok":false' "$T/gate" && ! grep -q '"name":"clean","ok":false' "$T/gate"
}
verdict_blurs() { # a generator that paints the whole picture anew and has only learned to repeat it: a blurred copy
    derain train --dataset "$set" --parent none --preset released --steps $((STEPS * 2)) --crop 64 --set ngf=16 --set blocks=5 --set ndf=16 \
        --set w_gan=0 --set w_nce=0 --set lr=2e-3 --set sample_every="$STEPS" --follow >"$T/log.blurs" 2>"$T/err.blurs" ||
        { cat "$T/err.blurs"; return 1; }
    blurs=$(job_of "$T/err.blurs")
    gate_of "$blurs" >"$T/gate"
    grep -A9 'gate: ' "$T/log.blurs" | sed 's/^/# /' >>"$T/summary"
    [ -z "$KEEP" ] || { cp "$T/gate" "$KEEP/gate-blurs.json"; curl -s "$U/v1/jobs/$blurs/samples/$((STEPS * 2)).png" >"$KEEP/sample-blurs.png"; }
    grep -q '"verdict":"rejected"' "$T/gate" && grep -q '"name":"clean","ok":false' "$T/gate"
}
without_pairs() { # pairs are made of what is held out, and the gate looks at them
    derain train --rainy "$T/rainy" --clean "$T/dry" --set-aside --steps "$STEPS" --crop 64 --eval-every $((STEPS / 3)) --follow \
        >"$T/log.alone" 2>"$T/err.alone" || { tail -5 "$T/log.alone" "$T/err.alone"; return 1; }
    grep -q 'pairs made of held-out pictures' "$T/log.alone" && [ "$(grep -c 'evaluation of step' "$T/log.alone")" -ge 2 ] || { cat "$T/log.alone"; return 1; }
    gate_of "$(job_of "$T/err.alone")" >"$T/gate"
    grep -A9 'gate: ' "$T/log.alone" | sed 's/^/# /' >>"$T/summary"
    [ -z "$KEEP" ] || cp "$T/log.alone" "$KEEP/events-without-pairs.txt"
    grep -q '"name":"transplant","ok":true' "$T/gate" && grep -q '"name":"detail","ok":true' "$T/gate"
}
check daemon_comes_up up
check a_training_beside_traffic trained
check no_picture_failed no_picture_failed
check waits_for_the_training_are_short waits_are_short
check curves_samples_and_metrics_are_there shown
check the_gate_over_a_run_that_helps verdict_helps
check the_gate_over_one_that_changed_nothing verdict_identity
check the_gate_over_one_that_blurs verdict_blurs
check a_training_without_pairs without_pairs
check daemon_ends_in_order stop
cat "$T/summary"
exit $failed
