#!/usr/bin/env bash
# tests/prepare/prepare_installed.sh CMAKE BUILD_DIR: an installed cadre finds its Python tool beside itself, and where
# its environment would be.
set -euo pipefail
cmake=$1
build=$2
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/../../data/prepare/venv.sh")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset DESTDIR CADRE_PYTHON

"$cmake" --install "$build" --prefix "$dir/first" >/dev/null
mkdir "$dir/elsewhere"
mv "$dir/first" "$dir/elsewhere/second"
tool=$dir/elsewhere/second/share/cadre/prepare
cd "$dir"
CADRE_SOURCE_DIR=$here/../.. "$python" -B -c 'import sys; sys.path.insert(0, sys.argv[1])
import model_folders; model_folders.byte_level("model")' "$here"
echo '{"text": "a"}' >a.jsonl
CADRE_PYTHON=$python "$dir/elsewhere/second/bin/cadre" prepare a.jsonl --model model -o a.h5 >out
grep -q '^  documents     1$' out
[ -f a.h5 ]

# What other interpreters are told by the environment is not for ours.
PYTHONHOME=/none PYTHONPATH=/none "$build/bin/cadre" prepare a.jsonl --model model -o b.h5 >out
[ -f b.h5 ]

# The cures come along.
echo '{}' >a.jsonl
if CADRE_PYTHON=$python "$dir/elsewhere/second/bin/cadre" prepare a.jsonl --model model -o a.h5 2>err; then exit 1; fi
grep -q '^cadre: error DATA-22: a.jsonl:1: ' err
grep -q -- '--columns' err
if find "$dir/elsewhere" -name __pycache__ | grep .; then exit 1; fi

# Without a network: which package, and where the log is. What was begun is no environment.
if env XDG_CACHE_HOME="$dir/none" PIP_NO_INDEX=1 PIP_FIND_LINKS="$dir" "$dir/elsewhere/second/bin/cadre" \
    prepare a.jsonl --model model -o a.h5 2>err; then exit 1; fi
grep -q "^prepare: making $dir/none/cadre/python " err
grep -q "^cadre: error DATA-20: $dir/none/cadre/python: pip could not install .*($dir/none/cadre/python.log)" err
answer=$(XDG_CACHE_HOME=$dir/none "$tool/venv.sh" --check) && exit 1

# With --check nothing is made: it only says where it would be.
answer=$(XDG_CACHE_HOME=$dir/cache "$tool/venv.sh" --check) && exit 1
[ "${answer#"$dir/cache/cadre/python: "}" != "$answer" ]
answer=$(env -u XDG_CACHE_HOME HOME="$dir" "$tool/venv.sh" --check) && exit 1
[ "${answer#"$dir/.cache/cadre/python: "}" != "$answer" ]

rm -r "$tool"
if "$dir/elsewhere/second/bin/cadre" prepare a.jsonl --model model -o a.h5 2>err; then exit 1; fi
grep -q "^cadre: error DATA-20: $tool/venv.sh: not there" err
echo "installed, moved, prepares"
