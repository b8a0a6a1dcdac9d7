#include "base/memory.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Lies before each block. 32 bytes keep the alignment that malloc gives. */
typedef struct block {
    uint64_t bytes;
    uint64_t magic;
    uint64_t unused[2];
} block_t;

#define MAGIC_LIVE  UINT64_C(0x6361647265206865) /* "cadre he" */
#define MAGIC_FREED UINT64_C(0x6672656564212121) /* "freed!!!" */
#define BYTES_MAX   ((size_t)(INT64_MAX - (int64_t)sizeof(block_t)))

typedef struct tally {
    _Atomic int64_t live;
    _Atomic int64_t bytes;
    _Atomic int64_t peak;
    _Atomic int64_t total; /* ever counted: the report names only what was used */
} tally_t;

struct base_memory {
    tally_t tally[BASE_RESOURCE_COUNT];
    _Atomic int64_t calls;
    _Atomic int64_t fail_in; /* > 0: that many requests from now one fails */
};

static int is_memory(base_resource_t resource)
{
    return resource == BASE_RESOURCE_HOST || resource == BASE_RESOURCE_PINNED ||
           resource == BASE_RESOURCE_DEVICE;
}

const char *base_resource_word(base_resource_t resource)
{
    switch (resource) {
#define X(name, word)                                                                              \
    case BASE_RESOURCE_##name:                                                                     \
        return word;
        BASE_RESOURCE_MAP(X)
#undef X
    case BASE_RESOURCE_COUNT:
        break;
    }
    return NULL;
}

/* ==== counters ==== */

static void raise_peak(tally_t *t, int64_t bytes)
{
    int64_t peak = atomic_load_explicit(&t->peak, memory_order_relaxed);

    while (bytes > peak && !atomic_compare_exchange_weak(&t->peak, &peak, bytes))
        continue;
}

static void tally_add(tally_t *t, int64_t bytes)
{
    atomic_fetch_add(&t->live, 1);
    atomic_fetch_add(&t->total, 1);
    raise_peak(t, atomic_fetch_add(&t->bytes, bytes) + bytes);
}

static void tally_sub(tally_t *t, int64_t bytes)
{
    atomic_fetch_sub(&t->live, 1);
    atomic_fetch_sub(&t->bytes, bytes);
}

/* Counts one request for memory; 0 when it has to fail. */
static int request(base_memory_t *memory)
{
    int64_t left = atomic_load_explicit(&memory->fail_in, memory_order_relaxed);

    atomic_fetch_add(&memory->calls, 1);
    while (left > 0) {
        if (atomic_compare_exchange_weak(&memory->fail_in, &left, left - 1)) return left != 1;
    }
    return 1;
}

base_status_t base_memory_count_alloc(base_memory_t *memory, base_resource_t resource,
                                      int64_t bytes)
{
    if (!is_memory(resource) || bytes < 0) return BASE_ERR_ARG;
    if (!request(memory)) return BASE_ERR_NOMEM;
    tally_add(&memory->tally[resource], bytes);
    return BASE_OK;
}

void base_memory_count_free(base_memory_t *memory, base_resource_t resource, int64_t bytes)
{
    if (is_memory(resource)) tally_sub(&memory->tally[resource], bytes);
}

void base_memory_count_open(base_memory_t *memory, base_resource_t resource)
{
    tally_add(&memory->tally[resource], 0);
}

void base_memory_count_close(base_memory_t *memory, base_resource_t resource)
{
    tally_sub(&memory->tally[resource], 0);
}

int64_t base_memory_live(const base_memory_t *memory, base_resource_t resource)
{
    return atomic_load(&memory->tally[resource].live);
}

int64_t base_memory_bytes(const base_memory_t *memory, base_resource_t resource)
{
    return atomic_load(&memory->tally[resource].bytes);
}

int64_t base_memory_peak(const base_memory_t *memory, base_resource_t resource)
{
    return atomic_load(&memory->tally[resource].peak);
}

int64_t base_memory_live_total(const base_memory_t *memory)
{
    int64_t sum = 0;

    for (int r = 0; r < BASE_RESOURCE_COUNT; r++)
        sum += atomic_load(&memory->tally[r].live);
    return sum;
}

int64_t base_memory_calls(const base_memory_t *memory)
{
    return atomic_load(&memory->calls);
}

void base_memory_fail_at(base_memory_t *memory, int64_t n)
{
    atomic_store(&memory->fail_in, n > 0 ? n : 0);
}

void base_memory_report(const base_memory_t *memory, FILE *out)
{
    for (int r = 0; r < BASE_RESOURCE_COUNT; r++) {
        const tally_t *t = &memory->tally[r];

        if (atomic_load(&t->total) == 0) continue;
        fprintf(out, "%-16s %8" PRId64 " live", base_resource_word((base_resource_t)r),
                atomic_load(&t->live));
        if (is_memory((base_resource_t)r))
            fprintf(out, " %16" PRId64 " bytes %16" PRId64 " peak", atomic_load(&t->bytes),
                    atomic_load(&t->peak));
        fprintf(out, "\n");
    }
}

