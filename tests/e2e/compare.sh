#!/bin/sh
# compare.sh - versions of models over pictures, with the real daemon and client: equal versions, a version that does
# nothing, a harmed one, a damaged picture, requests beside it, cancel, kill -9 in the middle, and nothing left afterwards.
. tests/e2e/lib.inc
need curl
prepare
WORK=$PWD
case $B in /*) ;; *) B=$PWD/$B ;; esac
export XDG_CONFIG_HOME="$T"
"$B/deraind" model init --ngf 16 --blocks 1 --residual 3 --name idle "$T/idle.safetensors" >/dev/null || exit 2
mkdir "$T/rain" "$T/dry" || exit 2
for i in 1 2 3 4 5 6 7; do
    mkpng 96 64 $((10 + i)) >"$T/rain/p$i.png"
    cp "$T/rain/p$i.png" "$T/dry/p$i.png" # its own truth: whatever changes a pixel is worse
done
start || { echo "not ok daemon_comes_up"; exit 1; }
NAME=$(curl -s "$U/v1/models" | sed 's/.*"items":\[{"name":"\([^"]*\)".*/\1/')
export DERAIN_URL=$U
derain() { "$B/derain" "$@" </dev/null; }
code() { want=$1; shift; "$@" >"$T/out" 2>"$T/err" </dev/null; got=$?; [ $got -eq "$want" ] || { echo "exit $got, not $want"; cat "$T/out" "$T/err"; return 1; }; }
says() { tr '\n' ' ' <"$T/out" | grep -q -- "$1" || # lines are wrapped
    { cat "$T/out" "$T/err"; return 1; }; }
err_says() { grep -q -- "$1" "$T/err" || { cat "$T/out" "$T/err"; return 1; }; }
is_png() { head -c 4 "$1" | od -An -c | grep -q 'P   N   G'; }
erases() { http -X DELETE "$1"; [ "$code" = 204 ] || { echo "$code"; cat "$T/body"; return 1; }; }

check one_version_alone_says_what_to_do code 4 derain compare "$T/rain"
check and_names_the_member err_says 'has only one version'
for m in model:copy idle:idle; do
    answers 201 '"version"' --data-binary "@$T/${m%:*}.safetensors" "$U/v1/models/${m#*:}/versions" || exit 1
done

# the same weights under two names
check equal_versions code 0 derain compare "$T/rain" --pairs "$T/dry" --versions "$NAME/1,copy/1" -o "$T/equal.png" --json
check equal_versions_p_is_1 sh -c "tr -d ' \n' <'$T/out' | grep -q '\"a\":\"copy/1\",\"b\":\"$NAME/1\",\"wins\":0,\"losses\":0,\"ties\":7,\"p\":1.0,\"psnr_y_gain\":0.0,\"rain_change\":0.0'"
check equal_versions_have_no_difference sh -c "[ \$(grep -c '\"spread\": 0.0' '$T/out') -eq 7 ]"
check equal_versions_conclusion says 'give the same pictures'
check the_sheet_is_a_png is_png "$T/equal.png"
check the_sheet_is_not_overwritten code 2 derain compare "$T/rain" --versions "$NAME/1,copy/1" -o "$T/equal.png"

# random weights against doing nothing, as a version and as the input itself
check harmed_version code 0 derain compare "$T/rain" --pairs "$T/dry" --versions "idle,$NAME" -o "$T/harmed.png"
check harmed_version_loses says "idle/1 is better than $NAME/1: on 7 of 7"
check harmed_version_is_worse_than_nothing says "$NAME/1 is worse than doing nothing"
check idle_version_is_nothing says 'idle/1 leaves all pictures as they are.'
check nothing_had_to_be_sent_again err_says '7 pictures, 0 files sent'
check three_versions code 0 derain compare "$T/rain/p1.png" "$T/rain/p2.png" --versions "idle,$NAME,copy" -o "$T/three.png"
check three_versions_without_truth says 'rests on the rain score'

# a picture that is damaged inside goes up and is a row with its problem; one that is none stays here
cp "$T/rain/p1.png" "$T/rain/damaged.png"
printf 'XXXX' | dd of="$T/rain/damaged.png" bs=1 seek=2000 conv=notrunc 2>/dev/null
echo "no picture" >"$T/rain/words.png"
check a_damaged_picture_among_good_ones code 1 derain compare "$T/rain" --versions "idle,$NAME" -o "$T/bad.png" --force
check the_others_were_compared says '1 picture could not be compared'
check its_problem_is_told err_says 'damaged.png: .*\[image_corrupt\]'
check what_is_no_picture_was_left_out err_says 'left out: .*words.png: .*unsupported_format'
check the_sheet_of_the_others is_png "$T/bad.png"
rm "$T/rain/damaged.png" "$T/rain/words.png"

# the other commands know such jobs
check async code 0 derain compare "$T/rain" --versions "idle,$NAME" --async --name nightly
id=$(cat "$T/out")
check watch code 0 derain watch "$id"
check watch_shows_the_table says 'idle/1 .*'
check get code 0 derain get "$id" -o "$T/got.png"
check get_gave_the_sheet is_png "$T/got.png"
check show code 0 derain show "$id"
check show_names_versions says "versions *idle/1, $NAME/1"
check jobs code 0 derain jobs --type compare --label name=nightly
check jobs_lists_it says "$id.*comparison, 7 pictures"
check cancel_of_an_ended_one code 0 derain cancel "$id"

# a data set
answers 201 '"id"' -H 'Content-Type: application/json' -d '{"name":"s"}' "$U/v1/datasets" || exit 1
SET=$(member id)
for part in paired/rainy:rain paired/clean:dry; do
    answers 201 '' -X PUT -H 'Content-Type: image/png' --data-binary "@$T/${part#*:}/p1.png" "$U/v1/datasets/$SET/${part%:*}/p1.png" || exit 1
