#!/bin/bash
# datasets.sh [ROUNDS] - data sets as users meet them: archives made by tar and zip, pictures one by one and by content, every
# planted fault, and kill -9 at random moments of a validation. make test does 4 rounds of the last; 30 are the acceptance run.
. "$(dirname "$0")/lib.inc"
need curl
ROUNDS=${1:-${ROUNDS:-4}}
prepare

scene() { mkpng 64 48 "$1" 3 scene; }
good() { # good DIR N: N rainy, N clean and two pairs, all different
    mkdir -p "$1/rainy" "$1/clean" "$1/paired/rainy" "$1/paired/clean"
    for i in $(seq "$2"); do
        scene "$i" >"$1/rainy/r$i.png"
        scene $((i + 1000)) >"$1/clean/c$i.png"
    done
    for i in 1 2; do scene $((i + 2000)) >"$1/paired/rainy/p$i.png"; scene $((i + 3000)) >"$1/paired/clean/p$i.png"; done
}
pack() { tar -C "$1" -cf "$2" rainy clean paired; }
make_set() { # make_set FILE: sets id
    http --data-binary "@$1" "$U/v1/datasets"
    id=$(member id)
    [ "$code" = 201 ] || { echo "$code"; head -c 400 "$T/body"; return 1; }
}
validated() { # seal and wait; the set is in the body
    http -d "${1:-}" "$U/v1/datasets/$id/seal"
    [ "$code" = 202 ] || { echo "seal: $code"; head -c 300 "$T/body"; return 1; }
    http "$U/v1/datasets/$id?wait=60"
    [ "$code" = 200 ]
}
nothing_left() { # no draft, no upload
    for _ in $(seq 50); do
        [ -z "$(find "$T/data/blobs/tmp" "$T/data/spool" -type f)" ] && return 0
        sleep 0.1
    done
    find "$T/data/blobs/tmp" "$T/data/spool" -type f; return 1
}

good "$T/good" 6
formats() {
    pack "$T/good" "$T/good.tar"
    gzip -k "$T/good.tar"
    make_set "$T/good.tar.gz" && validated && grep -q '"state":"ready"' "$T/body" && grep -q '"files":16' "$T/body" || return 1
    answers 200 '"findings":\[\]' "$U/v1/datasets/$id/report" || return 1
    http "$U/v1/datasets/$id/contact-sheet.png"
    [ "$code" = 200 ] && [ "$(head -c 4 "$T/body" | od -An -tx1 | tr -d ' ')" = 89504e47 ] || return 1
    command -v zip >/dev/null || return 0
    (cd "$T/good" && zip -qr "$T/good.zip" rainy clean paired)
    make_set "$T/good.zip" && validated && grep -q '"state":"ready"' "$T/body"
}
one_by_one() { # and what is here already is not sent again
    http -d '{"name":"by hand"}' "$U/v1/datasets"
    id=$(member id)
    for f in rainy/r1.png clean/c1.png paired/rainy/p1.png; do
        sha=$(sha256sum <"$T/good/$f" | cut -d' ' -f1)
        http -I "$U/v1/blobs/$sha"
        [ "$code" = 200 ] || { echo "$f is not here: $code"; return 1; }
        http -X PUT -d "{\"blob\":\"$sha\"}" "$U/v1/datasets/$id/$f"
        [ "$code" = 201 ] || { echo "$f: $code"; return 1; }
    done
    http -T "$T/good/paired/clean/p1.png" "$U/v1/datasets/$id/paired/clean/"
    [ "$code" = 201 ] || { echo "put: $code"; cat "$T/body"; return 1; }
    scene 4000 >"$T/new.png"
    sha=$(sha256sum <"$T/new.png" | cut -d' ' -f1)
    http -I "$U/v1/blobs/$sha"
    [ "$code" = 404 ] || return 1
    http -T "$T/new.png" "$U/v1/blobs/$sha"
    [ "$code" = 201 ] || return 1
    http -X PUT -d "{\"blob\":\"$sha\"}" "$U/v1/datasets/$id/clean/new.png"
    [ "$code" = 201 ] && validated && grep -q '"state":"ready"' "$T/body"
}

