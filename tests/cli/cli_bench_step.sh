#!/usr/bin/env bash
# tests/cli/cli_bench_step.sh CADRE: `cadre bench step` measures and counts; whether its gates are met is judged on a
# machine that does nothing else (docs/measurements), not here.
set -euo pipefail
cadre=$1
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
small=(--hidden 256 --layers 1 --vocab 64 --documents 2 --rows 130)

words="bench step"
code=0
"$cadre" bench step "${small[@]}" --repeat 2 --json >out 2>err || code=$?
if [ "$code" -gt 1 ] || [ -s err ]; then fail "exit code $code"; fi
python3 - "$code" <<'PY' || fail "numbers"
import json, sys

f = json.load(open("out"))
ops = {o["op"]: o for o in f["ops"]}
shares = [f[gate]["share"] for gate in ("blas", "dense", "attention")]
assert f["documents"] == 2 and f["rows"] == 130 and f["steps"] == 2
assert 0 <= shares[0] <= 1 and all(s > 0 for s in shares[1:])
met = all(f[gate]["met"] for gate in ("blas", "dense", "attention"))
assert met == (sys.argv[1] == "0")
assert all(f[gate]["met"] == (f[gate]["share"] >= f[gate]["wanted"]) for gate in ("blas", "dense", "attention"))
# 4 query heads of dimension 64; causal pairs of two documents; two products forward, five backward
pairs = 2 * 4 * 130 * 131 / 2
assert ops["attention_fwd"]["flops_per_step"] == pairs * 2 * 2 * 64
assert ops["attention_bwd"]["flops_per_step"] == pairs * 5 * 2 * 64
# the head: logits and the gradient of the rows that are targets
assert ops["loss_linear_ce"]["flops_per_step"] == 2 * 129 * 64 * 256 * 2 * 2
assert all(o["bare_ns_per_call"] > 0 for name, o in ops.items() if name.startswith("gemm"))
assert sum(o["ns_per_step"] for o in f["ops"]) <= 1.5 * f["step_cpu_ns"]
assert f["host"] and f["commit"] and f["cpu"] and f["openblas"]
PY
"$cadre" bench step "${small[@]}" --repeat 1 >out 2>err || [ $? -eq 1 ] || fail "exit code"
out '^attention_fwd +2 '
out '^blas +[0-9.]+ % of the step inside OpenBLAS; wanted 60 %: (yes|no)$'

expect 0 bench step --help
out '^Usage: cadre bench step'
expect 2 bench step --hidden 100
err 'CLI-02: --hidden: found "100"'
expect 2 bench step --hidden 300
err 'CLI-02: --hidden: found "300", wanted a multiple of 256'
expect 2 bench step --repeat 21
err 'CLI-02: --repeat: found "21", wanted a whole number from 1 to 20'
expect 2 bench step --hiden 256
err 'nearest is "--hidden"'
expect 2 bench stp
err 'CLI-02: bench: say what: plan, profile, attention, step, train, load, overlap, links, pack or placement'

finish "all steps measured"
