#!/usr/bin/env bash
# ptxas_check.sh COMPILER ARGUMENT...
#
# Compiles a CUDA file, and fails where ptxas says in passing what halves a kernel's speed: registers spilled to memory,
# matrix products serialised or setmaxnreg ignored (C75xx). C7519, a wgmma.fence that ptxas adds itself, is harmless.
set -uo pipefail
output=$("$@" 2>&1)
status=$?
faults=$(grep -E 'C75[0-9][0-9]|spilled' <<<"$output" | grep -v C7519)
grep -v C7519 <<<"$output" | grep . >&2
if [ "$status" -ne 0 ]; then exit "$status"; fi
if [ -n "$faults" ]; then
    echo "ptxas_check.sh: not acceptable in a kernel: see above" >&2
    exit 1
fi
