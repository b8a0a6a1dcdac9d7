#include "lora/bound.h"

#include "base/memory.h"
#include "base/sort.h"

#include <string.h>

static int64_t at_most(int64_t rows, int64_t capacity)
{
    return rows < capacity ? rows : capacity;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a <= 0 ? 0 : (a + b - 1) / b;
}

int64_t lora_bound_volume(const int64_t *rows, int64_t num, int64_t capacity)
{
    int64_t sum = 0;

    for (int64_t i = 0; i < num; i++)
        sum += at_most(rows[i], capacity);
    return ceil_div(sum, capacity);
}

/* For a threshold t <= capacity / 2: documents above capacity - t and those above half of it need a
 * microbatch each, and those from t to half of it only fit into what the latter leave. The threshold
 * grows through the lengths of the smaller half; `alone` follows it from the longest down. */
int64_t lora_bound_l2(const int64_t *sorted, int64_t num, int64_t capacity)
{
    int64_t best = lora_bound_volume(sorted, num, capacity);
    int64_t above_half = 0, alone = 0, shared_rows = 0, small_rows = 0;

    while (above_half < num && 2 * at_most(sorted[above_half], capacity) > capacity)
        shared_rows += at_most(sorted[above_half++], capacity);
    for (int64_t i = above_half; i < num; i++)
        small_rows += sorted[i];
    /* Threshold 0 first: nothing is alone. */
    for (int64_t i = num; i >= above_half; i--) {
        const int64_t threshold = i < num ? sorted[i] : 0;

        while (alone < above_half && at_most(sorted[alone], capacity) > capacity - threshold)
            shared_rows -= at_most(sorted[alone++], capacity);
        const int64_t room = (above_half - alone) * capacity - shared_rows;
        const int64_t bound = above_half + ceil_div(small_rows - room, capacity);

        if (bound > best) best = bound;
        /* Documents shorter than the next threshold drop out. */
        if (i < num) small_rows -= sorted[i];
        while (i > above_half && i < num && sorted[i - 1] == sorted[i])
            small_rows -= sorted[--i];
    }
    return best;
}

/* ==== windows ==== */

static int longest_first(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return base_compare_i64(*(const int64_t *)b, *(const int64_t *)a);
}

static void sort_rows(int64_t *to, const int64_t *rows, int64_t num)
{
    memcpy(to, rows, (size_t)num * sizeof *to);
    base_sort(to, num, sizeof *to, longest_first, NULL);
}

/* Microbatches that hold documents of the batch, at least; adds its counted rows. */
static int64_t bound_batch(const lora_window_t *w, int32_t batch, int64_t *sorted, int64_t *rows_p)
{
    const lora_window_batch_t *b = &w->batches[batch];
    int64_t rows = 0;

    for (int32_t d = b->first_document; d < b->first_document + b->num_documents; d++)
        rows += at_most(w->rows[d], w->capacity);
    *rows_p += lora_window_align(w, rows);
    sort_rows(sorted, w->rows + b->first_document, b->num_documents);
    return lora_bound_l2(sorted, b->num_documents, w->capacity);
}

void lora_bound_window_in(const lora_window_t *w, int64_t *sorted, lora_bounds_t *bounds)
{
    int64_t rows = 0, columns = 0;

    *bounds = (lora_bounds_t){0};
    for (int32_t a = 0; a < w->num_adapters; a++) {
        const lora_window_adapter_t *adapter = &w->adapters[a];
        int64_t chain = adapter->num_batches > 0
                            ? adapter->not_before + (adapter->num_batches - 1) * (w->stages - 1)
                            : 0;

        for (int32_t b = 0; b < adapter->num_batches; b++) {
            const int64_t least = bound_batch(w, adapter->first_batch + b, sorted, &rows);

            chain += least;
            columns += least * adapter->rank;
        }
        if (chain > bounds->chain) bounds->chain = chain;
    }
    bounds->volume = ceil_div(rows, w->capacity);
    if (w->rank_columns > 0) bounds->columns = ceil_div(columns, w->rank_columns);
    sort_rows(sorted, w->rows, w->num_documents);
    bounds->l2 = lora_bound_l2(sorted, w->num_documents, w->capacity);

    const int64_t all[] = {bounds->volume, bounds->l2, bounds->chain, bounds->columns};
    for (int i = 0; i < 4; i++)
        if (all[i] > bounds->best) bounds->best = all[i];
}

base_status_t lora_bound_window(base_ctx_t *ctx, const lora_window_t *w, lora_bounds_t *bounds)
{
    int64_t *scratch = base_calloc(ctx, (int64_t)w->num_documents + 1, sizeof *scratch, "bounds");

    if (scratch == NULL) return BASE_ERR_NOMEM;
    lora_bound_window_in(w, scratch, bounds);
    base_free(ctx, scratch);
    return BASE_OK;
}