/* ==== host memory of a rank ==== */

static void *fail_alloc(base_ctx_t *ctx, const char *what, size_t bytes)
{
    (void)BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                    "rank %d: %s: %zu bytes of host memory wanted, %" PRId64 " in use",
                    base_ctx_rank(ctx), what, bytes,
                    base_memory_bytes(base_ctx_memory(ctx), BASE_RESOURCE_HOST));
    return NULL;
}

static void *fail_count(base_ctx_t *ctx, const char *what, int64_t count, size_t elem_bytes)
{
    (void)BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                    "rank %d: %s: %" PRId64 " elements of %zu bytes cannot be allocated",
                    base_ctx_rank(ctx), what, count, elem_bytes);
    return NULL;
}

/* 1 and *bytes when the product is a size, else 0. */
static int product(int64_t count, size_t elem_bytes, size_t *bytes)
{
    if (count < 0 || (elem_bytes != 0 && (uint64_t)count > BYTES_MAX / elem_bytes)) return 0;
    *bytes = (size_t)count * elem_bytes;
    return 1;
}

static void *block_new(base_ctx_t *ctx, size_t bytes, int zero, const char *what)
{
    base_memory_t *memory = base_ctx_memory(ctx);
    block_t *b;

    if (bytes > BYTES_MAX ||
        base_memory_count_alloc(memory, BASE_RESOURCE_HOST, (int64_t)bytes) < 0)
        return fail_alloc(ctx, what, bytes);
    b = zero ? calloc(1, sizeof *b + bytes) : malloc(sizeof *b + bytes);
    if (b == NULL) {
        base_memory_count_free(memory, BASE_RESOURCE_HOST, (int64_t)bytes);
        return fail_alloc(ctx, what, bytes);
    }
    b->bytes = bytes;
    b->magic = MAGIC_LIVE;
    return b + 1;
}

static block_t *block_of(void *p)
{
    block_t *b = (block_t *)p - 1;

    if (b->magic != MAGIC_LIVE) abort();
    return b;
}

void *base_alloc(base_ctx_t *ctx, size_t bytes, const char *what)
{
    return block_new(ctx, bytes, 0, what);
}

void *base_calloc(base_ctx_t *ctx, int64_t count, size_t elem_bytes, const char *what)
{
    size_t bytes;

    if (!product(count, elem_bytes, &bytes)) return fail_count(ctx, what, count, elem_bytes);
    return block_new(ctx, bytes, 1, what);
}

void *base_realloc(base_ctx_t *ctx, void *p, int64_t count, size_t elem_bytes, const char *what)
{
    base_memory_t *memory = base_ctx_memory(ctx);
    tally_t *host = &memory->tally[BASE_RESOURCE_HOST];
    block_t *b;
    size_t bytes;
    int64_t more;

    if (!product(count, elem_bytes, &bytes)) return fail_count(ctx, what, count, elem_bytes);
    if (p == NULL) return block_new(ctx, bytes, 0, what);
    b = block_of(p);
    more = (int64_t)bytes - (int64_t)b->bytes;
    if (!request(memory)) return fail_alloc(ctx, what, bytes);
    b = realloc(b, sizeof *b + bytes);
    if (b == NULL) return fail_alloc(ctx, what, bytes);
    b->bytes = bytes;
    raise_peak(host, atomic_fetch_add(&host->bytes, more) + more);
    return b + 1;
}

char *base_strdup(base_ctx_t *ctx, const char *s, const char *what)
{
    const size_t bytes = strlen(s) + 1;
    char *copy = base_alloc(ctx, bytes, what);

    if (copy != NULL) memcpy(copy, s, bytes);
    return copy;
}

void base_free(base_ctx_t *ctx, void *p)
{
    block_t *b;

    if (p == NULL) return;
    b = block_of(p);
    base_memory_count_free(base_ctx_memory(ctx), BASE_RESOURCE_HOST, (int64_t)b->bytes);
    b->magic = MAGIC_FREED;
    free(b);
}

/* ==== before there is a context ==== */

void *base_memory_raw_calloc(size_t bytes)
{
    return calloc(1, bytes);
}

void base_memory_raw_free(void *p)
{
    free(p);
}

base_memory_t *base_memory_create(void)
{
    base_memory_t *memory = base_memory_raw_calloc(sizeof *memory);

    if (memory == NULL) return NULL;
    for (int r = 0; r < BASE_RESOURCE_COUNT; r++) {
        atomic_init(&memory->tally[r].live, 0);
        atomic_init(&memory->tally[r].bytes, 0);
        atomic_init(&memory->tally[r].peak, 0);
        atomic_init(&memory->tally[r].total, 0);
    }
    atomic_init(&memory->calls, 0);
    atomic_init(&memory->fail_in, 0);
    return memory;
}

void base_memory_destroy(base_memory_t *memory)
{
    base_memory_raw_free(memory);
}
