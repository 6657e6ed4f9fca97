#!/bin/bash
# kills.sh [ROUNDS] - kill -9 in every phase of a training's life: while its data set is validated, while it trains, while it
# writes a checkpoint, and while the gate judges what came out. Whatever was killed, the job goes on by itself and ends with the
# bits, the version and the verdict of an undisturbed run, and nothing is left on the disk that no row names.
# make test kills once in each; 30 are the acceptance run.
. "$(dirname "$0")/lib.inc"
need curl
ROUNDS=${1:-${ROUNDS:-4}}
prepare
"$B/deraind" model init --ngf 16 --blocks 5 --residual 1 --seed 7 "$T/model.safetensors" >/dev/null || exit 2
# how often each phase is hit: a share of the rounds, at least once
share() { n=$((ROUNDS * $1 / 10)); [ $n -gt 0 ] || n=1; echo $n; }
IN_VALIDATION=$(share 2) IN_STEPS=$(share 3) IN_CHECKPOINT=$(share 2) IN_GATE=$(share 3)
STEPS=$((ROUNDS * 6 > 40 ? ROUNDS * 6 : 40))
N=$((40 + ROUNDS * 5)) # pictures of each side: more kills need a longer validation

mkdir -p "$T/set/rainy" "$T/set/clean" "$T/set/paired/rainy" "$T/set/paired/clean"
for i in $(seq $N); do
    mkpng 160 120 "$i" 3 scene >"$T/set/rainy/$i.png"
    mkpng 160 120 $((i + 1000)) 3 scene >"$T/set/clean/$i.png"
done
for i in $(seq 12); do
    mkpng 320 240 $((i + 2000)) 3 scene >"$T/set/paired/rainy/$i.png"
    mkpng 320 240 $((i + 3000)) 3 scene >"$T/set/paired/clean/$i.png"
done
tar -C "$T/set" -cf "$T/set.tar" rainy clean paired

state() { http "$U/v1/jobs/$job"; member state; }
hand_in() { # a set that is not validated yet and a training on it: ids in $set and $job
    http --data-binary "@$T/set.tar" "$U/v1/datasets"
    set=$(member id)
    [ "$code" = 201 ] || { echo "set: $code"; head -c 300 "$T/body"; return 1; }
    http -d '' "$U/v1/datasets/$set/seal"
    [ "$code" = 202 ] || { echo "seal: $code"; return 1; }
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",\"crop\":64,\"ndf\":16,\"threads\":1,\"seed\":3,
        \"steps\":$STEPS,\"save_every\":5,\"eval_every\":$((STEPS / 2))}" "$U/v1/jobs"
    job=$(member id)
    [ "$code" = 201 ] && [ "$(member state)" = validating ] || { echo "job: $code"; head -c 300 "$T/body"; return 1; }
}
ends_well() {
    for _ in $(seq 3000); do
        s=$(state)
        [ "$s" = succeeded ] && return 0
        case $s in failed|cancelled) break ;; esac
        sleep 0.1
    done
    echo "$job is $s"; head -c 900 "$T/body"; return 1
}
# what came out: bits of the weights, the version's row without ids and times, the gate's words
outcome() {
    for f in latest best train; do sha256sum <"$1/training/$job/$f.safetensors" || return 1; done
    http "$U/v1/models/derain/versions/2"
    [ "$code" = 200 ] || { echo "no version 2: $code"; return 1; }
    grep -o '"sha256":"[0-9a-f]*"' "$T/body"
    grep -o '"gate":{.*}' "$T/body" | sed 's/"\(dataset\|job\)":"[^"]*"//g'
    http "$U/v1/models"
    grep -o '"version":[0-9]*' "$T/body" | sort
}

unbroken() { start --data "$T/ref" && hand_in && ends_well && outcome "$T/ref" >"$T/want" && stop && grep -q verdict "$T/want"; }

# --- kills: each waits for its phase, then for a moment in it ---
killed() { # killed PHASE: now
    echo "$1" >>"$T/kills"
    kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null; DAEMON=
    start --job-attempts-max 100
}
moment() { sleep "0.$(printf %03d $((RANDOM % $1)))"; }
rank() { case $1 in validating) echo 0 ;; queued|running|yielding) echo 1 ;; evaluating|gated) echo 2 ;; *) echo 3 ;; esac; }
until_in() { # until_in STATE: false when the job is past it
    [ -n "$DAEMON" ] && [ -n "$job" ] || return 1
    for _ in $(seq 3000); do
        s=$(state)
        [ "$s" = "$1" ] || { [ "$1" = evaluating ] && [ "$s" = gated ]; } && return 0
        [ "$(rank "$s")" -gt "$(rank "$1")" ] && return 1
        sleep 0.02
    done
    return 1
}
writing() { # until a checkpoint is being written
    for _ in $(seq 4000); do
        [ -n "$(find "$T/data/training/$job" -maxdepth 1 -name 'step_*.tmp-*' 2>/dev/null)" ] && return 0
        sleep 0.003
    done
    return 1
}
in_validation() {
    for _ in $(seq "$IN_VALIDATION"); do until_in validating || break; moment 250; killed validation || return 1; done
    [ -s "$T/kills" ]
}
in_steps() {
    for _ in $(seq "$IN_STEPS"); do until_in running || return 1; moment 700; killed "steps" || return 1; done
}
in_checkpoint() {
    for _ in $(seq "$IN_CHECKPOINT"); do until_in running && writing || return 1; killed checkpoint || return 1; done
}
in_gate() { # at its beginning the last evaluation and the export, then the gate
    for _ in $(seq "$IN_GATE"); do until_in evaluating || return 1; moment 900; killed gate || return 1; done
}
same_outcome() { ends_well && outcome "$T/data" >"$T/got" && { cmp "$T/want" "$T/got" || diff "$T/want" "$T/got"; }; }

