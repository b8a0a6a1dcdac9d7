#include "base/device/host_queue.h"

#define CHUNK_BYTES      ((size_t)64 * 1024)
#define NUM_FIRST_CHUNKS 8

struct base_host_chunk {
    base_host_chunk_t *next;
    size_t capacity, written, read;
};

/* The records begin on the next multiple of 16 bytes. */
#define CHUNK_HEADER ((sizeof(base_host_chunk_t) + 15) & ~(size_t)15)

static unsigned char *chunk_bytes(base_host_chunk_t *c)
{
    return (unsigned char *)c + CHUNK_HEADER;
}

static base_host_chunk_t *chunk_create(base_ctx_t *ctx, size_t capacity)
{
    base_host_chunk_t *c = base_alloc(ctx, CHUNK_HEADER + capacity, "stream queue");
    if (c == NULL) return NULL;
    c->next = NULL;
    c->capacity = capacity;
    c->written = c->read = 0;
    return c;
}

base_status_t base_host_queue_init(base_host_queue_t *q, base_ctx_t *ctx)
{
    q->ctx = ctx;
    q->first = q->last = q->unused = NULL;
    for (int i = 0; i < NUM_FIRST_CHUNKS; i++) {
        base_host_chunk_t *c = chunk_create(ctx, CHUNK_BYTES);
        if (c == NULL) return BASE_ERR_NOMEM;
        c->next = q->unused;
        q->unused = c;
    }
    return BASE_OK;
}

void base_host_queue_deinit(base_host_queue_t *q)
{
    base_host_chunk_t *const lists[2] = {q->first, q->unused};
    for (int i = 0; i < 2; i++)
        for (base_host_chunk_t *c = lists[i]; c != NULL;) {
            base_host_chunk_t *next = c->next;
            base_free(q->ctx, c);
            c = next;
        }
    q->first = q->last = q->unused = NULL;
}

/* An empty chunk of that capacity from the free list, or a new one. */
static base_host_chunk_t *chunk_take(base_host_queue_t *q, size_t capacity)
{
    base_host_chunk_t **link = &q->unused;
    while (*link != NULL && (*link)->capacity < capacity)
        link = &(*link)->next;
    base_host_chunk_t *c = *link;
    if (c == NULL) return chunk_create(q->ctx, capacity > CHUNK_BYTES ? capacity : CHUNK_BYTES);
    *link = c->next;
    c->next = NULL;
    return c;
}

void *base_host_queue_push(base_host_queue_t *q, size_t bytes)
{
    base_host_chunk_t *c = q->last;
    if (c == NULL || c->capacity - c->written < bytes) {
        c = chunk_take(q, bytes);
        if (c == NULL) return NULL;
        if (q->last == NULL)
            q->first = c;
        else
            q->last->next = c;
        q->last = c;
    }
    void *record = chunk_bytes(c) + c->written;
    c->written += bytes;
    return record;
}

void *base_host_queue_head(base_host_queue_t *q)
{
    /* Chunks that have been read are recycled here and not in pop: the last one is filled anew
     * from its start, unless a long record made the writer leave it empty. */
    while (q->first != q->last && q->first->read == q->first->written) {
        base_host_chunk_t *c = q->first;
        q->first = c->next;
        c->read = c->written = 0;
        c->next = q->unused;
        q->unused = c;
    }
    base_host_chunk_t *c = q->first;
    return c == NULL || c->read == c->written ? NULL : chunk_bytes(c) + c->read;
}

void base_host_queue_pop(base_host_queue_t *q, size_t bytes)
{
    base_host_chunk_t *c = q->first;
    c->read += bytes;
    if (c->read == c->written) c->read = c->written = 0;
}
