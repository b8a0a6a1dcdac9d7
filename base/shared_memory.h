/* Memory that processes of one host share. It has no name in any file system (memfd), so nothing is
 * left behind, whichever process ends first and how: another process of the same user opens it through
 * /proc while its creator lives, and a mapping that it has made by then stays valid for as long as it
 * likes.
 *
 *   BASE_TRY(base_shared_create(ctx, bytes, NULL, "desk", &mine));
 *   const base_shared_name_t name = base_shared_name(mine);         plain bytes: send them as they are
 *   BASE_TRY(base_shared_open(ctx, &name, NULL, "rank 3's desk", &theirs));      in the other process
 *
 * Not counted in base/memory.h: whoever makes it counts it where it belongs. */
#ifndef CADRE_BASE_SHARED_MEMORY_H
#define CADRE_BASE_SHARED_MEMORY_H

#include "base/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_shared base_shared_t;

/* Where the memory is found, and how to tell that it is still the same. */
typedef struct base_shared_name {
    int64_t process, bytes;
    uint64_t device, inode;
    int32_t file, pad;
} base_shared_name_t;

/* New memory of zeros, mapped for reading and writing where there is room (`at` NULL), or over a mapping
 * of the caller's at `at`, whole pages, which stays the caller's to unmap. BASE_ERR_NOMEM (MEM-01). */
base_status_t base_shared_create(base_ctx_t *ctx, int64_t bytes, void *at, const char *what,
                                 base_shared_t **shared_p) BASE_MUST_CHECK;
/* Maps another process's (or this one's). BASE_ERR_COMM (COMM-05) when it cannot be reached or is not
 * what was named. */
base_status_t base_shared_open(base_ctx_t *ctx, const base_shared_name_t *name, void *at,
                               const char *what, base_shared_t **shared_p) BASE_MUST_CHECK;
void base_shared_close(base_shared_t *shared); /* NULL is legal */

void *base_shared_address(const base_shared_t *shared);
int64_t base_shared_bytes(const base_shared_t *shared);
base_shared_name_t base_shared_name(const base_shared_t *shared);

#ifdef __cplusplus
}
#endif
#endif
