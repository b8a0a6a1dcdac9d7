/* attention_delta and partial_sum by themselves, with pitches, odd counts and long lists, and
 * the calls that are refused. */
#ifndef CADRE_TESTS_GPU_ATTENTION_PARTS_CUH
#define CADRE_TESTS_GPU_ATTENTION_PARTS_CUH

#include "tests/gpu/gpu_fixture.cuh"

/* The number of faults; each is printed. */
int attention_parts(gpu_fixture *fx);

#endif
