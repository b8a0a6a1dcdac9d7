#!/usr/bin/env bash
# tests/prepare/prepare_test.sh TEST.py [ARGUMENT...]: runs a test in the environment of `cadre prepare`, which it makes
# if launch/setup has not.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/../../data/prepare/venv.sh") || {
    echo "$python" >&2
    exit 1
}
test=$1
shift
exec "$python" -B "$here/$test" "$@"
