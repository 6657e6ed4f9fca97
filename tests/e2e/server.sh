#!/bin/bash
# server.sh - the daemon as users meet it: the real engine behind a real socket, spoken to with curl.
. "$(dirname "$0")/lib.inc"
need curl
prepare

plain() {
    curl -sS --data-binary "@$T/a.png" "$U/v1/derain" -o "$T/out.png" || return 1
    [ "$(head -c 8 "$T/out.png" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || return 1
    "$B/deraind" run --backend cpu --model "$T/model.safetensors" "$T/a.png" "$T/ref.png" && cmp "$T/out.png" "$T/ref.png"
}
form() { curl -sS -F "image=@$T/a.png" "$U/v1/derain" -o "$T/form.png" && cmp "$T/form.png" "$T/out.png"; }
chunked() {
    curl -sS -H 'Transfer-Encoding: chunked' --data-binary "@$T/a.png" "$U/v1/derain" -o "$T/c.png" && cmp "$T/c.png" "$T/out.png"
}
jpeg() {
    http --data-binary "@$T/b.png" "$U/v1/derain?format=jpeg"
    [ "$code" = 200 ] && [ "$(header Content-Type)" = image/jpeg ] && cp "$T/body" "$T/b.jpg" || return 1
    http --data-binary "@$T/b.jpg" "$U/v1/derain"
    [ "$code" = 200 ] && [ "$(header Content-Type)" = image/png ]
}
async_and_poll() {
    http -H 'Prefer: respond-async' --data-binary "@$T/a.png" "$U/v1/derain"
    [ "$code" = 202 ] && [ -n "$(header Retry-After)" ] || return 1
    job=$(member id)
    [ "$(header Location)" = "/v1/jobs/$job" ] || return 1
    for _ in $(seq 100); do
        http "$U/v1/jobs/$job"
        [ "$code" = 200 ] || return 1
        [ "$(member state)" = succeeded ] && break
        sleep 0.1
    done
    http "$U/v1/jobs/$job/result"
    [ "$code" = 200 ] && cmp "$T/body" "$T/out.png"
}
wait_for_state() {
    http -H 'Prefer: respond-async' --data-binary "@$T/b.png" "$U/v1/derain"
    job=$(member id)
    http "$U/v1/jobs/$job?wait=30"
    [ "$code" = 200 ] && [ "$(member state)" = succeeded ] && [ "$(header ETag)" != "" ]
}
result_parts() { # of the job that wait_for_state left
    http "$U/v1/jobs/$job/result"
    cp "$T/body" "$T/whole"
    etag=$(header ETag)
    size=$(stat -c %s "$T/whole")
    [ "$etag" = "\"$(sha256sum <"$T/whole" | cut -d' ' -f1)\"" ] || { echo "etag $etag"; return 1; }
    digest=$(printf "$(sha256sum <"$T/whole" | cut -d' ' -f1 | sed 's/../\\x&/g')" | base64)
    [ "$(header Content-Digest)" = "sha-256=:$digest:" ] || { echo "digest"; return 1; }
    http -H 'Range: bytes=100-299' "$U/v1/jobs/$job/result"
    [ "$code" = 206 ] && [ "$(header Content-Range)" = "bytes 100-299/$size" ] || { echo "range $code"; return 1; }
    cmp "$T/body" <(tail -c +101 "$T/whole" | head -c 200) || return 1
    http -H 'Range: bytes=-10' "$U/v1/jobs/$job/result"
    [ "$code" = 206 ] && cmp "$T/body" <(tail -c 10 "$T/whole") || return 1
    http -H "Range: bytes=$size-" "$U/v1/jobs/$job/result"
    [ "$code" = 416 ] && [ "$(header Content-Range)" = "bytes */$size" ] || { echo "416: $code"; return 1; }
    http -H 'Range: bytes=0-0' -H 'If-Range: "other"' "$U/v1/jobs/$job/result"
    [ "$code" = 200 ] || return 1
    http -H "If-None-Match: $etag" "$U/v1/jobs/$job/result"
    [ "$code" = 304 ] && [ ! -s "$T/body" ] || { echo "304: $code"; return 1; }
    http -I "$U/v1/jobs/$job/result"
    [ "$code" = 200 ] && [ "$(header Content-Length)" = "$size" ]
}
job_not_modified() {
    http "$U/v1/jobs/$job"
    http -H "If-None-Match: $(header ETag)" "$U/v1/jobs/$job"
    [ "$code" = 304 ]
}
list() {
    http "$U/v1/jobs?limit=2"
    [ "$code" = 200 ] && [ "$(grep -o '"id":"job_' "$T/body" | wc -l)" = 2 ] || return 1
    first=$(member id)
    next=$(header Link | sed 's/<\(.*\)>; rel="next"/\1/')
    http "$U$next"
    [ "$code" = 200 ] && [ "$(member id)" != "$first" ] || return 1
    answers 200 '"items":\[\]' "$U/v1/jobs?state=expired" && answers 422 bad_cursor "$U/v1/jobs?cursor=nonsense"
}
delete_is_gone() {
    http -X DELETE "$U/v1/jobs/$job"
    [ "$code" = 204 ] || return 1
    answers 410 job_gone "$U/v1/jobs/$job" && answers 410 job_gone "$U/v1/jobs/$job/result" || return 1
    for _ in $(seq 50); do [ -z "$(find "$T/data" -name "$job")" ] && return 0; sleep 0.1; done
    find "$T/data" -name "$job"; return 1
}
cancel() {
    mkpng 2400 1800 3 >"$T/big.png"
    for i in 1 2 3; do http -H 'Prefer: respond-async' --data-binary "@$T/big.png" "$U/v1/derain"; eval "j$i=\$(member id)"; done
    answers 200 '"cancelled":true' -d '' "$U/v1/jobs/$j3/cancel" || return 1 # waiting: at once
    http -d '{"reason":"test"}' "$U/v1/jobs/$j1/cancel"
    [ "$code" = 202 ] || [ "$code" = 200 ] || { echo "$code"; return 1; }
    answers 200 '"state":"cancelled"' "$U/v1/jobs/$j1?wait=20" || return 1
    answers 200 '"cancelled":true' -d '' "$U/v1/jobs/$j1/cancel" || return 1 # safe to repeat
    answers 409 no_result "$U/v1/jobs/$j1/result" || return 1
    answers 200 '"state":"succeeded"' "$U/v1/jobs/$j2?wait=60" || return 1
    answers 200 '"cancelled":false' -d '' "$U/v1/jobs/$j2/cancel"
}
idempotency() {
    http -H 'Idempotency-Key: "k-1"' --data-binary "@$T/a.png" "$U/v1/derain"
    [ "$code" = 200 ] || return 1
    id=$(header Content-Disposition)
    http -H 'Idempotency-Key: "k-1"' --data-binary "@$T/a.png" "$U/v1/derain"
    [ "$code" = 200 ] && [ "$(header Idempotent-Replayed)" = true ] && [ "$(header Content-Disposition)" = "$id" ] || return 1
    answers 422 idempotency_key_reused -H 'Idempotency-Key: "k-1"' --data-binary "@$T/b.png" "$U/v1/derain" || return 1
    # a key in progress answers 409: tests/server/test_http.c, where the engine waits for the test
    curl -s -H 'Idempotency-Key: k-2' --data-binary "@$T/big.png" "$U/v1/derain" -o "$T/first"
    http -H 'Idempotency-Key: k-2' --data-binary "@$T/big.png" "$U/v1/derain"
    [ "$code" = 200 ] && [ "$(header Idempotent-Replayed)" = true ] && cmp "$T/body" "$T/first"
}
digests() {
    d=$(printf "$(sha256sum <"$T/a.png" | cut -d' ' -f1 | sed 's/../\\x&/g')" | base64)
    http -H "Content-Digest: sha-256=:$d:" --data-binary "@$T/a.png" "$U/v1/derain"
    [ "$code" = 200 ] || return 1
    answers 422 digest_mismatch -H "Content-Digest: sha-256=:$d:" --data-binary "@$T/b.png" "$U/v1/derain"
}
bad_pictures() {
    before=$(curl -s "$U/v1/jobs?limit=1" | sha256sum)
    head -c "$(($(stat -c %s "$T/b.png") / 2))" "$T/b.png" >"$T/cut.png"
    head -c "$(($(stat -c %s "$T/b.jpg") / 2))" "$T/b.jpg" >"$T/cut.jpg"
    { head -c 5000 "$T/b.png"; printf X; tail -c +5002 "$T/b.png"; } >"$T/crc.png"
    mkpng 60000 60000 1 3 claim >"$T/huge.png"
    mkpng 8 64 1 >"$T/small.png"
    : >"$T/empty"
    answers 400 empty_body --data-binary "@$T/empty" "$U/v1/derain" &&
        answers 415 unsupported_format -H 'Content-Type: image/png' --data-binary "this is only text, whatever its name says" "$U/v1/derain" &&
        answers 422 image_corrupt --data-binary "@$T/cut.png" "$U/v1/derain" &&
        answers 413 image_too_large --data-binary "@$T/huge.png" "$U/v1/derain" &&
        answers 413 '"setting":"' --data-binary "@$T/huge.png" "$U/v1/derain" &&
        answers 422 image_too_small --data-binary "@$T/small.png" "$U/v1/derain" &&
        answers 400 bad_multipart --data-binary x -H 'Content-Type: multipart/form-data' "$U/v1/derain" &&
        answers 400 empty_body -F 'image=@/dev/null' "$U/v1/derain" &&
        answers 422 unknown_field -F "picture=@$T/a.png" "$U/v1/derain" || return 1
    [ "$before" = "$(curl -s "$U/v1/jobs?limit=1" | sha256sum)" ] || { echo "a bad picture became a job"; return 1; }
    # what only decoding can find becomes a job that fails with the same problem
    answers 422 image_corrupt --data-binary "@$T/cut.jpg" "$U/v1/derain" && answers 422 image_corrupt --data-binary "@$T/crc.png" "$U/v1/derain"
}
left_nothing() { # refused uploads leave no files: as many inputs as jobs
    [ -z "$(find "$T/data/spool" -name 'tmp.*')" ] || { ls "$T/data/spool"; return 1; }
    jobs=$(curl -s "$U/v1/jobs?limit=500" | grep -o '"id":"job_' | wc -l)
    files=$(find "$T/data/spool" -name 'job_*' | wc -l)
    [ "$jobs" = "$files" ] || { echo "$jobs jobs, $files files"; return 1; }
}
documents() {
    for p in / /openapi.json /metrics /v1/models /v1/limits /v1/version /health/live '/health/ready?verbose=1'; do
        http "$U$p"; [ "$code" = 200 ] || { echo "$p: $code"; return 1; }
    done
    http "$U/errors/queue-full"
    [ "$code" = 200 ]
}
foreign_pages() {
    answers 403 foreign_host -H 'Host: evil.example' "$U/v1/jobs" && answers 403 foreign_origin -H 'Origin: https://evil.example' "$U/v1/jobs"
}

check start start
check plain_curl_derains_a_picture plain
check multipart_form form
check chunked_body chunked
check jpeg_in_and_out jpeg
check respond_async_and_poll async_and_poll
check long_poll wait_for_state
check result_range_etag_digest_head result_parts
check job_etag_304 job_not_modified
check list_pages list
check delete_then_410 delete_is_gone
check cancel_waiting_and_running cancel
check idempotency_replay_409_422 idempotency
check content_digest digests
check bad_pictures bad_pictures
check refused_uploads_leave_nothing left_nothing
check documents documents
check foreign_host_and_origin foreign_pages
check sigterm_ends_with_0 stop

# --- a small queue; drain ---
full_queue() {
    start --queue-max 2 || return 1
    n202=0 n429=0
    for _ in 1 2 3 4 5 6 7 8; do
        http -H 'Prefer: respond-async' --data-binary "@$T/big.png" "$U/v1/derain"
        case $code in
        202) n202=$((n202 + 1)) ;;
        429) n429=$((n429 + 1)); [ -n "$(header Retry-After)" ] && grep -q queue_full "$T/body" || return 1 ;;
        *) echo "$code"; return 1 ;;
        esac
    done
    echo "$n202 accepted, $n429 refused"
    [ $n202 -ge 2 ] && [ $n429 -ge 1 ]
}
drain() { # while a client waits and others are queued
    curl -s -o "$T/drained" -w '%{http_code}' --data-binary "@$T/big.png" -H 'Idempotency-Key: d1' "$U/v1/derain" >"$T/drained.code" &
    client=$!
    sleep 0.2
    kill -TERM "$DAEMON"
    sleep 0.1
    http "$U/health/ready"
    [ "$code" = 503 ] || [ "$code" = 000 ] || { echo "ready: $code"; return 1; }
    wait "$DAEMON"; rc=$?
    DAEMON=
    wait $client
    echo "exit $rc, waiting client got $(cat "$T/drained.code")"
    [ $rc -eq 0 ] && case $(cat "$T/drained.code") in 200 | 429 | 503) true ;; *) false ;; esac
}
goes_on() { # what was queued runs in the next life
    start || return 1
    for _ in $(seq 300); do
        http "$U/v1/jobs?state=queued,running"
        grep -q '"items":\[\]' "$T/body" && break
        sleep 0.1
    done
    grep -q '"items":\[\]' "$T/body" && stop
}
check full_queue_is_429 full_queue
check drain_answers_waiting_clients drain
check queued_jobs_survive_a_stop goes_on

