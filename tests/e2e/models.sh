#!/bin/sh
# models.sh - versions of models over HTTP with the real daemon: import (also of a file that PyTorch writes, where it is
# installed), use, roll back, fetch in pieces, a restart, a stale If-Match, and a state dict that calls a function.
. tests/e2e/lib.inc
need curl
prepare
start || { echo "not ok daemon_comes_up"; exit 1; }
NAME=$(curl -s "$U/v1/models" | sed 's/.*"items":\[{"name":"\([^"]*\)".*/\1/')
M=$U/v1/models/$NAME
"$B/deraind" model init --ngf 16 --blocks 1 --seed 8 "$T/other.safetensors" || exit 2

code() { curl -s -o "$T/body" -w '%{http_code}' "$@"; }
is() { want=$1; shift; got=$(code "$@"); [ "$got" = "$want" ] || { echo "$got, not $want"; cat "$T/body"; return 1; }; }
etag() { curl -sI "$M" | tr -d '\r' | sed -n 's/^ETag: //p'; }
served() { curl -s "$M" | grep -q "\"version\":$1,"; }
derained_by() { curl -s -D- -o "$T/out.png" --data-binary "@$T/a.png" "$U/v1/derain${2:-}" | grep -q "X-Derain-Model: $NAME/$1"; }

check import_makes_a_version is 201 --data-binary "@$T/other.safetensors" "$M/versions"
check the_same_bytes_are_the_same_version is 200 --data-binary "@$T/other.safetensors" "$M/versions"
check import_leaves_the_default served 1
check without_if_match_428 is 428 -X PUT -d '{"version":2}' "$M/default"
OLD=$(etag)
check put_default is 200 -X PUT -H "If-Match: $OLD" -d '{"version":2}' "$M/default"
check a_stale_if_match_412 is 412 -X PUT -H "If-Match: $OLD" -d '{"version":1}' "$M/default"
check an_unknown_version_404 is 404 -X PUT -H 'If-Match: *' -d '{"version":99}' "$M/default"
check pictures_come_from_the_new_one derained_by 2
check and_from_any_that_is_asked_for derained_by 1 '?version=1'
pieces() {
    curl -s -r 0-9999 "$M/versions/2/weights" >"$T/w" && curl -s -r 10000- "$M/versions/2/weights" >>"$T/w" &&
        cmp "$T/w" "$T/other.safetensors"
}
check weights_come_in_pieces pieces
stop
start || { echo "not ok daemon_comes_up_again"; exit 1; }
M=$U/v1/models/$NAME
check a_restart_keeps_the_default derained_by 2
check roll_back is 200 -X POST -d '' "$M/rollback"
check rolled_back derained_by 1
check nothing_before_it_409 is 409 -X POST -d '' "$M/rollback"
check client_use env DERAIN_URL="$U" "$B/derain" use "$NAME" 2
check client_rollback env DERAIN_URL="$U" "$B/derain" rollback
check rolled_back_by_the_client derained_by 1

PY=
for p in /usr/bin/python3 python3; do [ -z "$PY" ] && $p -c 'import torch' 2>/dev/null && PY=$p; done
if [ -z "$PY" ]; then
    echo "# no PyTorch here: its files come from tests/golden/pth.inc only"
else
    cat >"$T/mk.py" <<'PY'
import collections, json, os, struct, sys
import torch
data = open(sys.argv[1], 'rb').read()
n = struct.unpack('<Q', data[:8])[0]
head = json.loads(data[8:8 + n])
d = collections.OrderedDict()
for k, v in head.items():
    if k == '__metadata__': continue
    a, b = v['data_offsets']
    d[k] = torch.frombuffer(bytearray(data[8 + n + a:8 + n + b]), dtype=torch.float32).reshape(v['shape']).clone()
torch.save(d, sys.argv[2] + '/new.pth')
torch.save(d, sys.argv[2] + '/old.pth', _use_new_zipfile_serialization=False)
class Evil:
    def __reduce__(self): return (os.system, ('touch ' + sys.argv[2] + '/called',))
d['x'] = Evil()
torch.save(d, sys.argv[2] + '/evil.pth')
PY
    $PY "$T/mk.py" "$T/other.safetensors" "$T" || exit 2
    "$B/deraind" run -q --model "$T/other.safetensors" "$T/b.png" "$T/want.png" || exit 2
    same_picture() {
        "$B/deraind" model convert "$T/$1.pth" "$T/$1.safetensors" &&
            "$B/deraind" run -q --model "$T/$1.safetensors" "$T/b.png" "$T/$1.png" && cmp "$T/$1.png" "$T/want.png"
    }
    check a_pth_gives_the_picture_of_the_safetensors same_picture new
    check and_so_does_the_older_form same_picture old
    check a_pth_is_imported is 201 --data-binary "@$T/new.pth" "$U/v1/models/torch/versions"
    check both_forms_are_one_version is 200 --data-binary "@$T/old.pth" "$U/v1/models/torch/versions"
    check a_state_dict_that_calls_is_422 is 422 --data-binary "@$T/evil.pth" "$U/v1/models/torch/versions"
    check and_named grep -q 'posix.system' "$T/body"
    not_called() { [ ! -e "$T/called" ]; }
    check and_not_called not_called
fi
empty() { [ -z "$(ls "$T/data/models" | grep '^tmp\.')" ]; }
check nothing_staged_is_left empty
stop
exit $failed
