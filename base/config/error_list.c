#include "base/config/error_list.h"

#include "base/memory.h"
#include "base/sort.h"

#include <stdarg.h>
#include <stdint.h>

void base_error_list_init(base_error_list_t *list, base_ctx_t *ctx)
{
    *list = (base_error_list_t){0};
    base_text_pool_init(&list->pool, ctx);
}

void base_error_list_deinit(base_error_list_t *list)
{
    base_free(list->pool.ctx, list->items);
    list->items = NULL;
    list->count = list->capacity = 0;
    base_text_pool_deinit(&list->pool);
}

static char *text_of(base_text_pool_t *pool, base_error_place_t place, const char *what)
{
    const char *source = place.source == NULL ? "" : place.source;

    if (place.line > 0)
        return base_text_pool_format(pool, "%s:%d:%d: %s", source, place.line, place.column, what);
    return base_text_pool_format(pool, "%s: %s", source, what);
}

void base_error_list_add(base_error_list_t *list, base_message_t message, base_error_place_t place,
                         const char *fmt, ...)
{
    va_list args;
    char *what, *text;

    va_start(args, fmt);
    what = base_text_pool_vformat(&list->pool, fmt, args);
    va_end(args);
    if (what == NULL) return;
    text = text_of(&list->pool, place, what);
    if (text == NULL) return;
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        base_error_item_t *items = base_realloc(list->pool.ctx, list->items, (int64_t)capacity,
                                                sizeof *items, "list of errors");
        if (items == NULL) {
            list->pool.failed = true;
            return;
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count] = (base_error_item_t){message, place, (int64_t)list->count, text};
    list->count++;
}

/* The index makes the order total: a heap sort keeps no order among equals. */
static int by_place(const void *a, const void *b, const void *arg)
{
    const base_error_item_t *x = a, *y = b;

    (void)arg;
    if (x->place.order != y->place.order) return base_compare_i64(x->place.order, y->place.order);
    if (x->place.line != y->place.line) return base_compare_i64(x->place.line, y->place.line);
    if (x->place.column != y->place.column)
        return base_compare_i64(x->place.column, y->place.column);
    return base_compare_i64(x->index, y->index);
}

base_status_t base_error_list_finish(base_error_list_t *list)
{
    if (list->pool.failed) return BASE_ERR_NOMEM;
    if (list->count == 0) return BASE_OK;
    base_sort(list->items, (int64_t)list->count, sizeof *list->items, by_place, NULL);
    return BASE_FAIL(list->pool.ctx, BASE_ERR_CONFIG, list->items[0].message, "%s",
                     list->items[0].text);
}

void base_error_list_print(const base_error_list_t *list, FILE *out)
{
    const size_t shown = list->count < BASE_ERROR_LIST_SHOWN ? list->count : BASE_ERROR_LIST_SHOWN;

    for (size_t i = 0; i < shown; i++) {
        const base_message_t message = list->items[i].message;

        (void)fprintf(out, "cadre: error %s: %s\n", base_message_id(message), list->items[i].text);
        if (i + 1 == shown || list->items[i + 1].message != message)
            (void)fprintf(out, "    %s\n", base_message_cure(message));
    }
    if (list->count > shown)
        (void)fprintf(out, "cadre: %zu more errors, %zu in all\n", list->count - shown,
                      list->count);
}
