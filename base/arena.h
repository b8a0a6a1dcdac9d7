/* Arena: one buffer per rank and kind of memory, cut into regions that were declared by name, size
 * and lifetime.
 *
 * Declare everything, then commit once: the offsets are chosen (regions whose lifetimes do not meet
 * may share bytes: largest first at the lowest free offset, ties by order of declaration), one
 * buffer is allocated, and nothing more is allocated for the rest of the run. `cadre plan` prints
 * what the same declarations give without committing.
 *
 * A lifetime is an interval of phases [first, last]; phases are numbered by the owner of the arena
 * (trainer/ uses the steps of the static program). BASE_LIFETIME_RUN lives for ever. Regions start
 * on 256-byte boundaries (4096 on the strict device, so that a region can be opened alone). In
 * AddressSanitizer builds 128 poisoned bytes lie between regions on cpu. Not thread-safe: one
 * thread declares and commits; reading offsets afterwards is free. */
#ifndef CADRE_BASE_ARENA_H
#define CADRE_BASE_ARENA_H

#include "base/device/device.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_arena base_arena_t;
typedef struct base_lifetime {
    int32_t first, last;
} base_lifetime_t;
#define BASE_LIFETIME_RUN ((base_lifetime_t){0, INT32_MAX})

typedef int32_t base_region_t; /* index of a declaration; BASE_REGION_NONE for nothing */
#define BASE_REGION_NONE (-1)

base_status_t base_arena_create(base_device_t *dev, base_memory_kind_t kind, const char *name,
                                base_arena_t **arena_p) BASE_MUST_CHECK;
void base_arena_destroy(base_arena_t *arena); /* frees the buffer; NULL is legal */

/* Declares a region. `owner` is the folder ("attention_server"), `name` unique within it; both
 * copied. bytes >= 0. BASE_ERR_STATE after commit. */
base_status_t base_arena_declare(base_arena_t *arena, const char *owner, const char *name,
                                 int64_t bytes, base_lifetime_t lifetime,
                                 base_region_t *region_p) BASE_MUST_CHECK;

/* Chooses offsets only: base_arena_bytes and base_arena_print are valid afterwards. */
base_status_t base_arena_layout(base_arena_t *arena) BASE_MUST_CHECK;
/* Layout and the one allocation. */
base_status_t base_arena_commit(base_arena_t *arena) BASE_MUST_CHECK;

base_mem_t base_arena_mem(const base_arena_t *arena,
                          base_region_t region); /* after commit; {NULL,0} for NONE */
int64_t base_arena_region_bytes(const base_arena_t *arena, base_region_t region);
int64_t base_arena_bytes(const base_arena_t *arena);    /* size of the buffer, after layout */
int64_t base_arena_declared(const base_arena_t *arena); /* sum of all regions */

/* What was declared as region 0 <= r < num_regions; the texts are borrowed. */
typedef struct base_arena_entry {
    const char *owner, *name;
    int64_t bytes;
    base_lifetime_t lifetime;
} base_arena_entry_t;
base_region_t base_arena_num_regions(const base_arena_t *arena);
base_arena_entry_t base_arena_entry(const base_arena_t *arena, base_region_t region);
void base_arena_print(const base_arena_t *arena,
                      FILE *out); /* one line a region: owner, name, bytes, lifetime, offset */

#ifdef __cplusplus
}
#endif
#endif
