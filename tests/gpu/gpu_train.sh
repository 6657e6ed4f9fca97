#!/bin/bash
# gpu_train.sh - trains the shipped network on a GPU for a given time.
#
#   tests/gpu/gpu_train.sh MINUTES DATA OUT [options of deraind train]        from the repository's root
#
# DATA: train/Rain800/{rainy,clean}, clean/{bsds500,sunhays80}, streaks/garg06, and, if there, held-out pairs in
# dev/{rainy,clean}. Nothing is paired: of Rain800's pictures in order (i from 0) even ones give the rainy side and odd ones
# the clean side; i % 8 == 3 is held out. Without dev/ those serve as pairs for the choice of best.safetensors.
#
# First a few steps say how long one takes; --steps is then what fits, so that the rates' decay ends with the time. The
# training stops at two fifths of the way and goes on from its checkpoint, which proves resume on the device. OUT gets
# latest, best and train.safetensors, metrics.csv, samples/, train.log and summary.txt, files of at most 16 MB each: what
# is larger (train.safetensors of ngf 64) is left out and named in the summary. The checkpoint stays in OUT.work.
# A --plan-cache FILE among the options has tuned plans used (deraind tune --train --preset product --precision bf16).
# Exit status: 0 done, 1 failed (where there are weights, OUT gets them all the same), 2 wrong usage, 77 no GPU (one line
# says why).
set -u
[ $# -ge 3 ] || { echo "usage: gpu_train.sh MINUTES DATA OUT [options of deraind train]" >&2; exit 2; }
minutes=$1
case $minutes in '' | *[!0-9.]* | *.*.* | .) echo "gpu_train: MINUTES '$minutes' is not a number" >&2; exit 2 ;; esac
mkdir -p "$3" && out=$(realpath "$3") || exit 2
data=$(realpath "$2" 2>/dev/null) || { echo "gpu_train: there is no folder $2" >&2; exit 2; }
shift 3
for o in "$@"; do # what the script decides itself
    case $o in --steps* | --out* | --resume* | --stop-after* | --overwrite* | --preview*) echo "gpu_train: $o is not yours to give" >&2; exit 2 ;; esac
done
cd "$(dirname "$0")/../.." || exit 2
. tests/gpu/env.inc
why=$(no_gpu)
if [ -n "$why" ]; then echo "gpu_train: $why" >&2; exit 77; fi
begin=$SECONDS
total=$(awk -v m="$minutes" 'BEGIN {printf "%d", 60 * m}')
work=$out.work
rm -rf "$work"
mkdir -p "$work" || exit 1
fill_gaps "$work/lib"
log=$out/train.log
: >"$log"
say() { echo "gpu_train: $*" | tee -a "$log"; }
fail() { say "$*"; tail -n 5 "$log" >&2; exit 1; }
left() { echo $((total - (SECONDS - begin))); }

