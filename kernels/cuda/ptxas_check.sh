#!/usr/bin/env bash
# ptxas_check.sh COMPILER ARGUMENT...
# ptxas_check.sh --self-test
#
# Compiles a CUDA file, and fails where ptxas says in passing what halves a kernel's speed: registers spilled to memory,
# matrix products serialised or setmaxnreg ignored (C75xx), in a kernel for sm_90 also a stack frame (an array that did not
# become registers). C7519, a wgmma.fence that ptxas adds itself, is harmless. Wants -Xptxas=-v, and fails when ptxas is
# silent, so that no change of options or of its words lets everything pass.
set -uo pipefail

# Of ptxas's output: what is not acceptable, a line each.
faults_in() {
    grep -E 'C75[0-9][0-9]' <<<"$1" | grep -v C7519
    awk '
        /Function properties for/ { kernel = $NF }
        /Compiling entry function/ { split($0, word, "\047"); kernel = word[2] }
        /bytes stack frame/ {
            stack = 0; spilled = 0
            for (i = 2; i < NF; i++) if ($i == "bytes") {
                if ($(i + 1) == "stack") stack += $(i - 1)
                if ($(i + 1) == "spill") spilled += $(i - 1)
            }
            if (spilled > 0) print kernel ": " spilled " bytes of spills"
            if (stack > 0 && kernel ~ /sm90/) print kernel ": a stack frame of " stack " bytes"
        }' <<<"$1"
    grep -qE '^ptxas info' <<<"$1" || echo "ptxas has said nothing: is -Xptxas=-v given?"
}

run() { # run COMMAND...
    local output status faults
    output=$("$@" 2>&1)
    status=$?
    # What ptxas tells on request is for this script; the rest is for people.
    grep -vE '^ptxas info|bytes stack frame|C7519' <<<"$output" | grep . >&2
    if [ "$status" -ne 0 ]; then return "$status"; fi
    faults=$(faults_in "$output")
    if [ -z "$faults" ]; then return 0; fi
    printf 'ptxas_check.sh: not acceptable in a kernel:\n%s\n' "$faults" >&2
    return 1
}

self_test() {
    local failed=0
    says() { # says STATUS TEXT: a compiler that says this and succeeds is judged so
        local got
        (run printf '%b' "$2") 2>/dev/null && got=0 || got=1
        if [ "$got" -ne "$1" ]; then
            printf 'ptxas_check.sh: self-test: %s, wanted %s: %s\n' "$got" "$1" "$2" >&2
            failed=1
        fi
    }
    local head="ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function '_Z8fwd_sm90' for 'sm_90a'\n"
    local of="ptxas info    : Function properties for _Z8fwd_sm90\n"
    local used="ptxas info    : Used 168 registers, used 10 barriers\n"
    says 0 "$head$of    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n$used"
    says 0 "ptxas info    : 0 bytes gmem\n"
    says 0 "$head${of}    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nptxas info    : (C7519) Potential\n"
    says 1 "$head$of    0 bytes stack frame, 8 bytes spill stores, 0 bytes spill loads\n$used"
    says 1 "$head$of    0 bytes stack frame, 0 bytes spill stores, 12 bytes spill loads\n$used"
    says 1 "$head$of    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n$used"
    says 0 "${head//fwd_sm90/lora_s}${of//fwd_sm90/lora_s}    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    says 1 "${head}ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n"
    says 1 "${head}ptxas warning : (C7508) Potential Performance Loss: setmaxnreg ignored\n"
    says 1 ""
    if run false 2>/dev/null; then
        echo "ptxas_check.sh: self-test: a compiler that fails passes" >&2
        failed=1
    fi
    if [ "$failed" -eq 0 ]; then echo "ptxas_check.sh: self-test passed"; fi
    return "$failed"
}

if [ "${1:-}" = --self-test ]; then
    self_test
else
    run "$@"
fi
