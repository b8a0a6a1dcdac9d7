#include "attention_server/list.h"

#include "base/memory.h"

#include <string.h>

void as_list_init(as_list_t *list, base_ctx_t *ctx, size_t element_bytes, const char *what)
{
    *list = (as_list_t){.ctx = ctx, .what = what, .element_bytes = element_bytes};
}

void as_list_deinit(as_list_t *list)
{
    if (list->items != NULL) base_free(list->ctx, list->items);
    list->items = NULL;
    list->count = list->capacity = 0;
}

base_status_t as_list_reserve(as_list_t *list, int64_t capacity)
{
    if (capacity <= list->capacity) return BASE_OK;
    int64_t grown = list->capacity < 16 ? 16 : list->capacity;
    while (grown < capacity)
        grown *= 2;
    void *items = base_realloc(list->ctx, list->items, grown, list->element_bytes, list->what);
    if (items == NULL) return BASE_ERR_NOMEM;
    list->items = items;
    list->capacity = grown;
    return BASE_OK;
}

base_status_t as_list_resize(as_list_t *list, int64_t count)
{
    BASE_TRY(as_list_reserve(list, count));
    if (count > list->count)
        memset((char *)list->items + (size_t)list->count * list->element_bytes, 0,
               (size_t)(count - list->count) * list->element_bytes);
    list->count = count;
    return BASE_OK;
}

base_status_t as_list_push(as_list_t *list, const void *element)
{
    BASE_TRY(as_list_reserve(list, list->count + 1));
    memcpy((char *)list->items + (size_t)list->count * list->element_bytes, element,
           list->element_bytes);
    list->count++;
    return BASE_OK;
}
