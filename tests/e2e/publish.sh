#!/bin/bash
# publish.sh - checkpoints that become versions, with the real programs: of a training that runs, is paused, has ended; the
# bytes against the training's own files; twice the same; what is not there; kill -9 in between.
. "$(dirname "$0")/lib.inc"
need curl
ROUNDS=${1:-${ROUNDS:-5}}
prepare
"$B/deraind" model init --ngf 16 --blocks 5 --seed 7 "$T/model.safetensors" >/dev/null || exit 2
derain() { "$B/derain" "$@"; }
mkdir -p "$T/wet" "$T/dry" "$T/pairs/rainy" "$T/pairs/clean"
for i in 1 2 3; do
    mkpng $((80 + 8 * i)) 96 "$i" >"$T/wet/$i.png"
    mkpng 96 $((80 + 8 * i)) $((i + 20)) >"$T/dry/$i.png"
done
mkpng 64 72 41 >"$T/pairs/rainy/1.png"
mkpng 64 72 61 >"$T/pairs/clean/1.png"
up() { start --job-attempts-max 100 "$@" && export DERAIN_URL="$U"; }
state() { http "$U/v1/jobs/$1"; member state; }
wait_for() { # wait_for ID STATE
    for _ in $(seq 900); do
        s=$(state "$1")
        [ "$s" = "$2" ] && return 0
        case $s in failed|cancelled|succeeded) break ;; esac
        sleep 0.1
    done
    echo "$1 is $s, not $2:"; head -c 900 "$T/body"; return 1
}
train() { # train MEMBERS; its id in $job
    http -H 'Content-Type: application/json' -d "{\"type\":\"train\",\"dataset\":\"$set\",\"crop\":64,\"ndf\":16,\"threads\":1,\"seed\":3,$1}" "$U/v1/jobs"
    job=$(member id)
    [ "$code" = 201 ] || { cat "$T/body"; return 1; }
}
steps() { http "$U/v1/jobs/$1/checkpoints"; grep -o '"step":[0-9]*' "$T/body" | cut -d: -f2; }
wait_step() { # until the checkpoint of the step is there
    for _ in $(seq 2400); do steps "$1" | grep -qx "$2" && return 0; sleep 0.05; done
    echo "no checkpoint of step $2"; cat "$T/body"; return 1
}
publish() { http -X POST -H 'Content-Type: application/json' -d "${3:-{\}}" "$U/v1/jobs/$1/checkpoints/$2/publish"; version=$(grep -o '"version":[0-9]*' "$T/body" | head -1 | cut -d: -f2); }
versions() { http "$U/v1/models/$NAME"; curl -s "$U/v1/models" | grep -o '"version":[0-9]*' | wc -l; }
weights() { curl -s "$U/v1/models/$NAME/versions/$1/weights" | sha256sum; }
sum() { sha256sum <"$1"; }

