#!/bin/sh
# rain_score.sh - does the rain score rank rainy above derained above clean? tests/bench/rain_score.sh DATA [B]
# DATA/SET/rainy and DATA/SET/clean hold pictures of the same names; every one is derained with the shipped weights.
data=${1:?folder of paired sets} B=${2:-build}
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
printf '%-22s %6s %9s %9s %9s %10s   %s\n' set pairs 'R > D' 'R > C' 'D > C' 'any R > C' 'means R, D, C'
for dir in "$data"/*/; do
    set=$(basename "$dir")
    [ -d "$dir/rainy" ] && [ -d "$dir/clean" ] || continue
    mkdir "$T/$set"
    for f in "$dir"/rainy/*; do
        "$B/deraind" run -q --model models/derain.safetensors "$f" "$T/$set/$(basename "${f%.*}").png" || exit 1
    done
    "$B/deraind" score "$dir"/rainy/* | awk '{print $1}' >"$T/r"
    "$B/deraind" score "$T/$set"/* | awk '{print $1}' >"$T/d"
    "$B/deraind" score "$dir"/clean/* | awk '{print $1}' >"$T/c"
    paste "$T/r" "$T/d" "$T/c" | awk -v set="$set" '
        {r[NR] = $1; c[NR] = $3; sr += $1; sd += $2; sc += $3; rd += $1 > $2; rc += $1 > $3; dc += $2 > $3}
        END {for (i = 1; i <= NR; i++) for (k = 1; k <= NR; k++) any += r[i] > c[k]
             printf "%-22s %6d %9.2f %9.2f %9.2f %10.2f   %.1f, %.1f, %.1f\n", set, NR, rd / NR, rc / NR, dc / NR,
                    any / NR / NR, sr / NR, sd / NR, sc / NR}'
done
