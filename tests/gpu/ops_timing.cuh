/* Speed of the CUDA ops on the shapes of Llama-3.1-8B, 16384 rows: memory-bound ops as a share of
 * a device copy timed in the same run, products beside the best that cuBLASLt has, a linear layer
 * with LoRA beside the frozen one. One line each on stdout, elements of arrays in `json` (may be
 * NULL). */
#ifndef CADRE_TESTS_GPU_OPS_TIMING_CUH
#define CADRE_TESTS_GPU_OPS_TIMING_CUH

#include "tests/gpu/gpu_fixture.cuh"

#include <cstdio>
#include <functional>

void ops_timing(gpu_fixture *fx, FILE *json);

/* Milliseconds of one call: the median over `repeats` of `calls` calls between two events. With `lead` the
 * stream is busy before the first event, so that the host is ahead of it, as in a step; else what the host
 * needs for the first call (90 us for adamw with its 448 tensors) is a part of the time. */
double ops_time(gpu_fixture *fx, const std::function<void()> &call, int calls = 3, int repeats = 9,
                bool lead = false);

/* In ops_timing_gemm.cu; the last takes the algorithms that the first has searched. */
void ops_timing_gemm(gpu_fixture *fx, FILE *json);
void ops_timing_pitch(gpu_fixture *fx, FILE *json); /* of 8192 rows */
void ops_timing_linear(gpu_fixture *fx, FILE *json);

#endif
