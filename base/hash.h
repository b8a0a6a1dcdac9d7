/* A 64-bit hash by which ranks, runs and hosts compare what they hold: plans, configuration,
 * dataset offsets.
 *
 * FNV-1a, 64 bits: h = 0xcbf29ce484222325; for each byte b: h = (h xor b) * 0x100000001b3 mod 2^64.
 * Numbers enter as their little-endian bytes, strings as their length (8 bytes) and then their
 * bytes, so the value depends neither on the host nor on how the calls were cut, except that ("a",
 * "b") and ("ab", "") differ. It finds differences between honest parties; it is not a defence
 * against forged data. About 0.5 GB/s.
 *
 *   base_hash_t h = BASE_HASH_START;
 *   h = base_hash_string(h, name);
 *   h = base_hash_i64(h, rows);
 */
#ifndef CADRE_BASE_HASH_H
#define CADRE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint64_t base_hash_t;
#define BASE_HASH_START UINT64_C(0xcbf29ce484222325)

base_hash_t base_hash_bytes(base_hash_t h, const void *data, size_t bytes);
base_hash_t base_hash_string(base_hash_t h, const char *s);
base_hash_t base_hash_u32(base_hash_t h, uint32_t v);
base_hash_t base_hash_u64(base_hash_t h, uint64_t v);
base_hash_t base_hash_i64(base_hash_t h, int64_t v);
/* The IEEE bits: 0.0 and -0.0 differ. */
base_hash_t base_hash_double(base_hash_t h, double v);
/* `count` numbers, each as base_hash_i64. */
base_hash_t base_hash_i64_array(base_hash_t h, const int64_t *v, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
