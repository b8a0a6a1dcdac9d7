#include "lora/pack_window.h"

#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

/* ==== the question ==== */

static base_status_t fail_shape(base_ctx_t *ctx, const char *what, int64_t number)
{
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "packer: %s %" PRId64, what, number);
}

static base_status_t check_shape(base_ctx_t *ctx, const lora_window_t *w)
{
    int32_t batch = 0, document = 0;

    if (w->capacity < 1 || w->alone_capacity < w->capacity)
        return fail_shape(ctx, "capacity", w->capacity);
    if (w->adapter_align < 1 || w->capacity % w->adapter_align != 0)
        return fail_shape(ctx, "adapter_align", w->adapter_align);
    if (w->adapter_align > 1 && (w->capacity > LORA_WINDOW_PADDED_CAPACITY ||
                                 w->capacity / w->adapter_align > LORA_WINDOW_PADDED_UNITS))
        return fail_shape(ctx, "with padded adapters: capacity", w->capacity);
    if (w->stages < 1) return fail_shape(ctx, "stages", w->stages);
    for (int32_t a = 0; a < w->num_adapters; a++) {
        const lora_window_adapter_t *adapter = &w->adapters[a];

        if (adapter->first_batch != batch || adapter->num_batches < 0 || adapter->total < 1)
            return fail_shape(ctx, "batches of adapter", a);
        batch += adapter->num_batches;
    }
    if (batch != w->num_batches) return fail_shape(ctx, "batches", batch);
    for (int32_t b = 0; b < w->num_batches; b++) {
        if (w->batches[b].first_document != document || w->batches[b].num_documents < 1 ||
            w->batches[b].placed < 0)
            return fail_shape(ctx, "documents of batch", b);
        document += w->batches[b].num_documents;
    }
    return document == w->num_documents ? BASE_OK : fail_shape(ctx, "documents", document);
}

base_status_t lora_window_check(base_ctx_t *ctx, const lora_window_t *w)
{
    BASE_TRY(check_shape(ctx, w));
    for (int32_t d = 0; d < w->num_documents; d++) {
        if (w->rows[d] < 1) return fail_shape(ctx, "rows of a document", w->rows[d]);
        if (w->rows[d] > w->alone_capacity)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_PLAN_01,
                             "document %" PRId32 " of the window has %" PRId64
                             " rows, a microbatch holds %" PRId64,
                             d, w->rows[d], w->alone_capacity);
    }
    for (int32_t a = 0; a < w->num_adapters && w->rank_columns > 0; a++) {
        if (w->adapters[a].num_batches > 0 && w->adapters[a].rank > w->rank_columns)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_PLAN_01,
                             "adapter %" PRId32 " has rank %" PRId64 ", a microbatch has %" PRId64
                             " columns",
                             a, w->adapters[a].rank, w->rank_columns);
    }
    return BASE_OK;
}

/* ==== the answer ==== */

/* Per microbatch, summed adapter by adapter. */
typedef struct tally {
    int64_t rows, counted, ranks, supervised;
    int64_t documents, adapters;
    int64_t adapter_rows; /* of the adapter being summed */
} tally_t;

static base_status_t fail(base_ctx_t *ctx, int32_t microbatch, const char *what, int64_t found,
                          int64_t wanted)
{
    return BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                     "schedule, microbatch %" PRId32 ": %s %" PRId64 ", want %" PRId64, microbatch,
                     what, found, wanted);
}

/* Adds the batch's documents; gives its first and last microbatch. */
static base_status_t sum_batch(base_ctx_t *ctx, const lora_window_t *w, const lora_schedule_t *s,
                               int32_t batch, tally_t *tally, int32_t *first_p, int32_t *last_p)
{
    const lora_window_batch_t *b = &w->batches[batch];

    *first_p = INT32_MAX;
    *last_p = -1;
    for (int32_t d = b->first_document; d < b->first_document + b->num_documents; d++) {
        const int32_t m = s->microbatch[d];

        if (m < 0 || m >= s->num_microbatches)
            return fail(ctx, m, "of so many", m, s->num_microbatches);
        tally[m].adapter_rows += w->rows[d];
        tally[m].supervised += w->supervised != NULL ? w->supervised[d] : w->rows[d];
        tally[m].documents++;
        if (m < *first_p) *first_p = m;
        if (m > *last_p) *last_p = m;
    }
    return BASE_OK;
}

static base_status_t sum_adapter(base_ctx_t *ctx, const lora_window_t *w, const lora_schedule_t *s,
                                 int32_t adapter, tally_t *tally)
{
    const lora_window_adapter_t *a = &w->adapters[adapter];
    int64_t not_before = a->not_before;

    for (int32_t b = a->first_batch; b < a->first_batch + a->num_batches; b++) {
        int32_t first, last;

        BASE_TRY(sum_batch(ctx, w, s, b, tally, &first, &last));
        if (first < not_before) return fail(ctx, first, "batch too early by", first, not_before);
        not_before = last + w->stages;
        for (int32_t m = first; m <= last; m++) {
            if (tally[m].adapter_rows == 0) continue;
            tally[m].rows += tally[m].adapter_rows;
            tally[m].counted += lora_window_align(w, tally[m].adapter_rows);
            tally[m].ranks += a->rank;
            tally[m].adapters++;
            tally[m].adapter_rows = 0;
        }
    }
    return BASE_OK;
}

static base_status_t judge(base_ctx_t *ctx, const lora_window_t *w, const lora_schedule_t *s,
                           tally_t *tally, lora_schedule_value_t *value)
{
    int64_t supervised = 0;

    memset(value, 0, sizeof *value);
    for (int32_t a = 0; a < w->num_adapters; a++)
        BASE_TRY(sum_adapter(ctx, w, s, a, tally));
    for (int32_t m = 0; m < s->num_microbatches; m++) {
        const tally_t *t = &tally[m];

        if (t->counted > w->capacity && (t->documents > 1 || t->rows > w->alone_capacity))
            return fail(ctx, m, "rows", t->counted, w->capacity);
        if (w->rank_columns > 0 && t->ranks > w->rank_columns)
            return fail(ctx, m, "columns", t->ranks, w->rank_columns);
        value->adapters += t->adapters;
        value->rows += t->rows;
        value->counted_rows += t->counted;
        supervised += t->supervised;
    }
    value->microbatches = s->num_microbatches;
    for (int32_t m = 0; m < s->num_microbatches; m++) {
        const int64_t share = supervised / s->num_microbatches;

        if (tally[m].supervised > share) value->supervised_excess += tally[m].supervised - share;
    }
    return BASE_OK;
}

base_status_t lora_schedule_judge(base_ctx_t *ctx, const lora_window_t *window,
                                  const lora_schedule_t *schedule, lora_schedule_value_t *value)
{
    lora_schedule_value_t scratch;
    tally_t *tally = base_calloc(ctx, schedule->num_microbatches + 1, sizeof *tally, "schedule");

    if (tally == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = judge(ctx, window, schedule, tally, value != NULL ? value : &scratch);
    base_free(ctx, tally);
    return st;
}

base_hash_t lora_schedule_hash(const lora_window_t *window, const lora_schedule_t *schedule)
{
    base_hash_t h = base_hash_i64(BASE_HASH_START, schedule->num_microbatches);

    for (int32_t d = 0; d < window->num_documents; d++)
        h = base_hash_i64(h, schedule->microbatch[d]);
    return h;
}
