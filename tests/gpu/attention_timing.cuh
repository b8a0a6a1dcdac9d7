/* Speed of the CUDA attention ops: CUDA events round each call, after a warm-up, on random data. */
#ifndef CADRE_TESTS_GPU_ATTENTION_TIMING_CUH
#define CADRE_TESTS_GPU_ATTENTION_TIMING_CUH

#include "tests/gpu/gpu_fixture.cuh"

#include <cstdio>

/* Shapes [first_shape, first_shape + count) of the list: one line each on stdout, and one object
 * each in `json` (may be NULL), as elements of an array. */
void attention_timing(gpu_fixture *fx, int64_t first_shape, int64_t count, FILE *json);

#endif
