#!/usr/bin/env bash
# tests/checks/format.sh [--fix]: C and CUDA sources are as clang-format 14 leaves them. --fix applies it.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v clang-format-14 >/dev/null || {
    echo "clang-format-14 is missing: launch/setup --all" >&2
    exit 3
}
mode=(--dry-run -Werror)
if [ "${1:-}" = --fix ]; then mode=(-i); fi
find . \( -path ./build -o -path ./runs -o -path './.*' \) -prune -o \
    \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
    xargs -0 -r clang-format-14 "${mode[@]}" 2>&1 | {
    # One line a file says enough; the fix is a command.
    sed -n 's/^\(\.\/[^:]*\):.*error:.*/\1/p' | sort -u | {
        bad=0
        while read -r file; do
            echo "$file: not formatted"
            bad=1
        done
        if [ "$bad" -ne 0 ]; then
            echo "tests/checks/format.sh --fix formats them" >&2
            exit 1
        fi
    }
}
