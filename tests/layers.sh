#!/bin/sh
# layers.sh - the floor plan, checked. Left: a room. Right: the rooms it may include.
plan='
core/derain.h  core/base
core/trainer.h core/base
core/pictures.h core/base core/derain.h
core/compare.h core/base core/derain.h
core/tune.h  core/base core/trainer.h
core/base    core/base
core/tensor  core/base core/tensor
core/cpu     core/base core/tensor core/cpu
core/grad    core/base core/tensor core/grad
core/nn      core/base core/tensor core/grad core/nn
core/image   core/base core/tensor core/image core/derain.h core/pictures.h core/compare.h
core/model   core/base core/tensor core/grad core/nn core/image core/model core/derain.h core/compare.h core/tune.h
core/train   core/base core/tensor core/grad core/nn core/image core/model core/train core/trainer.h core/tune.h
cuda         core/base core/tensor cuda
db           core/base db
client       core/base client
server       core/base core/derain.h core/trainer.h core/pictures.h core/compare.h core/tune.h db server
'
# third-party headers: only the named room may see them
libs='
nettle/        core/base
dlfcn.h        core/tensor
dnnl           core/cpu
png.h          core/image
jpeglib.h      core/image
sqlite3.h      db
microhttpd.h   server
archive.h      server
curl/          client
'
bad=0
echo "$plan" | { while read -r room rooms; do
    [ -n "$room" ] && [ -e "$room" ] || continue
    ok=$(echo "$rooms" | sed 's/ /|/g')
    if grep -rHnE '^#include "' "$room" --include='*.[ch]' --include='*.cu' --include='*.cuh' |
        grep -vE "#include \"($ok)[\"/]"; then bad=1; fi
done; exit $bad; } || bad=1
echo "$libs" | { b=0; while read -r lib room; do
    [ -n "$lib" ] || continue
    if grep -rHnE "^#include <$lib" core db server client --include='*.[ch]' | grep -v "^$room/"; then b=1; fi
done; exit $b; } || bad=1
# tuning takes seconds of the device: only the command may ask for it, so that no request ever waits for it
if grep -rHnE '^#include "core/tune.h"' core server client --include='*.[ch]' |
    grep -vE '^(core/model/tune.c|core/train/trainer.c|server/cmd_tune.c):'; then bad=1; fi
if grep -rHn 'dr_be_tune(' core server --include='*.[ch]' |
    grep -vE '^core/(model/tune.c|train/trainer.c|tensor/be.[ch]):'; then bad=1; fi
exit $bad