found() { # found CODE GRADE FILE
    grep -q "{\"code\":\"$1\",\"grade\":\"$2\",\"file\":\"$3\"" "$T/body" && return 0
    echo "missing: $1 $2 $3"; return 1
}
planted() {
    cp -r "$T/good" "$T/bad"
    { head -c 3000 "$T/bad/rainy/r1.png"; printf X; tail -c +3002 "$T/bad/rainy/r1.png"; } >"$T/bad/rainy/corrupt.png"
    head -c 4000 "$T/bad/rainy/r2.png" >"$T/bad/rainy/cut.png"
    echo "no picture" >"$T/bad/clean/text.png"
    mkpng 64 48 5001 3 deep >"$T/bad/rainy/deep.png"
    mkpng 64 48 5002 1 scene >"$T/bad/clean/grey.png"
    cp "$T/bad/clean/c1.png" "$T/bad/clean/c1-again.png"
    mkpng 128 96 2 3 scene >"$T/bad/rainy/r2-near.png" # the same at twice the size
    cp "$T/bad/rainy/r3.png" "$T/bad/clean/r3.png"
    cp "$T/bad/paired/clean/p1.png" "$T/bad/clean/leak.png"
    cp "$T/new.png" "$T/bad/paired/rainy/alone.png"
    pack "$T/bad" "$T/bad.tar"
    make_set "$T/bad.tar" && validated && grep -q '"state":"rejected"' "$T/body" || return 1
    http "$U/v1/datasets/$id/report"
    found image_corrupt error rainy/corrupt.png && found image_corrupt error rainy/cut.png &&
        found unsupported_format error clean/text.png && found sixteen_bit note rainy/deep.png &&
        found grey warning clean/grey.png && found duplicate warning clean/c1.png &&
        found near_duplicate warning rainy/r2.png && found in_both_sets error clean/r3.png &&
        found holdout_leak error clean/leak.png && found no_partner error paired/rainy/alone.png || return 1
    grep -q '"findings_total":10,' "$T/body" || { echo "false alarms:"; cat "$T/body"; return 1; }
    make_set "$T/bad.tar" && validated '{"set_aside":true}' && grep -q '"state":"ready"' "$T/body"
}

rain_told() { # single suspects as notes with their scores; sets the wrong way round as a warning; means in the report
    mkdir -p "$T/rain/rainy" "$T/rain/clean"
    for i in $(seq 12); do mkpng 192 144 "$i" 3 rain >"$T/rain/rainy/r$i.png"; mkpng 192 144 $((i + 1000)) 3 scene >"$T/rain/clean/c$i.png"; done
    mkpng 192 144 7001 3 rain >"$T/rain/clean/wet.png"
    mkpng 192 144 7002 3 turned >"$T/rain/rainy/dry.png"
    tar -C "$T/rain" -cf "$T/rain.tar" rainy clean
    make_set "$T/rain.tar" && validated && grep -q '"state":"ready"' "$T/body" || return 1
    http "$U/v1/datasets/$id/report"
    found looks_rainy note clean/wet.png && found looks_dry note rainy/dry.png || { cat "$T/body"; return 1; }
    grep -q '"findings_total":2,' "$T/body" && grep -q '"code":"looks_rainy"[^}]*"score":[67-9][0-9.]*,"threshold":68' "$T/body" || { cat "$T/body"; return 1; }
    grep -q '"rain_score":{"count":13,"mean":[0-9.]*,"median":[0-9.]*}' "$T/body" || { cat "$T/body"; return 1; }
    mkdir "$T/turn" && mv "$T/rain/clean" "$T/turn/rainy" && mv "$T/rain/rainy" "$T/turn/clean"
    tar -C "$T/turn" -cf "$T/turn.tar" rainy clean
    make_set "$T/turn.tar" && validated && grep -q '"state":"ready"' "$T/body" || return 1
    http "$U/v1/datasets/$id/report"
    grep -q '{"code":"sets_look_swapped","grade":"warning","file":null' "$T/body" || { cat "$T/body"; return 1; }
    [ "$(grep -o '"code":"looks_rainy"' "$T/body" | wc -l)" = 5 ] || { echo "not the five most suspicious"; cat "$T/body"; return 1; }
}

