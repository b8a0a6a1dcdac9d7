#!/usr/bin/env bash
# tests/checks/globals.sh NM ARCHIVE...    no mutable global and no function static in our objects
# tests/checks/globals.sh --self-test NM CC AR
#
# State hangs off the rank context, because ranks can be threads of one process. Constant data lies in .rodata or, when
# it holds addresses, in .data.rel.ro; anything in .data, .bss, their thread-local kin or COMMON can change.
# Objects of nvcc are left out: its generated registration code keeps handles in .bss.
set -euo pipefail

# Prints "archive:member: symbol (section)" for each mutable object.
mutable() { # mutable NM ARCHIVE...
    local nm=$1
    shift
    # Columns of the sysv form: name|value|class|type|size|line|section
    "$nm" --format=sysv --print-file-name "$@" | awk -F'|' '
        $1 ~ /\.cu\.o:/ { next }
        $7 ~ /^(\.data|\.bss|\.tdata|\.tbss|\*COM\*|COMMON)/ && $7 !~ /^\.data\.rel\.ro/ && $4 !~ /SECTION/ {
            gsub(/ +$/, "", $1)
            print $1 " (" $7 ")"
        }'
}

if [ "${1:-}" = --self-test ]; then
    nm=$2 cc=$3 ar=$4
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    cat >"$dir/good.c" <<'C'
static const char *const names[] = { "a", "b" };
const int limit = 3;
const char *name(int i);
const char *name(int i) { return names[i % limit]; }
C
    cat >"$dir/bad.c" <<'C'
int initialised = 1;
int tentative;
static const char *pointer = "x";
_Thread_local int per_thread;
int count(void);
int count(void) { static int calls; if (pointer[0] == 'y') pointer++; return ++calls + per_thread; }
C
    for name in good bad; do
        "$cc" -fPIE -O1 -c "$dir/$name.c" -o "$dir/$name.o"
        "$ar" rcs "$dir/$name.a" "$dir/$name.o"
    done
    found=$(mutable "$nm" "$dir/good.a")
    [ -z "$found" ] || { echo "constants reported: $found"; exit 1; }
    found=$(mutable "$nm" "$dir/bad.a")
    for symbol in initialised tentative pointer per_thread calls; do
        grep -q "$symbol" <<<"$found" || { echo "not reported: $symbol"; exit 1; }
    done
    echo "globals: self-test: five mutable objects found, no constant"
    exit 0
fi

[ $# -ge 2 ] || { echo "usage: $0 NM ARCHIVE..."; exit 2; }
found=$(mutable "$@")
if [ -n "$found" ]; then
    echo "$found"
    echo "globals: move these into the object or the rank context (base/context.h)"
    exit 1
fi
echo "globals: $(($# - 1)) libraries, nothing mutable"
