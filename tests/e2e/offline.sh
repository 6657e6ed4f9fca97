#!/bin/sh
# offline.sh - deraind's offline commands as a user types them: results, exit codes, what they say about bad input.
B=${B:-build}
case $B in /*) ;; *) B=$PWD/$B ;; esac
D=$B/deraind
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
cd "$T" || exit 1
bad=0

ok() { # ok NAME COMMAND...: the command succeeds
    name=$1; shift
    if "$@" >out 2>err </dev/null; then echo "ok $name"; else bad=1; sed 's/^/# /' out err | head -20; echo "not ok $name"; fi
}
fails() { # fails NAME CODE TEXT COMMAND...: exit code, and TEXT on stderr
    name=$1 code=$2 text=$3; shift 3
    "$@" >out 2>err </dev/null; rc=$?
    if [ $rc -eq "$code" ] && grep -qF -- "$text" err; then echo "ok $name"
    else bad=1; echo "# exit $rc, expected $code with: $text"; sed 's/^/# /' err | head -5; echo "not ok $name"; fi
}
same() { cmp "$1" "$2" && cmp "$1" "$3"; }
says() { # says NAME TEXT: on stdout of the command before
    if grep -qF -- "$2" out; then echo "ok $1"; else bad=1; sed 's/^/# /' out | head -5; echo "not ok $1"; fi
}

# pictures by code: a tiny PNG writer (stored blocks), rows of a moving pattern
cat >mk.py <<'PY'
import struct, sys, zlib
def png(path, w, h, kind, depth=8, shift=0):
    n = {'grey': 1, 'ga': 2, 'rgb': 3, 'rgba': 4}[kind]
    color = {'grey': 0, 'ga': 4, 'rgb': 2, 'rgba': 6}[kind]
    raw = bytearray()
    for y in range(h):
        raw.append(0)
        for x in range(w):
            for c in range(n):
                v = (x * 7 + y * 13 + c * 50 + (shift if (x + y) % 9 == 0 else 0)) % 200 + 20
                raw += bytes([v]) if depth == 8 else struct.pack('>H', v * 257)
    def chunk(t, d): return struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t + d))
    open(path, 'wb').write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, depth, color, 0, 0, 0))
                           + chunk(b'IDAT', zlib.compress(bytes(raw))) + chunk(b'IEND', b''))
png('rgb.png', 61, 45, 'rgb'); png('rgba.png', 20, 30, 'rgba'); png('deep.png', 33, 17, 'rgb', 16)
png('tall.png', 250, 610, 'rgb'); png('grey.png', 16, 16, 'grey'); png('small.png', 15, 20, 'rgb')
import os
for d, s in (('rainy', 40), ('clean', 0)):
    os.mkdir(d)
    for i in range(2): png('%s/%d.png' % (d, i), 40 + 8 * i, 32, 'rgb', 8, s)
data = open('rgb.png', 'rb').read()
open('cut.png', 'wb').write(data[:len(data) // 2])
huge = data[:8] + data[8:16] + struct.pack('>II', 60000, 60000) + data[24:]
ihdr = huge[12:29]
open('huge.png', 'wb').write(huge[:29] + struct.pack('>I', zlib.crc32(ihdr)) + huge[33:])
open('text.png', 'w').write('this is no picture\n')
open('empty.png', 'w').close()
m = bytearray(open('m.safetensors', 'rb').read())
n = struct.unpack('<Q', m[:8])[0]
bad = bytes(m)
i = bad.index(b'"data_offsets":[0,')
open('offset.safetensors', 'wb').write(bad[:i] + bad[i:].replace(b'[0,', b'[1,', 1))
m[8 + n + 4:8 + n + 8] = struct.pack('<f', float('nan'))
open('nan.safetensors', 'wb').write(m)
open('half.safetensors', 'wb').write(bad[:len(bad) // 2])
PY
have_python() { command -v python3 >/dev/null 2>&1; }

ok "deraind --help" "$D" --help
ok "deraind --version" "$D" --version
ok "version names commit and kernels" sh -c "'$D' --version | grep -q '^deraind [0-9.]* (commit ' && '$D' --version | grep -q '^  cpu '"
for c in run eval bench tune model train "model info" "model init" "model convert"; do
    # shellcheck disable=SC2086
    ok "deraind $c --help" "$D" $c --help
done
fails "no command" 2 "usage:" "$D"
fails "unknown command" 2 "unknown command 'paint'" "$D" paint
fails "unknown option" 2 "unknown option '--colour'" "$D" run --colour red a b
fails "model without verb" 2 "usage:" "$D" model
fails "model with unknown verb" 2 "'sell' is not one of" "$D" model sell

ok "model init" "$D" model init --ngf 16 --blocks 2 --seed 7 m.safetensors
ok "model init again" "$D" model init --ngf 16 --blocks 2 --seed 7 m2.safetensors
ok "equal seeds give equal files" cmp m.safetensors m2.safetensors
fails "model init refuses ngf 20" 1 "multiple of 16" "$D" model init --ngf 20 x.safetensors
ok "model info" "$D" model info m.safetensors
says "info names the architecture" "ngf 16, 2 blocks"
ok "model info --json" "$D" model info --json m.safetensors
says "json has the parameters" '"params"'
ok "model convert" "$D" model convert --dtype F16 m.safetensors h.safetensors
ok "half as large" sh -c '[ $(wc -c <h.safetensors) -lt $(($(wc -c <m.safetensors) * 6 / 10)) ]'
fails "convert refuses I64" 2 "'I64' is not one of" "$D" model convert --dtype I64 m.safetensors x
fails "info of a missing file" 1 "none.safetensors" "$D" model info none.safetensors
ok "model init residual" "$D" model init --ngf 16 --blocks 1 --residual 1 --seed 7 zero.safetensors

if ! have_python; then
    echo "# skip: python3 makes the pictures"
    echo "ok offline pictures # SKIP"
    exit $bad
fi
python3 mk.py || { echo "not ok making pictures"; exit 1; }

for t in 1 2 3; do ok "run with $t threads" "$D" run --model m.safetensors --threads $t rgb.png o$t.png; done
ok "the same file for any number of threads" same o1.png o2.png o3.png
ok "it is not the input" sh -c '! cmp -s rgb.png o1.png'
ok "run twice" "$D" run --model m.safetensors rgb.png o4.png
ok "equal again" cmp o1.png o4.png
ok "through pipes" sh -c "'$D' run -q --model m.safetensors - - <rgb.png >o5.png"
ok "pipes give the same" cmp o1.png o5.png
ok "F16 weights run" "$D" run --model h.safetensors rgb.png h.png
ok "jpeg out" "$D" run --model m.safetensors rgb.png o.jpg
ok "it is a jpeg" sh -c 'head -c 3 o.jpg | od -An -tx1 | grep -q "ff d8 ff"'
ok "alpha" "$D" run --model m.safetensors rgba.png a.png
ok "16 bits" "$D" run --model m.safetensors deep.png d.png
ok "16 bits stay 16" sh -c 'head -c 25 d.png | tail -c 1 | od -An -tu1 | grep -q 16'
ok "grey" "$D" run --model m.safetensors grey.png g.png
ok "grey stays grey" sh -c 'head -c 26 g.png | tail -c 1 | od -An -tu1 | grep -q " 0$"'
fails "alpha as jpeg" 1 "transparency" "$D" run --model m.safetensors rgba.png a.jpg
fails "format nobody writes" 2 ".png, .jpg or .jpeg" "$D" run --model m.safetensors rgb.png o.webp
fails "missing picture" 1 "nothing.png" "$D" run --model m.safetensors nothing.png o.png
fails "empty file" 1 "empty.png" "$D" run --model m.safetensors empty.png bad.png
fails "text as picture" 1 "text.png" "$D" run --model m.safetensors text.png bad.png
fails "truncated picture" 1 "cut.png" "$D" run --model m.safetensors cut.png bad.png
fails "60000 x 60000" 1 "setting" "$D" run --model m.safetensors huge.png bad.png
fails "too small" 1 "small.png" "$D" run --model m.safetensors small.png bad.png
fails "over the memory budget" 1 "setting mem_budget" "$D" run --mem-budget 1K --model m.safetensors rgb.png bad.png
fails "model with a wrong offset" 1 "model.1.weight" "$D" run --model offset.safetensors rgb.png bad.png
fails "model with a NaN" 1 "not a number" "$D" run --model nan.safetensors rgb.png bad.png
fails "model cut in half" 1 "half.safetensors" "$D" run --model half.safetensors rgb.png bad.png
fails "folder that is not there" 1 "no/such" "$D" run --model m.safetensors rgb.png no/such/o.png
fails "missing --model" 2 "--model is missing" "$D" run rgb.png o.png
fails "unknown backend" 2 "auto|cpu|cuda" "$D" run --backend gpu --model m.safetensors rgb.png o.png
ok "bad input left no file" sh -c '[ ! -e bad.png ] && [ -z "$(ls | grep tmp-)" ]'

# 250 x 610 pixels want 34 MB as a whole; within 20 MB they go through the network in bands
mkdir whole banded
ok "as a whole" "$D" run --model m.safetensors --threads 2 tall.png whole/x.png
for t in 1 2; do ok "in bands with $t threads" "$D" run --mem-budget 20M --model m.safetensors --threads $t tall.png b$t.png; done
ok "bands give the same file for any number of threads" cmp b1.png b2.png
cp b1.png banded/x.png
ok "eval of bands against the whole" "$D" eval --json --model zero.safetensors --rainy banded --clean whole
cp out eval.json
ok "the same picture but for rounding" python3 -c "import json; assert json.load(open('eval.json'))['mean']['input']['psnr_rgb'] > 75"
fails "not even in bands" 1 "setting mem_budget" "$D" run --mem-budget 6M --model m.safetensors tall.png bad.png
cp err least
ok "the least is named" grep -Eq 'limit 6291456, actual [0-9]{7,8}' least

ok "eval" "$D" eval --model zero.safetensors --rainy rainy --clean clean
says "eval prints a mean" "mean of 2"
ln -s clean linked
ok "eval --json" "$D" eval --json --model zero.safetensors --rainy rainy --clean linked
cp out eval.json
cat >keys.py <<'PY'
import json
e = json.load(open('eval.json'))
keys = {'psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb'}
assert len(e['pictures']) == 2 and e['pictures'][0]['name'] == '0.png'
for row in e['pictures'] + [e['mean']]:
    assert all(set(row[k]) == keys for k in ('input', 'output', 'gain')), row
    assert row['input'] == row['output'] and all(abs(v) < 1e-12 for v in row['gain'].values()), row
assert 10 < e['mean']['input']['psnr_y'] < 40
PY
ok "keys and figures of the JSON" python3 keys.py
ok "eval of equal folders" "$D" eval --json --model zero.safetensors --rainy clean --clean clean
cp out eval.json
ok "capped at 100 dB" python3 -c "import json; assert json.load(open('eval.json'))['mean']['output']['psnr_y'] == 100"
cp rgb.png rainy/extra.png
fails "unpaired picture" 1 "'extra.png'" "$D" eval --model zero.safetensors --rainy rainy --clean clean
cp grey.png clean/extra.png
fails "sizes differ" 1 "61 x 45" "$D" eval --model zero.safetensors --rainy rainy --clean clean

ok "bench" "$D" bench --model m.safetensors --size 64x48 --runs 2
ok "bench --json" "$D" bench --json --model m.safetensors --size 64x48 --runs 2
cp out bench.json
cat >bench.py <<'PY'
import json
b = json.load(open('bench.json'))
assert all(b[k] > 0 for k in ('median_ms', 'min_ms', 'mpix_per_s', 'peak_rss_mb')) and b['min_ms'] <= b['median_ms']
PY
ok "bench figures" python3 bench.py
fails "bench without size" 2 "--size" "$D" bench --model m.safetensors
fails "bench of a size that no memory holds" 1 "mem_budget" "$D" bench --model m.safetensors --size 32768x32768
ok "bench of a training step" "$D" bench --train --threads 1 --crop 64 --ngf 16 --blocks 5 --runs 1 --json
says "its figures" '"median_ms"'
if [ -w /dev/full ]; then
    fails "result to a full device" 1 "" sh -c "'$D' model info --json m.safetensors >/dev/full"
fi
exit $bad
