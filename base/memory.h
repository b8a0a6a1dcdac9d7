/* Memory accounting: what a rank holds, and proof that it stopped allocating.
 *
 * base_alloc, base_calloc, base_realloc, base_strdup and base_free are the only callers of the
 * malloc family outside base/device; the device reports its buffers with base_memory_count_alloc
 * and base_memory_count_free. Every context owns one base_memory_t (base_ctx_memory).
 *
 *   table_t *t = base_calloc(ctx, 1, sizeof *t, "adapter table");
 *   if (t == NULL)
 *       return BASE_ERR_NOMEM;                     (MEM-01 is recorded already)
 *   ...
 *   base_free(ctx, t);
 *
 * A block is freed with the context it was allocated with. Blocks are aligned for every scalar type
 * (16 bytes); what needs more comes from an arena.
 *
 * Threads: everything here may be called from all threads of a rank; counters are atomic, each
 * exact, and a snapshot of several of them is not. */
#ifndef CADRE_BASE_MEMORY_H
#define CADRE_BASE_MEMORY_H

#include "base/context.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is counted. The first three are memory, with bytes; the others are objects of foreign
 * libraries, number only. X(name, word) */
#define BASE_RESOURCE_MAP(X)                                                                       \
    X(HOST, "host memory")                                                                         \
    X(PINNED, "pinned memory")                                                                     \
    X(DEVICE, "device memory")                                                                     \
    X(STREAM, "streams")                                                                           \
    X(EVENT, "events")                                                                             \
    X(COUNTER, "counters")                                                                         \
    X(THREAD, "threads")                                                                           \
    X(FILE, "files")                                                                               \
    X(H5, "HDF5 handles")                                                                          \
    X(COMM, "communicators")                                                                       \
    X(REQUEST, "requests")

typedef enum base_resource {
#define X(name, word) BASE_RESOURCE_##name,
    BASE_RESOURCE_MAP(X)
#undef X
        BASE_RESOURCE_COUNT
} base_resource_t;

/* "host memory"; NULL for a value that is not in the list. Static string. */
const char *base_resource_word(base_resource_t resource);

/* ==== host memory of a rank ==== */

/* `bytes` bytes, undefined contents; 0 bytes give a unique pointer. Returns owned memory
 * (base_free), or NULL after recording MEM-01 with `what` and the size, so that the caller returns
 * BASE_ERR_NOMEM and adds nothing. */
void *base_alloc(base_ctx_t *ctx, size_t bytes, const char *what);

/* As base_alloc for count * elem_bytes zeroed bytes. A negative count or a product that does not
 * fit is MEM-01. */
void *base_calloc(base_ctx_t *ctx, int64_t count, size_t elem_bytes, const char *what);

/* Resizes `p` (NULL: allocates) to count * elem_bytes, contents up to the smaller size kept, the
 * rest undefined. On NULL `p` is as before and still owned. Assign the result to a second variable
 * first. */
void *base_realloc(base_ctx_t *ctx, void *p, int64_t count, size_t elem_bytes, const char *what);

/* A copy of the string. */
char *base_strdup(base_ctx_t *ctx, const char *s, const char *what);

/* NULL is legal. A block that did not come from here, or was freed already, aborts the process: the
 * heap is lost. */
void base_free(base_ctx_t *ctx, void *p);

/* ==== counters ==== */

/* Counts an allocation of memory before it is made. Returns BASE_ERR_NOMEM, without recording a
 * text, when the caller has to behave as if its allocator had failed (base_memory_fail_at); nothing
 * is counted then. When the real allocator fails afterwards take it back with
 * base_memory_count_free. resource is HOST, PINNED or DEVICE. */
base_status_t base_memory_count_alloc(base_memory_t *memory, base_resource_t resource,
                                      int64_t bytes) BASE_MUST_CHECK;
void base_memory_count_free(base_memory_t *memory, base_resource_t resource, int64_t bytes);

/* Counts an object that was created, or is about to be destroyed. Any resource that is not memory.
 */
void base_memory_count_open(base_memory_t *memory, base_resource_t resource);
void base_memory_count_close(base_memory_t *memory, base_resource_t resource);

/* Live blocks or objects; live bytes and their high-water mark (0 for objects). */
int64_t base_memory_live(const base_memory_t *memory, base_resource_t resource);
int64_t base_memory_bytes(const base_memory_t *memory, base_resource_t resource);
int64_t base_memory_peak(const base_memory_t *memory, base_resource_t resource);

/* Sum of base_memory_live over all resources: 0 when everything that borrows the context is gone.
 */
int64_t base_memory_live_total(const base_memory_t *memory);

/* Number of requests for memory so far (alloc, calloc, realloc and counted device allocations;
 * frees are not counted): equal before and after a microbatch means that it allocated nothing. */
int64_t base_memory_calls(const base_memory_t *memory);

/* Tests: the n-th request for memory from now fails (1: the next one), once. 0 switches it off. */
void base_memory_fail_at(base_memory_t *memory, int64_t n);

/* One line for each resource that was ever used: live, bytes, high-water mark. */
void base_memory_report(const base_memory_t *memory, FILE *out);

/* ==== before there is a context ==== */

/* Zeroed memory for the objects that a context itself rests on (the context, its counters, the
 * log), and nothing else. Not counted. NULL when there is none. */
void *base_memory_raw_calloc(size_t bytes);
void base_memory_raw_free(void *p);

/* Used by base_ctx_create and base_ctx_destroy only. */
base_memory_t *base_memory_create(void); /* NULL when there is no memory */
void base_memory_destroy(base_memory_t *memory);

#ifdef __cplusplus
}
#endif
#endif