# --- refusing to start: one clear line, the right exit code ---
refuses() { # CODE TEXT ARGS...
    want=$1 text=$2; shift 2
    timeout 20 "$B/deraind" serve --listen 127.0.0.1:0 --backend cpu --data "$T/other" --model "$T/model.safetensors" "$@" 2>"$T/err" >/dev/null
    rc=$?
    cat "$T/err"
    [ $rc = "$want" ] && grep -q -- "$text" "$T/err" && [ "$(grep -c '^deraind' "$T/err")" = 1 ]
}
port_in_use() {
    start || return 1
    refuses 1 'cannot listen' --listen "${U#http://}"; rc=$?
    stop && return $rc
}
data_in_use() {
    start || return 1
    refuses 1 'data' --data "$T/data"; rc=$?
    stop && return $rc
}
bad_model() {
    size=$(stat -c %s "$T/model.safetensors")
    head -c $((size - 100)) "$T/model.safetensors" >"$T/short.safetensors"
    { head -c $((size - 8)) "$T/model.safetensors"; printf '\0\0\300\177\0\0\300\177'; } >"$T/nan.safetensors"
    refuses 1 model --model "$T/short.safetensors" && refuses 1 model --model "$T/nan.safetensors" &&
        refuses 1 model --model "$T/none.safetensors"
}
read_only_data() {
    [ "$(id -u)" = 0 ] && { # root may write anywhere but into /proc
        refuses 1 "data" --data /proc/derain; return
    }
    mkdir -p "$T/ro" && chmod 500 "$T/ro" && refuses 1 "data" --data "$T/ro/x"
}
full_data() { # /dev/full stands in for a full disk where one cannot be made: a small tmpfs needs root
    mkdir -p "$T/tiny"
    mount -t tmpfs -o size=1m tmpfs "$T/tiny" 2>/dev/null || { echo "cannot mount a small disk"; return 77; }
    head -c 1040000 /dev/zero >"$T/tiny/fill" 2>/dev/null
    refuses 1 'data folder' --data "$T/tiny/data"; rc=$?
    umount "$T/tiny"
    return $rc
}
check port_in_use_is_1 port_in_use
check data_folder_in_use_is_1 data_in_use
check bad_model_is_1 bad_model
check unknown_option_is_2 refuses 2 "unknown option '--nonsense'" --nonsense
check bad_value_is_2 refuses 2 'queue_max must be' --queue-max=0
check no_token_beyond_loopback_is_2 refuses 2 'loopback' --listen 0.0.0.0:0
check read_only_data_is_1 read_only_data
# like check, but 77 is a skip
maybe() {
    "$2" >"$T/case.out" 2>&1; rc=$?
    if [ $rc = 77 ]; then echo "# skip: $(tail -1 "$T/case.out")"; echo "ok $1 # SKIP"
    elif [ $rc = 0 ]; then echo "ok $1"; else failed=1; sed 's/^/# /' "$T/case.out"; echo "not ok $1"; fi
}
maybe full_disk_is_1 full_data

