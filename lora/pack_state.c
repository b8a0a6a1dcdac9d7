#include "base/memory.h"
#include "base/sort.h"
#include "lora/pack_microbatch.h"

#include <string.h>

base_status_t lora_pack_state_init(base_ctx_t *ctx, const lora_packer_limits_t *limits,
                                   lora_pack_state_t *s)
{
    const int64_t adapters = limits->max_adapters, documents = limits->max_documents;

    *s = (lora_pack_state_t){.ctx = ctx};
    s->order = base_calloc(ctx, documents, sizeof *s->order, "packer: documents");
    s->sorted = base_calloc(ctx, documents, sizeof *s->sorted, "packer: documents");
    s->in = base_calloc(ctx, documents, sizeof *s->in, "packer: documents");
    s->best = base_calloc(ctx, documents, sizeof *s->best, "packer: documents");
    s->items = base_calloc(ctx, documents, sizeof *s->items, "packer: documents");
    s->item_document = base_calloc(ctx, documents, sizeof *s->item_document, "packer: documents");
    s->chain =
        base_calloc(ctx, (int64_t)limits->max_batches + 1, sizeof *s->chain, "packer: batches");
    s->batch_rows = base_calloc(ctx, (int64_t)limits->max_batches + 1, sizeof *s->batch_rows,
                                "packer: batches");
    s->adapters = base_calloc(ctx, adapters, sizeof *s->adapters, "packer: adapters");
    s->keys = base_calloc(ctx, adapters, sizeof *s->keys, "packer: adapters");
    s->groups = base_calloc(ctx, adapters, sizeof *s->groups, "packer: adapters");
    s->forced = base_calloc(ctx, adapters, sizeof *s->forced, "packer: adapters");
    if (s->order == NULL || s->sorted == NULL || s->batch_rows == NULL || s->in == NULL ||
        s->best == NULL || s->items == NULL || s->item_document == NULL || s->chain == NULL ||
        s->adapters == NULL || s->keys == NULL || s->groups == NULL || s->forced == NULL)
        return BASE_ERR_NOMEM;
    return lora_fill_create(ctx, &s->fill);
}

void lora_pack_state_deinit(lora_pack_state_t *s)
{
    lora_fill_destroy(s->fill);
    base_free(s->ctx, s->forced);
    base_free(s->ctx, s->groups);
    base_free(s->ctx, s->keys);
    base_free(s->ctx, s->adapters);
    base_free(s->ctx, s->batch_rows);
    base_free(s->ctx, s->chain);
    base_free(s->ctx, s->item_document);
    base_free(s->ctx, s->items);
    base_free(s->ctx, s->best);
    base_free(s->ctx, s->in);
    base_free(s->ctx, s->sorted);
    base_free(s->ctx, s->order);
}

/* Longest first, ties by number. */
static int by_rows(const void *a, const void *b, const void *arg)
{
    const int64_t *rows = arg;
    const int32_t i = *(const int32_t *)a;
    const int32_t j = *(const int32_t *)b;
    const int c = base_compare_i64(rows[j], rows[i]);

    return c != 0 ? c : base_compare_i64(i, j);
}

/* Rows of the batch, and the microbatches that they fill: a document that stands alone fills one. */
static int64_t batch_rows(const lora_window_t *w, int32_t batch, int64_t *full_p)
{
    const lora_window_batch_t *b = &w->batches[batch];
    int64_t rows = 0, counted = 0;

    for (int32_t d = b->first_document; d < b->first_document + b->num_documents; d++) {
        rows += w->rows[d];
        counted += w->rows[d] < w->capacity ? w->rows[d] : w->capacity;
    }
    *full_p = (counted + w->capacity - 1) / w->capacity;
    return rows;
}

static void begin_adapter(lora_pack_state_t *s, int32_t adapter)
{
    const lora_window_t *w = s->window;
    const lora_window_adapter_t *a = &w->adapters[adapter];
    lora_pack_adapter_t *at = &s->adapters[adapter];
    int64_t chain = 0;

    for (int32_t b = a->first_batch + a->num_batches - 1; b >= a->first_batch; b--) {
        int64_t full;

        s->batch_rows[b] = batch_rows(w, b, &full);
        chain += full + w->stages - 1;
        s->chain[b] = chain;
    }
    *at = (lora_pack_adapter_t){.batch = a->first_batch, .ready = a->not_before};
    if (a->num_batches == 0) return;
    at->left = w->batches[a->first_batch].num_documents;
    at->left_rows = s->batch_rows[a->first_batch];
}

void lora_pack_state_begin(lora_pack_state_t *s, const lora_window_t *window, int32_t *microbatch)
{
    s->window = window;
    s->microbatch = microbatch;
    s->documents_left = window->num_documents;
    for (int32_t d = 0; d < window->num_documents; d++) {
        microbatch[d] = -1;
        s->sorted[d] = d;
    }
    for (int32_t b = 0; b < window->num_batches; b++)
        base_sort(s->sorted + window->batches[b].first_document, window->batches[b].num_documents,
                  sizeof *s->order, by_rows, window->rows);
    memcpy(s->order, s->sorted, (size_t)window->num_documents * sizeof *s->order);
    for (int32_t a = 0; a < window->num_adapters; a++)
        begin_adapter(s, a);
}
