#!/usr/bin/env bash
# tests/cli/cli_bench_links.sh CADRE MPIEXEC: `cadre bench links` measures every transport there is here. How fast they are is
# judged on a machine that does nothing else (docs/measurements), not here.
set -euo pipefail
cadre=$1 mpiexec=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
small=(--max-mib 1 --rounds 1 --round-ms 1)

rows() { # rows RANKS TRANSPORT...: one object for each transport, way and size
    python3 - "$@" <<'PY' || fail "rows"
import json, sys

rows = [json.loads(line) for line in open("out")]
wanted = [(t, way, b) for t in sys.argv[2:] for way in ("one", "both") for b in (65536, 262144, 1048576)]
assert [(r["transport"], r["way"], r["bytes"]) for r in rows] == wanted
for r in rows:
    assert r["ranks"] == int(sys.argv[1]) and r["device"] == "cpu" and r["repeat"] > 0 and r["ns"] > 0 and r["alone_ns"] > 0 and r["bare_told_ns"] > 0 and r["less_than"] == ""
    assert abs(r["gb_per_s"] * r["ns"] / r["bytes"] - 1) < 1e-3 and abs(r["bare_ns"] / r["ns"] / r["share"] - 1) < 1e-3
PY
}

expect 0 bench links --threads 3 "${small[@]}" --json
rows 3 threads
words="bench links on 2 processes"
"$mpiexec" --oversubscribe -n 2 "$cadre" bench links "${small[@]}" --json >out 2>err || fail "exit code $?"
rows 2 mpi copy_engine
"$mpiexec" --oversubscribe -n 2 "$cadre" bench links "${small[@]}" --transport copy_engine --tell-every 2 --json >out 2>err ||
    fail "--tell-every: exit code $?"
grep -q '"told_every":2' out || fail "--tell-every"
# Nothing copies this fast.
expect 1 bench links --threads 2 --max-mib 64 --rounds 1 --round-ms 1 --want-gb 100000
out '^threads +cpu +2 both +67108864 .* LESS THAN 100000 GB/s$'

expect 2 bench links "${small[@]}"
err "CLI-02"
err "a rank alone has no link"
expect 2 bench links --threads 2 --transport mpi,carrier_pigeon
err 'found "mpi,carrier_pigeon"'
expect 2 bench links --threads 2 --device tpu
err 'found "tpu"'
words="bench links on 2 processes, a bad option"
code=0
"$mpiexec" -q --oversubscribe -n 2 "$cadre" bench links --device tpu >out 2>err || code=$?
[ "$code" -eq 2 ] || fail "exit code $code"
errors 1
err 'CLI-02: --device: found "tpu"'
expect 0 bench links --help
finish "every transport measured"