# --- no room while running ---
no_room() {
    start --free-min-bytes 1000000G || return 1
    answers 507 disk_full --data-binary "@$T/a.png" "$U/v1/derain" && answers 503 disk "$U/health/ready"; rc=$?
    stop && return $rc
}
retention() { # finished jobs go after result_ttl, with their files
    start --result-ttl 1s || return 1
    http -H 'Accept: application/json' --data-binary "@$T/a.png" "$U/v1/derain"
    id=$(member id)
    for _ in $(seq 200); do
        http "$U/v1/jobs/$id"
        [ "$code" = 410 ] && break
        sleep 0.1
    done
    [ "$code" = 410 ] || { echo "still $code"; return 1; }
    for _ in $(seq 30); do [ -z "$(find "$T/data" -name 'job_*')" ] && break; sleep 0.1; done
    [ -z "$(find "$T/data" -name 'job_*')" ] && stop
}
small_memory() { # the pixel limit follows from the budget; the answer names the setting
    start --mem-budget 40M || return 1
    http "$U/v1/limits"
    grep -q '"mem_budget_bytes":41943040' "$T/body" || return 1
    answers 413 '"setting":"mem_budget"' --data-binary "@$T/big.png" "$U/v1/derain" && answers 200 PNG --data-binary "@$T/a.png" "$U/v1/derain"; rc=$?
    stop && return $rc
}
disk_fills_up() { # a disk of 8 MB: a large upload does not fit, the next small one does
    mkdir -p "$T/disk" && mount -t tmpfs -o size=8m tmpfs "$T/disk" 2>/dev/null || { echo "cannot mount a small disk"; return 77; }
    start --data "$T/disk/data" || return 1
    mkpng 2000 2000 4 >"$T/large.png"
    answers 507 disk_full --data-binary "@$T/large.png" "$U/v1/derain" &&
        answers 507 disk_full -H 'Transfer-Encoding: chunked' --data-binary "@$T/large.png" "$U/v1/derain" &&
        answers 200 PNG --data-binary "@$T/a.png" "$U/v1/derain" && [ "$(find "$T/disk" -name 'tmp.*' | wc -l)" = 0 ]; rc=$?
    stop || rc=1
    umount "$T/disk"
    return $rc
}
check full_disk_while_running_is_507 no_room
check memory_budget_is_413 small_memory
maybe a_disk_that_fills_up_is_507 disk_fills_up
check retention_erases_old_jobs retention
exit $failed
