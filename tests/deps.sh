#!/bin/sh
# deps.sh - look for the libraries that the build needs and install the missing Debian packages, as root or through sudo.
# Without either it prints the one line to type and stops.
packages='
pkg-config            pkg-config
g++                   g++
python3               python3
curl                  curl
libmicrohttpd-dev     microhttpd.h
libjansson-dev        jansson.h
libsqlite3-dev        sqlite3.h
libpng-dev            png.h
libjpeg-dev           jpeglib.h
libcurl4-openssl-dev  curl/curl.h
libarchive-dev        archive.h
nettle-dev            nettle/sha2.h
libdnnl-dev           dnnl.h
'
have() {
    case $1 in
    *.h) for d in /usr/include /usr/include/"$(gcc -print-multiarch 2>/dev/null)" /usr/local/include; do
             [ -f "$d/$1" ] && return 0
         done; return 1 ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}
missing=$(echo "$packages" | while read -r package probe; do
    [ -z "$package" ] || have "$probe" || printf ' %s' "$package"
done)
[ -z "$missing" ] && exit 0
line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -eq 0 ]; then as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root=sudo
elif command -v sudo >/dev/null 2>&1 && [ -t 0 ]; then as_root=sudo
else
    echo "Libraries are missing. As root, type:  apt-get update && $line" >&2
    exit 1
fi
command -v apt-get >/dev/null 2>&1 || { echo "Libraries are missing:$missing (Debian's names; no apt-get here)" >&2; exit 1; }
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq && $as_root $line >/dev/null || { echo "could not install:$missing" >&2; exit 1; }