# refused STATUS CODE TEXT FILE: and nothing of it is kept
refused() {
    before=$(find "$T/data/blobs" -type f | wc -l)
    sets=$(curl -s "$U/v1/datasets?limit=500" | sha256sum)
    answers "$1" "$2" --data-binary "@$4" "$U/v1/datasets" && grep -q -- "$3" "$T/body" || return 1
    nothing_left && [ "$before" = "$(find "$T/data/blobs" -type f | wc -l)" ] &&
        [ "$sets" = "$(curl -s "$U/v1/datasets?limit=500" | sha256sum)" ] || { echo "something was left"; return 1; }
}
hostile() {
    mkdir -p "$T/h/rainy" && cd "$T/h" || return 1
    cp "$T/good/rainy/r1.png" rainy/
    ln -s /etc/passwd rainy/link.png
    tar -cf "$T/link.tar" rainy
    rm rainy/link.png && ln rainy/r1.png rainy/r1-too.png
    tar -cf "$T/hard.tar" rainy
    rm rainy/r1-too.png && mkfifo rainy/pipe
    tar -cf "$T/pipe.tar" rainy
    rm rainy/pipe
    tar -P --transform 's,^rainy/r1,../../evil,' -cf "$T/dots.tar" rainy/r1.png
    tar -P --transform 's,^rainy/r1,/tmp/evil,' -cf "$T/abs.tar" rainy/r1.png
    tar --transform 's,^rainy/r1,else/evil,' -cf "$T/else.tar" rainy/r1.png
    head -c 60000000 /dev/zero >rainy/zero.png
    tar -czf "$T/bomb.tar.gz" rainy
    cd "$OLDPWD" || return 1
    refused 422 archive_entry "rainy/link.png': symbolic" "$T/link.tar" && refused 422 archive_entry 'hard links' "$T/hard.tar" &&
        refused 422 archive_entry 'only files and folders' "$T/pipe.tar" && refused 422 archive_entry "\.\./\.\./evil.png" "$T/dots.tar" &&
        refused 422 archive_entry 'absolute' "$T/abs.tar" && refused 422 archive_entry 'outside' "$T/else.tar" &&
        refused 413 archive_ratio_max 'rainy/zero.png' "$T/bomb.tar.gz" || return 1
    [ -z "$(find "$T" /tmp -maxdepth 1 -name 'evil*')" ] || return 1
    command -v zip >/dev/null || return 0
    (cd "$T/h" && zip -q "$T/bomb.zip" rainy/zero.png && rm rainy/zero.png && ln -s /etc/passwd rainy/link.png && zip -qy "$T/link.zip" rainy/link.png)
    refused 413 archive_ratio_max 'rainy/zero.png' "$T/bomb.zip" && refused 422 archive_entry 'symbolic' "$T/link.zip"
}
leaver() { # in the middle of an archive
    before=$(find "$T/data/blobs" -type f | wc -l)
    curl -s --limit-rate 20k --max-time 1 --data-binary "@$T/good.tar" "$U/v1/datasets" -o /dev/null
    nothing_left && [ "$before" = "$(find "$T/data/blobs" -type f | wc -l)" ]
}

check server_comes_up start
check tar_gz_and_zip_become_ready_sets formats
check pictures_one_by_one_and_by_content one_by_one
check planted_faults_are_found_and_no_others planted
check rain_on_the_wrong_side_is_told rain_told
check hostile_archives_are_refused_by_name hostile
check a_client_that_leaves_leaves_nothing leaver
check server_stops stop

# --- kill -9 while it validates ---
crashes() {
    good "$T/many" 120
    pack "$T/many" "$T/many.tar"
    start && make_set "$T/many.tar" || return 1
    http -d '' "$U/v1/datasets/$id/seal"
    [ "$code" = 202 ] || return 1
    for _ in $(seq "$ROUNDS"); do
        sleep "0.$((RANDOM % 300 + 10))"
        kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null
        start || return 1
    done
    http "$U/v1/datasets/$id?wait=100"
    grep -q '"state":"ready"' "$T/body" || { cat "$T/body"; return 1; }
    answers 200 '"findings":\[\]' "$U/v1/datasets/$id/report" || { grep -o '"findings":.*' "$T/body" | head -c 1500; return 1; }
    cp "$T/body" "$T/after-crashes"
    make_set "$T/many.tar" && validated || return 1 # an undisturbed one, from the facts that were stored, says the same
    http "$U/v1/datasets/$id/report"
    sed 's/ds_[0-9A-Z]*//' "$T/body" >"$T/want"
    sed 's/ds_[0-9A-Z]*//' "$T/after-crashes" | cmp - "$T/want" || return 1
    nothing_left && [ "$(find "$T/data/datasets" -name '*.tmp*' | wc -l)" = 0 ] && stop
}
check "kill_9_while_validating_${ROUNDS}_rounds" crashes
exit $failed
