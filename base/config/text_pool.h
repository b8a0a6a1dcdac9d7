/* Text pool: many small pieces of memory that live and die together.
 *
 * A configuration is a tree of a few hundred nodes and strings; one pool owns them all, so that
 * every error path frees them in one call. Not thread-safe. Memory is 16-byte aligned and comes
 * from base_alloc in blocks. */
#ifndef CADRE_BASE_CONFIG_TEXT_POOL_H
#define CADRE_BASE_CONFIG_TEXT_POOL_H

#include "base/context.h"

#include <stdarg.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_text_pool_block base_text_pool_block_t;

typedef struct base_text_pool {
    base_ctx_t *ctx; /* borrowed */
    base_text_pool_block_t *blocks;
    bool failed; /* an allocation failed; MEM-01 is recorded */
} base_text_pool_t;

/* Symmetric to deinit; allocates nothing. */
void base_text_pool_init(base_text_pool_t *pool, base_ctx_t *ctx);
void base_text_pool_deinit(
    base_text_pool_t *pool); /* frees everything taken from the pool; may be repeated */

/* Zeroed memory, a copy of `length` bytes with a zero byte behind them, a formatted string. NULL
 * when there is no memory: MEM-01 is recorded and pool->failed is set, so a caller may check once
 * at the end. */
void *base_text_pool_take(base_text_pool_t *pool, size_t bytes);
char *base_text_pool_copy(base_text_pool_t *pool, const char *text, size_t length);
char *base_text_pool_format(base_text_pool_t *pool, const char *fmt, ...) BASE_PRINTF(2, 3);
char *base_text_pool_vformat(base_text_pool_t *pool, const char *fmt, va_list args)
    BASE_PRINTF(2, 0);

#ifdef __cplusplus
}
#endif
#endif
