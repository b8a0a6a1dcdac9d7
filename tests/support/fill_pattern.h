/* Guard zones for tests of GPU kernels: fill memory with a pattern, run the kernel under test,
 * check that nothing outside its outputs changed. Byte i of the pattern is a function of (seed,
 * i), so that moved data is found as well as overwritten data. */
#ifndef CADRE_TESTS_SUPPORT_FILL_PATTERN_H
#define CADRE_TESTS_SUPPORT_FILL_PATTERN_H

#include "base/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The pattern on the host (splitmix64 of the byte's 8-byte word). */
uint8_t kern_pattern_byte(uint64_t seed, int64_t i);

/* What kern_check_pattern writes. */
typedef struct kern_pattern_result {
    uint64_t num_wrong;
    uint64_t first_wrong; /* offset; UINT64_MAX when none */
} kern_pattern_result_t;

/* Writes bytes [0, bytes) of the pattern at dst, on a stream of a cuda device.
 * BASE_ERR_UNSUPPORTED on others. */
base_status_t kern_fill_pattern(base_stream_t *s, base_mem_t dst, int64_t bytes,
                                uint64_t seed) BASE_MUST_CHECK;

/* Compares, and writes a kern_pattern_result_t at `result` (device or pinned memory, offset a
 * multiple of 8). */
base_status_t kern_check_pattern(base_stream_t *s, base_mem_t src, int64_t bytes, uint64_t seed,
                                 base_mem_t result) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
