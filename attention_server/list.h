/* A growable array that keeps its memory between microbatches, so that nothing is allocated once it
 * has seen its largest plan. Elements move when it grows: keep indices, not pointers, until it is
 * complete. */
#ifndef CADRE_ATTENTION_SERVER_LIST_H
#define CADRE_ATTENTION_SERVER_LIST_H

#include "base/context.h"

typedef struct as_list {
    base_ctx_t *ctx;
    const char *what; /* for the memory accounting; static string */
    size_t element_bytes;
    int64_t count, capacity;
    void *items;
} as_list_t;

void as_list_init(as_list_t *list, base_ctx_t *ctx, size_t element_bytes, const char *what);
void as_list_deinit(as_list_t *list);

/* Room for `capacity` elements in all. MEM-01 when there is none. */
base_status_t as_list_reserve(as_list_t *list, int64_t capacity) BASE_MUST_CHECK;
/* Sets the count; new elements are zero. */
base_status_t as_list_resize(as_list_t *list, int64_t count) BASE_MUST_CHECK;
/* Appends a copy of *element. */
base_status_t as_list_push(as_list_t *list, const void *element) BASE_MUST_CHECK;

#endif
