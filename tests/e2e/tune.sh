#!/bin/bash
# tune.sh - the whole way of tuned plans on the emulated GPU: deraind tune writes the file, the next start of bench, run,
# train and serve reads it, and nobody else ever writes it.
cd "$(dirname "$0")/../.." || exit 2
export OMP_WAIT_POLICY=passive
. tests/e2e/lib.inc
need curl
[ -f "$B/cusim/derain-cuda.so" ] || { echo "# skip: $B/cusim/derain-cuda.so is not built"; echo "ok tune # SKIP"; exit 0; }
export DERAIN_MODULE_DIR=$PWD/$B/cusim
prepare
D=$B/deraind M=$T/model.safetensors P=$T/plans.tsv
tune() { "$D" tune --backend cuda --plan-cache "$P" "$@" >"$T/out" 2>"$T/err"; }
says() { grep -qE -- "$1" "$T/out" && return 0; cat "$T/out" "$T/err"; return 1; }
same_file() { [ "$(sha256sum <"$1")" = "$2" ]; }

nothing() { # on the CPU, or where auto ends there: one line, no file
    "$D" tune --backend cpu --plan-cache "$T/none.tsv" "$@" >"$T/out" 2>"$T/err" && [ "$(wc -l <"$T/out")" = 1 ] && says "^nothing to tune" &&
        [ ! -e "$T/none.tsv" ]
}
check "nothing to tune for pictures on the CPU" nothing --model "$M"
check "nothing to tune for training on the CPU" nothing --train --crop 64 --ngf 16 --blocks 5
no_device() {
    DERAIN_MODULE_DIR=$T "$D" tune --plan-cache "$T/none.tsv" --model "$M" >"$T/out" 2>&1 && says "nothing to tune.*no module" && [ ! -e "$T/none.tsv" ]
}
check "auto says why it is not the GPU" no_device
refuses() { # refuses TEXT ARGUMENTS...
    want=$1; shift
    "$D" tune --backend cuda "$@" >"$T/out" 2>&1
    [ $? = 2 ] && says "$want"
}
check "a file is asked for" refuses "plan-cache" --model "$M"
check "a model is asked for" refuses "model is missing" --plan-cache "$P"
check "no list of sizes" refuses "no list" --plan-cache "$P" --model "$M" --sizes 64x64,
check "no list of batches" refuses "no list" --plan-cache "$P" --model "$M" --batch 1,0
check "train has no sizes" refuses "goes with --crop" --plan-cache "$P" --train --sizes 64x64

first() {
    tune --model "$M" --sizes 48x32,64x48 || { cat "$T/err"; return 1; }
    says "^48x32: [1-9][0-9]* plans tuned, [0-9.]+ ms before, [0-9.]+ ms after$" && says "^64x48: [1-9]" &&
        grep -q "tuned forward f16 1x16x38x54 to 24, 1x7 pad 0: engine 12 in .*; untuned engine 11" "$T/err" &&
        grep -q "tuned the 7x7 window over 3 channels" "$T/err" && ! grep -qv "^v2	90000	cusim	90	132	" "$P"
}
check "plans of two sizes" first
sum=$(sha256sum <"$P")
again() { tune --model "$M" --sizes 64x48 && says "^64x48: 0 plans" && same_file "$P" "$sum"; }
check "what is known is not tried again" again
# pictures that run as one batch have plans of their own
pair() { tune --quiet --model "$M" --sizes 48x32 --batch 2 && says "^48x32, 2 at a time: [1-9]" && [ ! -s "$T/err" ]; }
check "plans of two pictures at a time" pair
more() { tune --quiet --train --crop 64 --ngf 16 --blocks 5 --preset product --precision bf16 && says "^training step, crop 64, batch 1: [1-9]" && [ ! -s "$T/err" ] &&
    grep -q "	weights	bf16	" "$P" && grep -q "	data	bf16	" "$P" && grep -qF "$(head -n 1 "$T/first")" "$P"; }
cp "$P" "$T/first"
check "plans of a training step join them" more
bad_folder() { "$D" tune --backend cuda --quiet --model "$M" --sizes 32x32 --plan-cache "$T/no/such/plans" >"$T/out" 2>&1; [ $? = 1 ] && says "no/such/plans"; }
check "a folder that is not there" bad_folder

bench() { "$D" bench --backend cuda --model "$M" --size 64x48 --runs 1 --json --plan-cache "$P" >"$T/out" && says '"backend": "[^"]*[0-9]+ tuned plans [0-9a-f]{8}\)"'; }
check "bench says that it has them" bench

# two trainings with one file are equal, one without is not, and resuming with another file says so
mkdir -p "$T/rainy" "$T/clean"
for i in 1 2 3; do mkpng 80 72 $i >"$T/rainy/$i.png"; mkpng 72 80 $((i + 5)) >"$T/clean/$i.png"; done
train() { # train OUT ARGUMENTS...
    "$D" train --backend cuda --precision bf16 --rainy "$T/rainy" --clean "$T/clean" --out "$T/$1" --crop 64 --ngf 16 --blocks 5 --ndf 16 --batch 1 \
        --steps 3 --save-every 1000 --sheet-every 1000 --seed 3 "${@:2}" >"$T/out" 2>&1 || { tail -n 3 "$T/out"; return 1; }
}
trainings() {
    train one --plan-cache "$P" && train two --plan-cache "$P" && train plain || return 1
    cmp "$T/one/checkpoint.safetensors" "$T/two/checkpoint.safetensors" || return 1
    ! cmp -s "$T/one/latest.safetensors" "$T/plain/latest.safetensors"
}
check "trainings with one file of plans are equal" trainings
resumed() {
    train three --plan-cache "$P" --stop-after 1 && train three --resume "$T/three/checkpoint.safetensors" && says "tuned plans"
}
check "a training that goes on with other plans says so" resumed
P2=$T/plans.kept
cp "$P" "$P2"

# the daemon: never writes, reads DATA/plans.tsv where it is there
ask() { answers 200 "" --data-binary "@$T/a.png" "$U/v1/derain" && answers 200 "" --data-binary "@$T/b.png" "$U/v1/derain"; }
fresh() { start --backend cuda && ask && stop && [ ! -e "$T/data/plans.tsv" ] && ! grep -q "tuned plans" "$T/log"; }
check "requests tune nothing and write nothing" fresh
reads() {
    cp "$P2" "$T/data/plans.tsv"
    before=$(stat -c '%i %Y %s' "$T/data/plans.tsv")
    start --backend cuda && grep -qE "cusim .* [0-9]+ tuned plans" "$T/log" && ask && stop && [ "$(stat -c '%i %Y %s' "$T/data/plans.tsv")" = "$before" ]
}
check "plans.tsv of the data folder is read" reads
setting() { start --backend cuda --plan-cache /dev/null && ask && stop && ! grep -q "tuned plans" "$T/log"; }
check "plan_cache names another file" setting
hostile() { # damaged, too large, promises: the daemon starts and derains
    { head -c 3000 /dev/urandom; echo; sed 's/\t12\t2:1$/\t14\t-/' "$P2"; tail -c 30 "$P2"; } >"$T/data/plans.tsv"
    start --backend cuda && ask && stop || return 1
    head -c 2000000 /dev/zero >"$T/data/plans.tsv"
    start --backend cuda && ask && stop && ! grep -q "tuned plans" "$T/log"
}
check "files that are none" hostile
exit $failed