done
answers 201 '' -X PUT -H 'Content-Type: image/png' --data-binary "@$T/b.png" "$U/v1/datasets/$SET/rainy/b.png" || exit 1
check from_a_data_set code 0 derain compare --dataset "$SET" --versions "idle,$NAME" -o "$T/set.png" --json
check from_a_data_set_pairs_and_rainy sh -c "grep -q '\"compared\": 2' '$T/out' && grep -q '\"with_clean\": 1' '$T/out' && grep -q '\"measure\": \"mixed\"' '$T/out'"
check the_set_may_go erases "$U/v1/datasets/$SET"

# a long one: a heavier network and larger pictures
"$B/deraind" model init --ngf 32 --blocks 6 --seed 3 "$T/heavy.safetensors" >/dev/null || exit 2
answers 201 '"version"' --data-binary "@$T/heavy.safetensors" "$U/v1/models/heavy/versions" || exit 1
mkdir "$T/many"
for i in $(seq 24); do mkpng 480 320 $((100 + i)) >"$T/many/m$i.png"; done
long() { code 0 derain compare "$T/many" --versions "idle,heavy" --async && id=$(cat "$T/out"); }
past() { # past JOB N: N of its pictures are done
    for _ in $(seq 600); do
        n=$(curl -s "$U/v1/jobs/$1/events" | grep -o '"type":"progress"' | wc -l)
        [ "$n" -ge "$2" ] && return 0
        sleep 0.1
    done
    return 1
}
state() { curl -s "$U/v1/jobs/$id" | sed 's/.*"state":"\([^"]*\)".*/\1/'; }
check long_one long
check long_one_runs past "$id" 2
beside() {
    for _ in 1 2 3; do
        curl -s -m 30 -o "$T/o.png" --data-binary "@$T/a.png" "$U/v1/derain" && is_png "$T/o.png" || return 1
    done
    s=$(state)
    [ "$s" = running ] || { echo "the comparison is $s"; return 1; }
}
check requests_are_answered_while_it_runs beside
check its_report_is_not_there_yet answers 409 not_ready "$U/v1/jobs/$id/report"
check cancel code 0 derain cancel "$id"
check cancelled code 1 derain watch "$id"
check cancelled_it_says says 'state *cancelled'
no_files() { [ ! -e "$T/data/results/$id" ] && [ ! -e "$T/data/results/$id.json" ]; }
check cancelled_leaves_no_files no_files

# beside a training, which stands still for it and goes on
check a_training code 0 derain train --rainy "$T/rain" --clean "$T/many" --parent none --crop 64 --batch 1 --steps 100000 --threads 1
train=$(cat "$T/out")
step() { curl -s "$U/v1/jobs/$train" | sed 's/.*"step":\([0-9]*\).*/\1/'; }
steps_past() { for _ in $(seq 600); do [ "$(step)" -gt "$1" ] && return 0; sleep 0.1; done; curl -s "$U/v1/jobs/$train"; return 1; }
check the_training_runs steps_past 0
check a_comparison_beside_it code 0 derain compare "$T/rain" --versions "idle,heavy" -o "$T/beside.png"
check the_training_goes_on steps_past "$(step)"
check the_training_is_cancelled code 0 derain cancel "$train"
train_ended() { code 1 derain watch "$train"; }
check the_training_ends train_ended
SET=$(curl -s "$U/v1/jobs/$train" | sed 's/.*"dataset":"\(ds_[^"]*\)".*/\1/')
check its_set_may_go erases "$U/v1/datasets/$SET"

check another_long_one long
check it_runs past "$id" 3
kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null; DAEMON=
start || { echo "not ok daemon_comes_up_after_a_kill"; exit 1; }
export DERAIN_URL=$U
check it_runs_again past "$id" 5
check sigterm_puts_it_back stop
start || { echo "not ok daemon_comes_up_after_a_stop"; exit 1; }
export DERAIN_URL=$U
check done_after_all code 0 derain watch "$id"
check with_all_pictures says 'idle/1'
one_result() { [ "$(ls "$T/data/results" | grep -c "^$id")" -eq 2 ] && ! ls "$T/data/results" | grep -q tmp; }
check one_result one_result
whole() {
    answers 200 '"compared":24' "$U/v1/jobs/$id/report" &&
        http "$U/v1/jobs/$id/result" && [ "$(sha256sum <"$T/body" | cut -c1-64)" = "$(header ETag | tr -d '"')" ]
}
check report_and_sheet_are_whole whole

# erased: files, references, and with them the blobs' protection
SHA=$(sha256sum <"$T/many/m1.png" | cut -c1-64)
check its_blobs_are_held answers 409 blob_in_use -X DELETE "$U/v1/blobs/$SHA"
for j in $(curl -s "$U/v1/jobs?type=compare&limit=100" | grep -o '"id":"job_[^"]*"' | cut -d'"' -f4); do
    http -X DELETE "$U/v1/jobs/$j"
    [ "$code" = 204 ] || { echo "not ok erase $j: $code"; failed=1; }
done
nothing_left() {
    for _ in $(seq 50); do
        left=$(find "$T/data/results" -name '*.json')
        [ -z "$left" ] && [ ! -e "$T/data/results/$id" ] && return 0
        sleep 0.1
    done
    ls "$T/data/results"
    return 1
}
check no_file_is_left nothing_left
check no_blob_is_held erases "$U/v1/blobs/$SHA"
free() { for f in "$T"/rain/*.png; do erases "$U/v1/blobs/$(sha256sum <"$f" | cut -c1-64)" || return 1; done; }
check none_at_all free
check daemon_ends_with_0 stop
cd "$WORK" || exit 1
exit $failed
