#include "lora/bound.h"

#include "base/memory.h"
#include "base/sort.h"

#include <string.h>

#define MOST_SHARES 12 /* k of the dual feasible functions */

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

/* u(k) of a document is m / (k + 1) where its rows are just that share of the capacity, else as many
 * whole (k + 1)ths as it has, in kths. Those of documents that fit together are 1 at most. */
int64_t lora_bound_dual(const int64_t *rows, int64_t num, int64_t capacity)
{
    int64_t best = 0;

    for (int64_t k = 1; k <= MOST_SHARES; k++) {
        int64_t sum = 0; /* in 1 / (k (k + 1)) */

        for (int64_t i = 0; i < num; i++) {
            const int64_t shares = (k + 1) * at_most(rows[i], capacity);

            sum += shares / capacity * (shares % capacity == 0 ? k : k + 1);
        }
        const int64_t bound = ceil_div(sum, k * (k + 1));
        if (bound > best) best = bound;
    }
    return best;
}

/* ==== windows ==== */

static int longest_first(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return base_compare_i64(*(const int64_t *)b, *(const int64_t *)a);
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Both bounds; sorts. */
static int64_t bound_bins(int64_t *sizes, int64_t num, int64_t capacity)
{
    base_sort(sizes, num, sizeof *sizes, longest_first, NULL);
    return max_i64(lora_bound_l2(sizes, num, capacity), lora_bound_dual(sizes, num, capacity));
}

/* Documents of an adapter that stand alone, or of all (-1). */
static int64_t count_alone(const lora_window_t *w, int32_t adapter)
{
    const lora_window_adapter_t *a = adapter < 0 ? NULL : &w->adapters[adapter];
    int64_t alone = 0;

    for (int32_t b = a != NULL ? a->first_batch : 0;
         b < (a != NULL ? a->first_batch + a->num_batches : w->num_batches); b++)
        for (int32_t i = 0; i < w->batches[b].num_documents; i++)
            alone += w->rows[w->batches[b].first_document + i] > w->capacity;
    return alone;
}

/* Microbatches that hold documents of the batch, at least; adds its counted rows. */
static int64_t bound_batch(const lora_window_t *w, int32_t batch, int64_t *scratch, int64_t *rows_p)
{
    const lora_window_batch_t *b = &w->batches[batch];
    int64_t rows = 0;

    for (int32_t d = b->first_document; d < b->first_document + b->num_documents; d++)
        rows += at_most(w->rows[d], w->capacity);
    *rows_p += lora_window_align(w, rows);
    memcpy(scratch, w->rows + b->first_document, (size_t)b->num_documents * sizeof *scratch);
    return bound_bins(scratch, b->num_documents, w->capacity);
}

/* 1 when no other adapter's rank fits beside it. */
static int is_apart(const lora_window_t *w, int32_t adapter)
{
    for (int32_t a = 0; a < w->num_adapters; a++)
        if (a != adapter && w->adapters[a].num_batches > 0 &&
            w->adapters[a].rank + w->adapters[adapter].rank <= w->rank_columns)
            return 0;
    return w->rank_columns > 0;
}

/* Of the adapters looked at so far. */
typedef struct sums {
    int64_t rows, shared_rows; /* counted: of all, of those that may share a microbatch */
    int64_t apart;             /* microbatches of those that do not */
    int64_t *ranks, num_ranks; /* one for each microbatch that an adapter needs */
} sums_t;

/* Gives the adapter's chain. */
static int64_t add_adapter(const lora_window_t *w, int32_t adapter, int64_t alone, int64_t *scratch,
                           sums_t *sums)
{
    const lora_window_adapter_t *a = &w->adapters[adapter];
    int64_t busy = 0, rows = 0;

    if (a->num_batches == 0) return 0;
    for (int32_t b = 0; b < a->num_batches; b++)
        busy += bound_batch(w, a->first_batch + b, scratch, &rows);
    for (int64_t i = 0; i < busy; i++)
        sums->ranks[sums->num_ranks++] = a->rank;
    sums->rows += rows;
    if (is_apart(w, adapter))
        sums->apart += busy;
    else
        sums->shared_rows += rows;
    return max_i64(a->not_before + busy + (a->num_batches - 1) * (int64_t)(w->stages - 1),
                   busy + alone - count_alone(w, adapter));
}

void lora_bound_window_in(const lora_window_t *w, int64_t *scratch, lora_bounds_t *bounds)
{
    /* A batch needs as many microbatches as it has documents at most. */
    sums_t sums = {.ranks = scratch + w->num_documents};
    const int64_t alone = count_alone(w, -1);

    *bounds = (lora_bounds_t){0};
    for (int32_t a = 0; a < w->num_adapters; a++)
        bounds->chain = max_i64(bounds->chain, add_adapter(w, a, alone, scratch, &sums));
    bounds->volume = ceil_div(sums.rows, w->capacity);
    if (w->rank_columns > 0)
        bounds->columns = max_i64(bound_bins(sums.ranks, sums.num_ranks, w->rank_columns),
                                  sums.apart + ceil_div(sums.shared_rows, w->capacity));
    memcpy(scratch, w->rows, (size_t)w->num_documents * sizeof *scratch);
    base_sort(scratch, w->num_documents, sizeof *scratch, longest_first, NULL);
    bounds->l2 = lora_bound_l2(scratch, w->num_documents, w->capacity);
    bounds->dual = lora_bound_dual(scratch, w->num_documents, w->capacity);

    const int64_t all[] = {bounds->volume, bounds->l2, bounds->dual, bounds->chain,
                           bounds->columns};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        bounds->best = max_i64(bounds->best, all[i]);
}

base_status_t lora_bound_window(base_ctx_t *ctx, const lora_window_t *w, lora_bounds_t *bounds)
{
    int64_t *scratch =
        base_calloc(ctx, 2 * (int64_t)w->num_documents + 1, sizeof *scratch, "bounds");

    if (scratch == NULL) return BASE_ERR_NOMEM;
    lora_bound_window_in(w, scratch, bounds);
    base_free(ctx, scratch);
    return BASE_OK;
}