# --- nothing on the disk without a row ---
orphans() {
    find "$T/data" -name '*.tmp*' -o -name 'tmp.*' | grep . && return 1
    [ -z "$(find "$T/data/spool" "$T/data/blobs/tmp" -type f)" ] || { find "$T/data/spool" "$T/data/blobs/tmp" -type f; return 1; }
    http "$U/v1/models"
    [ "$(ls "$T/data/models/derain" | sort | tr '\n' ' ')" = "2 " ] || { ls -R "$T/data/models"; return 1; }
    [ "$(ls "$T/data/training")" = "$job" ] || { ls "$T/data/training"; return 1; }
    [ "$(ls "$T/data/datasets" | sed 's/[.].*//' | sort -u)" = "$set" ] || { ls "$T/data/datasets"; return 1; }
    [ "$(find "$T/data/blobs" -type f | wc -l)" = $((2 * N + 24)) ] || { find "$T/data/blobs" -type f | wc -l; return 1; }
    http "$U/v1/jobs/$job/checkpoints"
    for f in "$T/data/training/$job"/step_*; do
        step=$(basename "$f" .safetensors | sed 's/step_0*//')
        grep -q "\"step\":$step," "$T/body" || { echo "no row for $f"; return 1; }
    done
    http "$U/v1/jobs/$job/events?limit=1000"
    [ "$(grep -o '"type":"end"' "$T/body" | wc -l)" = 1 ] || { echo "not one end"; return 1; }
}
erased() { # and what is erased goes whole
    http -X DELETE "$U/v1/jobs/$job"
    [ "$code" = 204 ] || return 1
    http -X DELETE "$U/v1/datasets/$set"
    [ "$code" = 204 ] || { echo "set: $code"; cat "$T/body"; return 1; }
    for _ in $(seq 300); do
        [ -z "$(ls "$T/data/training" "$T/data/datasets" | grep _)" ] && return 0
        sleep 0.1
    done
    ls "$T/data/training" "$T/data/datasets"; return 1
}
in_made_pairs() { # a set without pairs gets some before the first step: whole ones, whatever happens meanwhile
    tar -C "$T/set" -cf "$T/alone.tar" rainy clean
    http --data-binary "@$T/alone.tar" "$U/v1/datasets"
    set=$(member id)
    http -d '' "$U/v1/datasets/$set/seal"
    http "$U/v1/datasets/$set?wait=60"
    grep -q '"state":"ready"' "$T/body" || { head -c 300 "$T/body"; return 1; }
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",\"crop\":64,\"ndf\":16,\"threads\":1,\"steps\":8,\"eval_every\":4}" "$U/v1/jobs"
    job=$(member id)
    for _ in $(seq 4000); do [ -d "$T/data/training/$job/made.tmp" ] && break; sleep 0.003; done
    [ ! -d "$T/data/training/$job/made" ] || { echo "it was too quick to be killed"; return 1; }
    killed pairs && ends_well || return 1
    n=$((N / 10))
    [ ! -e "$T/data/training/$job/made.tmp" ] && [ "$(ls "$T/data/training/$job/made/rainy" | wc -l)" = $n ] &&
        [ "$(ls "$T/data/training/$job/made/clean" | wc -l)" = $n ] || { ls -R "$T/data/training/$job"; return 1; }
    http "$U/v1/jobs/$job/events?limit=1000"
    grep -q '"name":"transplant","ok":' "$T/body"
}
disturbed() { start --job-attempts-max 100 && hand_in; }

check an_undisturbed_run unbroken
check the_same_again_to_be_disturbed disturbed
check killed_while_validating in_validation
check killed_between_and_in_steps in_steps
check killed_while_writing_a_checkpoint in_checkpoint
check killed_in_the_gate in_gate
check it_ends_with_the_same_bits_version_and_verdict same_outcome
[ -f "$T/kills" ] && sort "$T/kills" | uniq -c | sed 's/^ */# killed in /; s/in \([0-9]*\) \(.*\)/in \2: \1/'
check nothing_is_on_the_disk_that_no_row_names orphans
check what_is_erased_goes_whole erased
check killed_while_pairs_are_made in_made_pairs
check daemon_ends_in_order stop
exit $failed
