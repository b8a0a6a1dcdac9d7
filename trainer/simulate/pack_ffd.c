#include "trainer/simulate/pack_ffd.h"

#include "base/memory.h"
#include "base/sort.h"

#include <string.h>

base_status_t tr_bins_create(base_ctx_t *ctx, const lora_window_t *w, tr_bins_t *bins)
{
    const int64_t documents = w->num_documents;

    *bins = (tr_bins_t){.ctx = ctx, .window = w};
    bins->adapter_of = base_calloc(ctx, documents, sizeof *bins->adapter_of, "bins");
    bins->batch_of = base_calloc(ctx, documents, sizeof *bins->batch_of, "bins");
    bins->bin_of = base_calloc(ctx, documents, sizeof *bins->bin_of, "bins");
    bins->rows = base_calloc(ctx, (documents + 1) * w->num_adapters, sizeof *bins->rows, "bins");
    bins->list = base_calloc(ctx, documents, sizeof *bins->list, "bins");
    if (bins->adapter_of == NULL || bins->batch_of == NULL || bins->bin_of == NULL ||
        bins->rows == NULL || bins->list == NULL) {
        tr_bins_destroy(bins);
        return BASE_ERR_NOMEM;
    }
    for (int32_t a = 0; a < w->num_adapters; a++)
        for (int32_t j = 0; j < w->adapters[a].num_batches; j++) {
            const int32_t b = w->adapters[a].first_batch + j;

            for (int32_t i = 0; i < w->batches[b].num_documents; i++) {
                bins->adapter_of[w->batches[b].first_document + i] = a;
                bins->batch_of[w->batches[b].first_document + i] = b;
            }
        }
    for (int32_t d = 0; d < w->num_documents; d++)
        bins->bin_of[d] = -1;
    return BASE_OK;
}

void tr_bins_destroy(tr_bins_t *bins)
{
    base_free(bins->ctx, bins->list);
    base_free(bins->ctx, bins->rows);
    base_free(bins->ctx, bins->bin_of);
    base_free(bins->ctx, bins->batch_of);
    base_free(bins->ctx, bins->adapter_of);
    *bins = (tr_bins_t){0};
}

int64_t tr_bins_counted(const tr_bins_t *bins, int32_t bin, int32_t adapter, int64_t more)
{
    const int64_t *rows = bins->rows + (int64_t)bin * bins->window->num_adapters;
    int64_t counted = 0;

    for (int32_t a = 0; a < bins->window->num_adapters; a++)
        counted += lora_window_align(bins->window, rows[a] + (a == adapter ? more : 0));
    return counted;
}

void tr_bins_put(tr_bins_t *bins, int32_t document, int32_t bin)
{
    const int32_t adapter = bins->adapter_of[document], adapters = bins->window->num_adapters;
    const int64_t rows = bins->window->rows[document];

    if (bins->bin_of[document] >= 0)
        bins->rows[(int64_t)bins->bin_of[document] * adapters + adapter] -= rows;
    bins->rows[(int64_t)bin * adapters + adapter] += rows;
    bins->bin_of[document] = bin;
}

void tr_bins_list(tr_bins_t *bins, int32_t adapter, int32_t round)
{
    const lora_window_adapter_t *a = &bins->window->adapters[adapter];

    if (round >= a->num_batches) return;
    const lora_window_batch_t *b = &bins->window->batches[a->first_batch + round];
    for (int32_t i = 0; i < b->num_documents; i++)
        bins->list[bins->num_list++] = b->first_document + i;
}

static int longest_first(const void *a, const void *b, const void *arg)
{
    const int64_t *rows = arg;
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const int c = base_compare_i64(rows[j], rows[i]);

    return c != 0 ? c : base_compare_i64(i, j);
}

void tr_bins_fit(tr_bins_t *bins)
{
    const lora_window_t *w = bins->window;
    const int32_t first = bins->num_bins;

    base_sort(bins->list, bins->num_list, sizeof *bins->list, longest_first, w->rows);
    for (int32_t i = 0; i < bins->num_list; i++) {
        const int32_t d = bins->list[i];
        int32_t bin = first;

        while (bin < bins->num_bins &&
               tr_bins_counted(bins, bin, bins->adapter_of[d], w->rows[d]) > w->capacity)
            bin++;
        if (bin == bins->num_bins) bins->num_bins++;
        tr_bins_put(bins, d, bin);
    }
    bins->num_list = 0;
}

int32_t tr_window_rounds(const lora_window_t *w)
{
    int32_t rounds = 0;

    for (int32_t a = 0; a < w->num_adapters; a++)
        if (w->adapters[a].num_batches > rounds) rounds = w->adapters[a].num_batches;
    return rounds;
}

/* First microbatch, not before `at`, in which the bin may run. */
static int32_t earliest(const tr_bins_t *bins, const lora_schedule_t *s, int32_t bin, int32_t at)
{
    const lora_window_t *w = bins->window;

    for (int32_t d = 0; d < w->num_documents; d++) {
        if (bins->bin_of[d] != bin) continue;
        const lora_window_adapter_t *a = &w->adapters[bins->adapter_of[d]];
        const int32_t b = bins->batch_of[d];

        if (b == a->first_batch) {
            if (a->not_before > at) at = (int32_t)a->not_before;
            continue;
        }
        for (int32_t i = 0; i < w->batches[b - 1].num_documents; i++) {
            const int32_t before = s->microbatch[w->batches[b - 1].first_document + i];

            if (before + w->stages > at) at = before + w->stages;
        }
    }
    return at;
}

void tr_bins_schedule(const tr_bins_t *bins, lora_schedule_t *schedule)
{
    schedule->num_microbatches = 0;
    for (int32_t bin = 0; bin < bins->num_bins; bin++) {
        if (tr_bins_counted(bins, bin, -1, 0) == 0) continue;
        const int32_t at = earliest(bins, schedule, bin, schedule->num_microbatches);

        for (int32_t d = 0; d < bins->window->num_documents; d++)
            if (bins->bin_of[d] == bin) schedule->microbatch[d] = at;
        schedule->num_microbatches = at + 1;
    }
}

base_status_t tr_pack_ffd(base_ctx_t *ctx, const lora_window_t *window, lora_schedule_t *schedule)
{
    tr_bins_t bins;

    BASE_TRY(lora_window_check(ctx, window));
    BASE_TRY(tr_bins_create(ctx, window, &bins));
    for (int32_t j = 0; j < tr_window_rounds(window); j++) {
        for (int32_t a = 0; a < window->num_adapters; a++)
            tr_bins_list(&bins, a, j);
        tr_bins_fit(&bins);
    }
    tr_bins_schedule(&bins, schedule);
    tr_bins_destroy(&bins);
    return BASE_OK;
}
