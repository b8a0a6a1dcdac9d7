/* Which documents of the batches at work come next. */
#include "base/sort.h"
#include "lora/pack.h"
#include "trainer/loop/horizon_state.h"

#include <string.h>

#define RUN_SHIFT 20 /* shares of a run are in 2^-20 */
/* Rows to choose from, in microbatches, before jobs that are ahead are asked too. */
#define CHOICE 1

/* ==== who may come in ==== */

static int64_t how_far(const tr_horizon_t *h, int32_t j)
{
    const tr_horizon_batch_t *b = &h->batch[j];
    const int64_t begun = ((b->rows - b->left_rows) << RUN_SHIFT) / b->rows;
    const int64_t total = h->jobs[j]->total_steps;

    return ((h->state[j].step << RUN_SHIFT) + begun) / total;
}

static int by_far(const void *a, const void *b, const void *arg)
{
    const int64_t *far = arg;
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const int c = base_compare_i64(far[i], far[j]);

    return c != 0 ? c : base_compare_i64(i, j);
}

static void admit(tr_horizon_t *h, int64_t capacity)
{
    int64_t rows = 0, ranks = 0;
    int32_t num = 0;

    for (int32_t j = 0; j < h->num_jobs; j++) {
        h->admitted[j] = h->in_lot[j] = 0;
        if (!tr_horizon_trains(h, j)) continue;
        h->far[j] = how_far(h, j);
        h->order[num++] = j;
    }
    base_sort(h->order, num, sizeof *h->order, by_far, h->far);
    for (int32_t i = 0; i < num; i++) {
        const int32_t j = h->order[i];
        const int64_t rank = h->jobs[j]->config->rank;
        const int64_t ahead = h->far[j] - h->far[h->order[0]];

        if (rows >= CHOICE * capacity && ahead > (INT64_C(1) << RUN_SHIFT) / TR_HORIZON_AHEAD)
            continue;
        h->admitted[j] = 1;
        if (h->rank_columns > 0 && ranks + rank > h->rank_columns) continue;
        ranks += rank;
        rows += h->batch[j].left_rows;
    }
}

/* ==== the window ==== */

static void add_documents(tr_horizon_t *h, int32_t j)
{
    const tr_horizon_batch_t *b = &h->batch[j];
    lora_window_t *w = &h->window;

    for (int64_t i = b->first; i < b->first + b->count; i++) {
        if (h->taken[i]) continue;
        h->rows[w->num_documents] = data_dataset_rows(h->jobs[j]->data, h->documents[i]);
        h->supervised[w->num_documents] =
            data_dataset_supervised(h->jobs[j]->data, h->documents[i]);
        h->place[w->num_documents++] = i;
    }
}

/* Jobs whose adapter has its columns already cost none; others need what is left. */
static void add_job(tr_horizon_t *h, int32_t j)
{
    lora_window_t *w = &h->window;
    const int64_t rank = h->in_lot[j] ? 0 : h->jobs[j]->config->rank;
    const int32_t first = w->num_documents;

    if (!h->admitted[j] || h->batch[j].left == 0) return;
    if (h->rank_columns > 0 && rank > h->columns) return;
    add_documents(h, j);
    h->window_job[w->num_adapters] = j;
    h->batches[w->num_batches] =
        (lora_window_batch_t){.first_document = first,
                              .num_documents = w->num_documents - first,
                              .placed = (int32_t)(h->batch[j].count - h->batch[j].left)};
    h->adapters[w->num_adapters++] = (lora_window_adapter_t){.rank = rank,
                                                             .done = h->state[j].step,
                                                             .total = h->jobs[j]->total_steps,
                                                             .first_batch = w->num_batches++,
                                                             .num_batches = 1};
}

/* Of the two ways in which documents always fit (lora/pack.h) the one that leaves fewer rows empty: the margin, once a
 * microbatch, or each document rounded up. Documents that were cut at 4096 rows lose nothing by the second, and by the
 * first every fourth of them its place beside the others. */
static void choose_room(tr_horizon_t *h)
{
    lora_window_t *w = &h->window;
    const int64_t all = w->alone_capacity, margin = DATA_ROW_ALIGN - 1;
    int64_t rows = 0, aligned = 0;

    for (int32_t d = 0; d < w->num_documents; d++) {
        rows += h->rows[d];
        aligned += h->room[d] = lora_pack_aligned(h->rows[d]);
    }
    if (aligned - rows <= (rows + all - 1) / all * margin) return;
    w->capacity = all - margin;
    w->rows = h->rows;
}