of_a_running_one() { # the job goes on meanwhile; the version says where it comes from
    up || return 1
    NAME=$(curl -s "$U/v1/models" | sed 's/.*"items":\[{"name":"\([^"]*\)".*/\1/')
    derain train --rainy "$T/wet" --clean "$T/dry" --paired "$T/pairs" --set-aside --steps 1 --crop 64 --follow >"$T/out" 2>"$T/err" || { cat "$T/err"; return 1; }
    set=$(sed -n 's/^\(ds_[^:]*\):.*/\1/p' "$T/err")
    train '"steps":100000,"save_every":3,"eval_every":3,"early_stop":0' && wait_step "$job" 3 || return 1
    running=$job
    for _ in $(seq 100); do steps "$job" >/dev/null; grep -q '"step":3,[^}]*"psnr_y":[0-9]' "$T/body" && break; sleep 0.02; done
    publish "$job" 3 '{"reason":"looks good"}'
    [ "$code" = 201 ] && [ "$(header Location)" = "/v1/models/$NAME/versions/$version" ] || { cat "$T/body"; return 1; }
    for m in '"origin":"trained"' '"verdict":null' "\"job\":\"$job\"" "\"dataset\":\"$set\"" '"parent":1' '"trainable":true' '"step":3' '"psnr_y":' '"default":false'; do
        grep -q "$m" "$T/body" || { echo "no $m"; cat "$T/body"; return 1; }
    done
    three=$version
    curl -s "$U/v1/models/$NAME/versions/$three/card" | grep -q 'looks good' && [ "$(state "$job")" = running ]
}
twice_the_same() { # also when the checkpoint itself has gone
    n=$(versions)
    publish "$running" 3
    [ "$code" = 200 ] && [ "$version" = "$three" ] && [ "$(versions)" = "$n" ] || { cat "$T/body"; return 1; }
    for _ in $(seq 600); do s=$(steps "$running" | sort -n | tail -1); [ "$s" -gt 3 ] && break; sleep 0.1; done
    publish "$running" "$s"; [ "$code" = 201 ] || { cat "$T/body"; return 1; }
    v=$version
    wait_step "$running" $((s + 12)) && ! steps "$running" | grep -qx "$s" || { echo "step $s is still there"; return 1; }
    publish "$running" "$s"
    [ "$code" = 200 ] && [ "$version" = "$v" ] || { cat "$T/body"; return 1; }
}
not_there() { # 404 with the steps that are there
    publish "$running" 4
    [ "$code" = 404 ] && grep -q checkpoint_not_found "$T/body" || { cat "$T/body"; return 1; }
    http -X POST -d '' "$U/v1/jobs/$running/pause"; wait_for "$running" paused || return 1
    for s in $(steps "$running"); do
        publish "$running" 4
        grep -q "those of steps.*[ ,]$s[,\"]" "$T/body" || { echo "step $s is not named"; cat "$T/body"; return 1; }
    done
    for s in 0 x -1 99999999999999999999; do publish "$running" $s; [ "$code" = 404 ] || return 1; done
    publish "$running" 4 '{"name":"x"}'; [ "$code" = 422 ] || return 1
    publish job_01ARZ3NDEKTSV4RRFFQ69G5FAV 3; [ "$code" = 404 ] && grep -q job_not_found "$T/body"
}
of_a_paused_one_and_damaged() { # the newest; then a file that another program has cut
    last=$(steps "$running" | sort -n | tail -1)
    publish "$running" "$last"; [ "$code" = 201 ] || { cat "$T/body"; return 1; }
    before=$(steps "$running" | sort -n | tail -2 | head -1)
    f=$(printf '%s/data/training/%s/step_%09d.safetensors' "$T" "$running" "$before")
    n=$(versions); truncate -s -100 "$f"
    publish "$running" "$before"
    [ "$code" = 409 ] && grep -q checkpoint_unusable "$T/body" && [ "$(versions)" = "$n" ] || { cat "$T/body"; return 1; }
    rm "$f"; publish "$running" "$before"
    [ "$code" = 404 ] && [ "$(versions)" = "$n" ] && [ -z "$(ls -A "$T/data/models" | grep -v "^$NAME\$")" ]
}
same_bytes_as_an_unbroken_run() { # of a step on the way: published live and by another job that is asked afterwards
    train '"steps":24,"save_every":3,"eval_every":1000' && wait_step "$job" 3 || return 1
    a=$job; publish "$a" 3; [ "$code" = 201 ] || { cat "$T/body"; return 1; }
    live=$version; wait_for "$a" succeeded || return 1
    publish "$a" 24; [ "$code" = 201 ] || { cat "$T/body"; return 1; }
    cmp "$T/data/models/$NAME/$version/model.safetensors" "$T/data/training/$a/latest.safetensors" &&
        cmp "$T/data/models/$NAME/$version/train.safetensors" "$T/data/training/$a/train.safetensors" || return 1
    end=$version
    http "$U/v1/jobs/$a"; made=$(grep -o '"made":{[^}]*\|"version":[0-9]*' "$T/body" | tail -1)
    train '"steps":24,"save_every":3,"eval_every":1000' && wait_step "$job" 3 || return 1
    derain pause "$job" 2>/dev/null; wait_for "$job" paused || return 1
    if steps "$job" | grep -qx 3; then
        publish "$job" 3; [ "$code" = 201 ] || { cat "$T/body"; return 1; }
        [ "$(weights "$version")" = "$(weights "$live")" ] || { echo "other bytes"; return 1; }
    fi
    derain cancel "$job" 2>/dev/null; wait_for "$job" cancelled
}
its_own_version_is_another() { # what the job makes at its end is not one of those that were published
    http "$U/v1/jobs/$a/events"
    own=$(grep -o 'the weights are version [0-9]*' "$T/body" | grep -o '[0-9]*$')
    [ -n "$own" ] && [ "$own" != "$live" ] && [ "$own" != "$end" ] || { echo "own $own, live $live, end $end"; return 1; }
}
goes_on_from_it() { # all six nets
    train "\"parent\":\"$NAME/$live\",\"steps\":1" && wait_for "$job" succeeded || return 1
    http "$U/v1/jobs/$job/events"; grep -q 'starts from 6 nets' "$T/body"
}
client_chooses() { # the best, named by the list; again it is the same
    best=$(curl -s "$U/v1/jobs/$running/checkpoints" | grep -o '"step":[0-9]*,[^}]*"best":true' | grep -o '^"step":[0-9]*' | cut -d: -f2)
    derain publish "$running" --reason 'the best' >"$T/out" 2>"$T/err" || { cat "$T/err"; return 1; }
    v=$(sed -n "s/^$NAME version //p" "$T/out")
    curl -s "$U/v1/models/$NAME/versions/$v" | grep -q "\"step\":$best[,}]" || { cat "$T/out"; return 1; }
    [ "$(derain publish "$running" "$best" 2>"$T/err")" = "$(cat "$T/out")" ] && grep -q before "$T/err" || return 1
    derain publish "$running" 4 >/dev/null 2>"$T/err"; [ $? = 4 ] && grep -q 'those of steps' "$T/err" || return 1
    derain publish "$running" x >/dev/null 2>&1; [ $? = 2 ]
}
killed() { # either a whole version or none; asked again there is one
    train '"steps":100000,"save_every":2,"eval_every":100000' && wait_step "$job" 2 || return 1
    hit=0
    for i in $(seq "$ROUNDS"); do
        s=$(steps "$job" | sort -n | tail -1)
        publish "$job" "$s" & p=$!
        sleep "0.0$(printf %02d $((RANDOM % 45)))"
        kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null; DAEMON=; wait $p
        up || return 1
        left=$(ls -A "$T/data/models" | grep -v "^$NAME\$"); [ -z "$left" ] || { echo "staged: $left"; return 1; }
        for v in $(ls "$T/data/models/$NAME"); do
            http "$U/v1/models/$NAME/versions/$v"; [ "$code" = 200 ] || { echo "version $v has files and no row"; return 1; }
            [ -s "$T/data/models/$NAME/$v/model.safetensors" ] && [ -s "$T/data/models/$NAME/$v/train.safetensors" ] || { echo "half of $v"; return 1; }
        done
        publish "$job" "$s"
        [ "$code" = 200 ] && hit=$((hit + 1))
        [ "$code" = 200 ] || [ "$code" = 201 ] || [ "$code" = 404 ] || { cat "$T/body"; return 1; }
    done 2>>"$T/noise"
    echo "# killed $ROUNDS times, $hit of them after the row" >"$T/summary"
    http -X POST -d '' "$U/v1/jobs/$job/cancel"; stop
}
check a_checkpoint_of_a_running_training_becomes_a_version of_a_running_one
check twice_it_is_the_same_version twice_the_same
check a_step_that_is_not_there_names_those_that_are not_there
check paused_and_damaged of_a_paused_one_and_damaged
check the_bytes_are_those_of_the_training same_bytes_as_an_unbroken_run
check the_end_of_the_job_makes_its_own_version its_own_version_is_another
check another_training_goes_on_from_it goes_on_from_it
check the_client_takes_the_best client_chooses
check "killed_${ROUNDS}_times_no_half_version" killed
cat "$T/summary"
exit $failed