pictures() { find -L "$1" -maxdepth 1 -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' \) 2>/dev/null | LC_ALL=C sort; }
pictures "$data/train/Rain800/rainy" | awk '{i = NR - 1} i % 8 != 3 && i % 2 == 0' >"$work/rainy.txt"
pictures "$data/train/Rain800/clean" | awk '{i = NR - 1} i % 8 != 3 && i % 2 == 1' >"$work/clean.txt"
[ -s "$work/rainy.txt" ] && [ -s "$work/clean.txt" ] || fail "no pictures in $data/train/Rain800/rainy and clean"
sides=(--rainy "$work/rainy.txt" --clean "$work/clean.txt")
for d in "$data/clean/bsds500" "$data/clean/sunhays80"; do [ ! -d "$d" ] || sides+=(--clean "$d"); done
[ ! -d "$data/streaks/garg06" ] || sides+=(--streaks "$data/streaks/garg06")
if [ -d "$data/dev/rainy" ] && [ -d "$data/dev/clean" ]; then
    dev=$data/dev
else # pairs under equal names
    dev=$work/dev
    mkdir -p "$dev/rainy" "$dev/clean"
    pictures "$data/train/Rain800/rainy" | awk '(NR - 1) % 8 == 3' | while read -r f; do
        g=$data/train/Rain800/clean/$(basename "$f")
        [ ! -f "$g" ] || { ln -s "$f" "$dev/rainy/" && ln -s "$g" "$dev/clean/"; }
    done
fi
evals=()
n_dev=$(pictures "$dev/rainy" | wc -l)
[ "$n_dev" -eq 0 ] || evals=(--eval-rainy "$dev/rainy" --eval-clean "$dev/clean")

shape=(--preset product --ngf 32 --blocks 6 --crop 128 --batch 8 --precision bf16)
train() { # train SECONDS ARGUMENTS...: those of the command line come last and win
    local most=$1
    shift
    timeout -s TERM -k 20 "$most" "$B/deraind" train --backend "$BACKEND" "${shape[@]}" "${sides[@]}" "$@" >>"$log" 2>&1
}
# median seconds of a step in a metrics.csv, its first quarter left out
step_seconds() { awk -F, 'NR > 1 {print $3}' "$1" | awk '{v[NR] = $1} END {for (i = int(NR / 4) + 1; i <= NR; i++) print v[i]}' |
    sort -g | awk '{v[NR] = $1} END {if (NR) print v[int((NR + 1) / 2)]}'; }

probe=${GPU_TRAIN_PROBE:-60}
train "$total" --out "$work/probe" --steps "$probe" --log-every 1 --save-every 100000 --sheet-every 100000 "$@" || fail "the first steps failed"
per=$(step_seconds "$work/probe/metrics.csv")
[ -n "$per" ] || fail "the first steps left no times"

# what is outside the steps: 4 evaluations, 10 sheets and the two starts; measured, not guessed, by one deraind eval
eval_s=0
if [ ${#evals[@]} -gt 0 ]; then
    t=$(date +%s%N)
    timeout "$(left)" "$B/deraind" eval --backend "$BACKEND" --model "$work/probe/latest.safetensors" --rainy "$dev/rainy" --clean "$dev/clean" >"$work/eval.txt" 2>&1 ||
        fail "evaluation failed: $(tail -n 1 "$work/eval.txt")"
    eval_s=$(awk -v a="$t" -v b="$(date +%s%N)" 'BEGIN {printf "%.2f", (b - a) / 1e9}')
fi
rm -rf "$work/probe"
n_eval=6
steps=$(awk -v l="$(left)" -v p="$per" -v e="$eval_s" -v n=$n_eval \
    'BEGIN {r = 0.92 * (l - 3) - (n + 1) * e; s = int(r / p); print s < 10 ? 0 : s}')
[ "$steps" -gt 0 ] || fail "$minutes minutes are too short: a step takes $per s, an evaluation $eval_s s"
half=$((steps * 2 / 5))
every=$(((steps + n_eval - 1) / n_eval))
say "$per s a step, $eval_s s an evaluation of $n_dev pairs: $steps steps, evaluated every $every, resumed at $half"
common=(--steps "$steps" --log-every "$(((steps + 999) / 1000))" --eval-every "$every" --save-every "$(((steps + 3) / 4))" --sheet-every "$(((steps + 9) / 10))" "${evals[@]}")
train "$(($(left) + 60))" --out "$work/run" "${common[@]}" --stop-after "$half" "$@" || fail "the first part failed"
[ -f "$work/run/checkpoint.safetensors" ] || fail "no checkpoint after the first part"
before=$(wc -l <"$work/run/metrics.csv")
rc=0
train "$(($(left) + 60))" --out "$work/run" "${common[@]}" --resume "$work/run/checkpoint.safetensors" "$@"
code=$?
[ "$(wc -l <"$work/run/metrics.csv")" -gt "$before" ] || fail "the resumed part left no rows in metrics.csv"
at=$(tail -n 1 "$work/run/metrics.csv" | cut -d, -f1)
if [ $code -ne 0 ] || [ "$at" != "$steps" ]; then # what there is, is given all the same
    say "the resumed part ended with status $code at step $at of $steps$([ $code -ne 124 ] || echo ": steps became slower than measured, the time was up")"
    rc=1
fi

# results: F16 weights, nothing above 16 MB
max=$((16 * 1000 * 1000))
give() { # give FILE NAME
    if [ ! -f "$1" ]; then say "$2: not made"; rc=1
    elif [ "$(stat -c %s "$1")" -gt $max ]; then say "$2: $(stat -c %s "$1") bytes, left out (it lies in $1)"
    else mkdir -p "$(dirname "$out/$2")" && cp "$1" "$out/$2" || rc=1; fi
}
for f in latest best; do
    [ ! -f "$work/run/$f.safetensors" ] || "$B/deraind" model convert --dtype F16 "$work/run/$f.safetensors" "$work/$f.safetensors" >>"$log" 2>&1 ||
        cp "$work/run/$f.safetensors" "$work/$f.safetensors"
    give "$work/$f.safetensors" $f.safetensors
done
give "$work/run/train.safetensors" train.safetensors
give "$work/run/metrics.csv" metrics.csv
for f in "$work"/run/samples/*.png; do [ ! -f "$f" ] || give "$f" "samples/$(basename "$f")"; done
{
    echo "steps: $at of $steps (resumed at $half), $per s each; $((SECONDS - begin)) s of $total s"
    echo "backend: $BACKEND; $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)"
    echo "commit: $(cat "$B/commit" 2>/dev/null)"
    echo "options: ${shape[*]} $*"
    echo "pictures: $(wc -l <"$work/rainy.txt") rainy and $(wc -l <"$work/clean.txt") clean of Rain800, ${#sides[@]} arguments of sources, $n_dev held-out pairs"
    if [ ${#evals[@]} -gt 0 ] && [ -f "$out/best.safetensors" ]; then
        echo "best.safetensors on the held-out pairs:"
        timeout 120 "$B/deraind" eval --backend "$BACKEND" --model "$out/best.safetensors" --rainy "$dev/rainy" --clean "$dev/clean" 2>&1 | tail -n 6
    fi
} | tee "$out/summary.txt"
exit $rc
