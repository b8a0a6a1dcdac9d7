/* Sorting in place.
 *
 * The C library's qsort may take memory from malloc (glibc does above 1 KiB), which nobody would
 * count and which the microbatch loop must not do. base_sort is a heap sort: n log n in every case,
 * no memory, not stable. Planners and packers therefore give it total orders (no two elements
 * compare equal), so that every rank gets the same result.
 *
 *   static int by_rows(const void *a, const void *b, const void *arg);
 *   base_sort(pieces, num_pieces, sizeof *pieces, by_rows, batch);
 */
#ifndef CADRE_BASE_SORT_H
#define CADRE_BASE_SORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* < 0, 0, > 0: a lies before, equals, lies after b. `arg` is what base_sort was given. */
typedef int (*base_compare_fn)(const void *a, const void *b, const void *arg);

/* Sorts `count` elements of `elem_bytes` bytes ascending. */
void base_sort(void *elements, int64_t count, size_t elem_bytes, base_compare_fn compare,
               const void *arg);

/* -1, 0 or 1 as a < b, a == b, a > b; for compare functions, where a difference could overflow. */
static inline int base_compare_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

#ifdef __cplusplus
}
#endif
#endif
