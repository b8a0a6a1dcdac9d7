#!/usr/bin/env bash
# tests/cli/cli_install.sh CMAKE BUILD_DIR: an installed tree works where it is put, also after it was moved.
set -euo pipefail
cmake=$1
build=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset DESTDIR # would put the tree elsewhere

"$cmake" --install "$build" --prefix "$dir/first" >/dev/null
mkdir "$dir/elsewhere"
mv "$dir/first" "$dir/elsewhere/second"
cd /
"$dir/elsewhere/second/bin/cadre" --version | grep -q '^cadre [0-9]'
[ -f "$dir/elsewhere/second/share/cadre/LICENSE" ]
# The pages that messages and help name are there.
while read -r page; do
    if [ ! -f "$dir/elsewhere/second/share/cadre/$page" ]; then
        echo "$page is named by the program and not installed"
        exit 1
    fi
done < <(grep -haoE 'docs/[a-z_/]+\.md' "$dir/elsewhere/second/bin/cadre" | sort -u)
if grep -rqF "$dir/first" "$dir/elsewhere/second"; then
    echo "the tree holds the path it was installed to"
    exit 1
fi
# The run path leads to libraries of the system, not into the build tree.
if grep -aqF "$build" <(readelf -d "$dir/elsewhere/second/bin/cadre"); then
    echo "the run path leads into the build tree"
    exit 1
fi
echo "installed, moved, works"