static void make_window(tr_horizon_t *h, int64_t alone)
{
    h->window = (lora_window_t){.capacity = alone,
                                .alone_capacity = alone,
                                .adapter_align = 1,
                                .rank_columns = h->rank_columns > 0 ? h->columns : 0,
                                .stages = 1,
                                .adapters = h->adapters,
                                .batches = h->batches,
                                .rows = h->room,
                                .supervised = h->supervised};
    for (int32_t j = 0; j < h->num_jobs; j++)
        add_job(h, j);
    choose_room(h);
}

/* ==== the exact packer ==== */

/* The microbatch with most rows, the first of equals. Any of them may come first: a window has one
 * batch of each job. */
static int32_t fullest(const tr_horizon_t *h, const lora_schedule_t *schedule)
{
    int64_t most = -1;
    int32_t best = 0;

    for (int32_t m = 0; m < schedule->num_microbatches; m++) {
        int64_t rows = 0;

        for (int32_t d = 0; d < h->window.num_documents; d++)
            rows += schedule->microbatch[d] == m ? h->rows[d] : 0;
        if (rows <= most) continue;
        most = rows;
        best = m;
    }
    return best;
}

static base_status_t pack_exactly(tr_horizon_t *h, lora_schedule_t *taken)
{
    const lora_window_t *w = &h->window;
    lora_schedule_t schedule = {.microbatch = h->exactly};
    lora_exact_result_t result;

    if (!h->exact || w->num_documents > LORA_PACK_PROCESS_DOCUMENTS) return BASE_OK;
    BASE_TRY(lora_packer_run(h->packer, w, &schedule));
    const int32_t fast = schedule.num_microbatches;
    BASE_TRY(lora_pack_process(h->ctx, w, LORA_PACK_PROCESS_NODES, &schedule, &result));
    if (schedule.num_microbatches >= fast) return BASE_OK;
    const int32_t first = fullest(h, &schedule);
    for (int32_t d = 0; d < w->num_documents; d++)
        taken->microbatch[d] = h->exactly[d] == first ? 0 : -1;
    return BASE_OK;
}

/* ==== taking ==== */

static base_status_t take(tr_horizon_t *h, tr_lot_t *lot, int32_t trainer, int32_t adapter)
{
    const int32_t j = h->window_job[adapter];
    const lora_window_batch_t *documents = &h->batches[h->adapters[adapter].first_batch];
    tr_horizon_batch_t *b = &h->batch[j];

    for (int32_t i = 0; i < documents->num_documents; i++) {
        const int32_t d = documents->first_document + i;

        /* A lot has room for so many documents: the others come later. */
        if (h->microbatch[d] != 0 || !tr_lot_fits(lot, h->rows[d])) continue;
        BASE_TRY(tr_lot_add(lot, h->jobs[j]->data, h->documents[h->place[d]], j,
                            1.0 / (double)b->supervised));
        tr_lot_place(lot, trainer);
        h->taken[h->place[d]] = 1;
        b->left--;
        b->left_rows -= h->rows[d];
        h->state[j].documents++;
        if (h->in_lot[j]) continue;
        h->in_lot[j] = 1;
        h->columns -= h->jobs[j]->config->rank;
    }
    return BASE_OK;
}

base_status_t tr_horizon_pack(tr_horizon_t *h, tr_lot_t *lot)
{
    const tr_attention_plans_options_t *o = &lot->options.plans;
    const int whole = o->topology->placement == AS_LOCAL;
    const int64_t all = o->topology->num_trainers * o->tokens_per_trainer;
    lora_schedule_t schedule = {.microbatch = h->microbatch};

    h->columns = h->rank_columns;
    admit(h, all);
    for (int32_t t = 0; t < (whole ? o->topology->num_trainers : 1); t++) {
        make_window(h, whole ? o->tokens_per_trainer : all);
        if (h->window.num_documents == 0) return BASE_OK;
        BASE_TRY(lora_packer_next(h->packer, &h->window, &schedule));
        BASE_TRY(pack_exactly(h, &schedule));
        for (int32_t a = 0; a < h->window.num_adapters; a++)
            BASE_TRY(take(h, lot, t, a));
    }
    return BASE_OK;
}
