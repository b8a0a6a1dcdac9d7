#!/bin/sh
# data/prepare/venv.sh [--check]: the Python that `cadre prepare` runs on, made if need be; with --check never made.
#
# Prints one line on stdout. Exit 0: the path of an interpreter that has the packages of requirements.txt. Exit 3: why
# there is none. What takes time is announced on stderr. launch/setup and `cadre prepare` both call this; when all is
# there it takes some milliseconds and needs no network.
#
# In a checkout the environment is build/python; beside an installed program it is cadre/python below
# ${XDG_CACHE_HOME:-~/.cache}. It is made anew when requirements.txt or the system's Python changes: both are in its
# stamp. CADRE_PYTHON names an interpreter to use instead; it is taken as it is.
set -eu

if [ -n "${CADRE_PYTHON:-}" ]; then
    if command -v "$CADRE_PYTHON" >/dev/null; then
        printf '%s\n' "$CADRE_PYTHON"
        exit 0
    fi
    printf '%s\n' "CADRE_PYTHON: $CADRE_PYTHON: not an interpreter that can be run"
    exit 3
fi

# The folder itself and not the link to it that a build holds.
here=$(cd "$(dirname "$0")" && pwd -P)
checkout=${here%/data/prepare}
if [ "$checkout" != "$here" ] && [ -x "$checkout/launch/setup" ]; then
    venv=$checkout/build/python
elif [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/cadre/python
else
    echo "neither XDG_CACHE_HOME nor HOME says where it may be"
    exit 3
fi
log=$venv.log
unset PYTHONHOME PYTHONPATH # made for another
python=/usr/bin/python3 # by its path: version managers put other interpreters in front

give_up() { # give_up REASON
    printf '%s\n' "$venv: $1"
    exit 3
}

[ -x "$python" ] || give_up "$python is missing (Debian and Ubuntu: apt-get install python3 python3-venv)"
stamp="$(sha256sum <"$here/requirements.txt") $("$python" -V)"

made() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/cadre-stamp" 2>/dev/null)" = "$stamp" ]; }

if ! made; then
    if [ "${1:-}" = --check ]; then give_up "not made yet, or for another version of its packages"; fi
    mkdir -p "$(dirname "$venv")" 2>/dev/null || give_up "its folder cannot be made"
    # One at a time: tests and ranks may all find it missing at once.
    if command -v flock >/dev/null; then
        exec 9>"$venv.lock"
        flock 9
    fi
fi
if ! made; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        give_up "$python cannot make environments (Debian and Ubuntu: apt-get install python3-venv)"
    echo "prepare: making $venv (once; downloads about 30 MB)" >&2
    rm -rf "$venv"
    "$python" -m venv "$venv" >"$log" 2>&1 9>&- || give_up "$python -m venv failed ($log)"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --only-binary :all: \
        --requirement "$here/requirements.txt" >>"$log" 2>&1 9>&- || {
        reason=$(sed -n 's/^ERROR: //p' "$log" | tail -n 1)
        give_up "pip could not install its packages; without a network? ${reason:-no reason given} ($log)"
    }
    "$venv/bin/python" -c 'import h5py, jinja2, numpy, tokenizers' >>"$log" 2>&1 ||
        give_up "its packages cannot be imported ($log)"
    printf '%s\n' "$stamp" >"$venv/cadre-stamp"
fi
printf '%s\n' "$venv/bin/python"
