#include "base/config/text_pool.h"

#include "base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define BLOCK_BYTES 4096
#define ALIGNMENT   16

struct base_text_pool_block {
    base_text_pool_block_t *next;
    size_t used; /* from the start of the block, this header included */
    size_t bytes;
    size_t pad; /* keeps the header a multiple of the alignment */
};

void base_text_pool_init(base_text_pool_t *pool, base_ctx_t *ctx)
{
    *pool = (base_text_pool_t){.ctx = ctx};
}

void base_text_pool_deinit(base_text_pool_t *pool)
{
    while (pool->blocks != NULL) {
        base_text_pool_block_t *block = pool->blocks;

        pool->blocks = block->next;
        base_free(pool->ctx, block);
    }
}

void *base_text_pool_take(base_text_pool_t *pool, size_t bytes)
{
    const size_t need = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    base_text_pool_block_t *block = pool->blocks;
    void *taken;

    if (block == NULL || block->bytes - block->used < need) {
        size_t size = sizeof *block + need;

        if (size < BLOCK_BYTES) size = BLOCK_BYTES;
        block = base_alloc(pool->ctx, size, "configuration");
        if (block == NULL) {
            pool->failed = true;
            return NULL;
        }
        *block =
            (base_text_pool_block_t){.next = pool->blocks, .used = sizeof *block, .bytes = size};
        pool->blocks = block;
    }
    taken = (char *)block + block->used;
    block->used += need;
    memset(taken, 0, need);
    return taken;
}

char *base_text_pool_copy(base_text_pool_t *pool, const char *text, size_t length)
{
    char *copy = base_text_pool_take(pool, length + 1);

    if (copy != NULL && length > 0) memcpy(copy, text, length);
    return copy;
}

char *base_text_pool_vformat(base_text_pool_t *pool, const char *fmt, va_list args)
{
    va_list again;
    char *text = NULL;
    int length;

    va_copy(again, args);
    length = vsnprintf(NULL, 0, fmt, args);
    if (length >= 0) text = base_text_pool_take(pool, (size_t)length + 1);
    if (text != NULL) (void)vsnprintf(text, (size_t)length + 1, fmt, again);
    va_end(again);
    return text;
}

char *base_text_pool_format(base_text_pool_t *pool, const char *fmt, ...)
{
    va_list args;
    char *text;

    va_start(args, fmt);
    text = base_text_pool_vformat(pool, fmt, args);
    va_end(args);
    return text;
}
