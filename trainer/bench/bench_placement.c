#include "trainer/bench/bench_placement.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/philox.h"
#include "lora/adapter_init.h"
#include "trainer/bench/model_shape.h"
#include "trainer/loop/build.h"
#include "trainer/loop/gradients.h"
#include "trainer/loop/microbatch.h"
#include "trainer/model/product_search.h"
#include "trainer/run/driver_memory.h"
#include "trainer/run/run_trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEED     UINT64_C(7) /* of weights, adapter and tokens */
#define ROW_STEP (2 * DATA_ROW_ALIGN)
#define SHORTEST 16 /* less than that left over of a microbatch goes to the document before */

typedef struct placement {
    tr_bench_placement_t *args;
    base_ctx_t *ctx;
    comm_group_t *group;
    data_model_spec_t spec;
    as_topology_t *topology;
    tr_trainer_t *trainer;
    tr_lot_t *lots[2];
    int64_t *rows;           /* of all documents, microbatch by microbatch */
    int64_t num_rows, given; /* given: microbatches so far */
    tr_run_trace_t *trace;
    tr_bench_placement_result_t *result;
} placement_t;

/* ==== documents ==== */

static base_status_t draw_documents(placement_t *p)
{
    const tr_bench_placement_t *args = p->args;
    const tr_draw_t draw = {
        .lengths = args->lengths, .max_rows = args->max_rows, .seed = (uint64_t)args->seed};
    const int64_t rows = p->result->rows;
    uint32_t index = 0;

    p->rows = base_calloc(p->ctx, args->microbatches * (rows / SHORTEST + 1), sizeof *p->rows,
                          "documents");
    if (p->rows == NULL) return BASE_ERR_NOMEM;
    for (int64_t m = 0; m < args->microbatches; m++) {
        int64_t left = rows;

        while (left > 0) {
            int64_t drawn = args->rows > 0 ? args->rows : tr_draw_rows(&draw, index++);

            if (drawn < SHORTEST) drawn = SHORTEST;
            if (drawn > left || left - drawn < SHORTEST) drawn = left;
            p->rows[p->num_rows++] = drawn;
            p->result->documents[m]++;
            if (drawn > p->result->longest[m]) p->result->longest[m] = drawn;
            left -= drawn;
        }
    }
    return BASE_OK;
}

static int longer_first(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (y > x) - (y < x);
}

/* Rows of the fullest trainer when whole documents go, longest first, to the emptiest: as lora_pack_fast does. */
static base_status_t whole_rows(placement_t *p, int64_t *most)
{
    const int32_t trainers = p->topology->num_trainers;
    int64_t *sorted = base_calloc(p->ctx, p->num_rows, sizeof *sorted, "documents");
    int64_t *load = base_calloc(p->ctx, trainers, sizeof *load, "documents");
    int64_t first = 0;
    const base_status_t st = sorted == NULL || load == NULL ? BASE_ERR_NOMEM : BASE_OK;

    *most = 0;
    for (int64_t m = 0; m < p->args->microbatches && st >= 0; m++) {
        const int64_t num = p->result->documents[m];

        memcpy(sorted, p->rows + first, (size_t)num * sizeof *sorted);
        memset(load, 0, (size_t)trainers * sizeof *load);
        qsort(sorted, (size_t)num, sizeof *sorted, longer_first);
        for (int64_t d = 0; d < num; d++) {
            int32_t to = 0;

            for (int32_t t = 1; t < trainers; t++)
                if (load[t] < load[to]) to = t;
            load[to] += sorted[d];
            if (load[to] > *most) *most = load[to];
        }
        first += num;
    }
    base_free(p->ctx, load);
    base_free(p->ctx, sorted);
    return st;
}

/* ==== the trainer ==== */

static base_status_t init_adapter(placement_t *p)
{
    const lora_layout_t *layout = p->trainer->adapters->adapters[0].layout;
    double *values = base_calloc(p->ctx, layout->count, sizeof *values, "adapter");

    if (values == NULL) return BASE_ERR_NOMEM;
    lora_adapter_init(layout, LORA_INIT_GAUSSIAN, SEED, values);
    const base_status_t st =
        lora_adapter_set_write(p->trainer->adapters, 0, p->trainer->stream, values);
    base_free(p->ctx, values);
    return st;
}

static base_status_t find_sizes(placement_t *p)
{
    const tr_bench_placement_t *args = p->args;
    int64_t each = 0;

    if (args->placement == AS_LOCAL)
        BASE_TRY(whole_rows(p, &each));
    else
        each = (p->result->rows + p->topology->num_trainers - 1) / p->topology->num_trainers;
    each += 2 * DATA_ROW_ALIGN; /* pad rows of halves that are not equal */
    p->result->num_trainers = p->topology->num_trainers;
    p->result->tokens_per_trainer = (each + ROW_STEP - 1) / ROW_STEP * ROW_STEP;
    return BASE_OK;
}

static base_status_t make_trainer(placement_t *p, base_device_t *dev)
{
    const tr_bench_placement_t *args = p->args;
    const int size = comm_group_size(p->group);
    const lora_adapter_options_t adapter = {.name = "bench",
                                            .rank = TR_BENCH_PLACEMENT_ADAPTER_RANK,
                                            .scale = 2.0,
                                            .targets = BASE_CONFIG_TARGET_ALL,
                                            .seed = SEED};
    int64_t longest = 0;
    tr_lot_options_t lots;

    p->result->rows = args->rows_each * size;
    BASE_TRY(draw_documents(p));
    for (int64_t m = 0; m < args->microbatches; m++)
        if (p->result->longest[m] > longest) longest = p->result->longest[m];
    BASE_TRY(tr_model_shape(p->ctx, args->shape, args->layers, longest, &p->spec));
    BASE_TRY(as_topology_create(p->ctx, args->placement, size, NULL, (int32_t)args->servers,
                                &p->topology));
    BASE_TRY(find_sizes(p));
    const tr_build_t build = {.spec = &p->spec,
                              .dtype = args->dtype,
                              .topology = p->topology,
                              .tokens_per_trainer = p->result->tokens_per_trainer,
                              .longest = longest,
                              .optimizer = 1,
                              .num_adapters = 1,
                              .adapters = &adapter,
                              .rank_columns = TR_BENCH_PLACEMENT_ADAPTER_RANK,
                              .retain_bytes = args->retain_bytes,
                              .follow_servers = args->follow_servers,
                              .recompute = args->recompute,
                              .layout_only = args->memory};
    BASE_TRY(tr_build_trainer(p->ctx, dev, p->group, &build, &lots, &p->trainer));
    if (args->memory) return BASE_OK;
    for (int i = 0; i < 2; i++)
        BASE_TRY(tr_lot_create(p->ctx, &lots, p->lots[0], &p->lots[i]));
    if (p->trainer->index < 0) return BASE_OK;
    BASE_TRY(kern_gemm_search_new(p->trainer->stream, 1));
    BASE_TRY(tr_weights_repeat(p->trainer->weights, p->trainer->stream, SEED));
    if (tr_product_has_choice(&p->trainer->graph)) BASE_TRY(tr_product_search(&p->trainer->graph));
    BASE_TRY(init_adapter(p));
    return tr_gradients_zero(p->trainer);
}

static base_status_t print_memory(placement_t *p)
{
    const int64_t mine = base_arena_bytes(p->trainer->arena);
    int64_t all[TR_BENCH_PLACEMENT_RANKS];

    BASE_TRY(comm_allgather(p->group, &mine, sizeof mine, all));
    for (int r = 0; r < comm_group_size(p->group) && comm_group_rank(p->group) == 0; r++)
        (void)fprintf(p->args->out, "rank %d: %.2f GiB\n", r,
                      (double)all[r] / (double)(INT64_C(1) << 30));
    return BASE_OK;
}

/* ==== a microbatch ==== */

/* Random tokens of the document's number; all but its first are targets. */
static void fill_tokens(const placement_t *p, int64_t number, int64_t rows, int32_t *tokens,
                        uint8_t *mask)
{
    const base_philox_key_t key = base_philox_key(SEED);

    for (int64_t t = 0; t < rows; t++) {
        const base_philox_t r = base_philox(key, (uint32_t)t, (uint32_t)number, 0, 'P');

        tokens[t] = (int32_t)(r.word[0] % (uint64_t)p->spec.vocab);
        mask[t] = t > 0;
    }
}

/* Microbatch m of the list as the job's next. */
static base_status_t fill_lot(placement_t *p, int64_t m, tr_lot_t **lot_p)
{
    tr_lot_t *lot = p->lots[p->given % 2];
    const int64_t num = p->result->documents[m];
    int64_t first = 0, at = 0;

    for (int64_t i = 0; i < m; i++)
        first += p->result->documents[i];
    tr_lot_begin(lot, p->given++);
    for (int64_t d = 0; d < num; d++) {
        const int64_t rows = p->rows[first + d];

        BASE_TRY(tr_lot_add_rows(lot, rows));
        data_document_t *document = &lot->documents[d];
        document->index = first + d;
        document->row_weight = 1.0 / (double)(p->result->rows - num);
        if (lot->options.tokens) {
            fill_tokens(p, first + d, rows, lot->tokens + at, lot->masks + at);
            document->tokens = lot->tokens + at;
            document->loss_mask = lot->masks + at;
        }
        at += rows;
    }
    *lot_p = lot;
    return tr_lot_finish(lot);
}

static base_status_t run_microbatch(placement_t *p, int64_t m, int64_t *step_ns, int64_t *own_ns)
{
    tr_lot_t *lot;

    BASE_TRY(fill_lot(p, m, &lot));
    BASE_TRY(comm_barrier(p->group));
    const int64_t begin_ns = base_clock_ns();
    BASE_TRY(tr_microbatch_run(p->trainer, lot->batch, tr_lot_plans(lot)));
    BASE_TRY(tr_trainer_sync(p->trainer));
    *own_ns = base_clock_ns() - begin_ns;
    BASE_TRY(comm_barrier(p->group));
    *step_ns = base_clock_ns() - begin_ns;
    return BASE_OK;
}

/* ==== all of them ==== */

static base_status_t begin_trace(placement_t *p)
{
    const int rank = comm_group_rank(p->group);
    char role[32];

    if (p->args->trace == NULL) return BASE_OK;
    (void)snprintf(role, sizeof role, "%s %d", p->trainer->index >= 0 ? "trainer" : "server",
                   p->trainer->index >= 0 ? (int)p->trainer->index : rank);
    return tr_run_trace_create(p->ctx, p->group, p->args->trace, p->args->microbatches, p->trainer,
                               role, &p->trace);
}

static base_status_t measure(placement_t *p)
{
    tr_bench_placement_times_t *mine = &p->result->of[comm_group_rank(p->group)];
    int64_t before[BASE_NUM_PARTS], after[BASE_NUM_PARTS], ns[2];

    for (int64_t i = 0; i < p->args->warm; i++)
        BASE_TRY(run_microbatch(p, 0, &ns[0], &ns[1]));
    if (p->trainer->index >= 0) BASE_TRY(tr_gradients_zero(p->trainer));
    BASE_TRY(begin_trace(p));
    base_meter_read(&p->trainer->meter, before);
    for (int64_t m = 0; m < p->args->microbatches; m++) {
        BASE_TRY(run_microbatch(p, m, &p->result->step_ns[m], &mine->own_ns[m]));
        BASE_TRY(tr_run_trace_microbatch(p->trace, m + 1));
    }
    base_meter_read(&p->trainer->meter, after);
    for (int i = 0; i < BASE_NUM_PARTS; i++)
        mine->part_ns[i] = after[i] - before[i];
    return BASE_OK;
}

static void count_memory(const placement_t *p, base_device_t *dev, tr_bench_placement_times_t *mine)
{
    const tr_driver_case_t of = {.device = base_device_kind(dev),
                                 .num_ranks = comm_group_size(p->group),
                                 .is_trainer = p->trainer->index >= 0,
                                 .uses_nccl = strcmp(comm_group_transport(p->group), "nccl") == 0};
    const tr_driver_memory_t driver = tr_driver_memory(&of);

    mine->arena_bytes = base_arena_bytes(p->trainer->arena);
    mine->device_bytes = base_memory_peak(base_ctx_memory(p->ctx), BASE_RESOURCE_DEVICE);
    mine->planned_bytes = mine->arena_bytes + tr_driver_memory_total(&driver);
    mine->used_bytes = base_device_used_bytes(dev);
    mine->stalls = p->trainer->stalls;
}

/* Every rank's times and part of the loss, to all. */
static base_status_t share(placement_t *p, base_device_t *dev)
{
    tr_bench_placement_result_t *r = p->result;
    const int size = comm_group_size(p->group);
    tr_bench_placement_times_t mine = r->of[comm_group_rank(p->group)];
    double loss = 0.0, losses[TR_BENCH_PLACEMENT_RANKS];

    (void)snprintf(r->device, sizeof r->device, "%s", base_device_name(dev));
    r->num_ranks = size;
    r->layers = p->spec.num_layers;
    r->transport = comm_group_transport(p->group);
    count_memory(p, dev, &mine);
    if (p->trainer->index >= 0) BASE_TRY(tr_gradients_read_loss(p->trainer, 0, &loss));
    BASE_TRY(comm_allgather(p->group, &mine, sizeof mine, r->of));
    BASE_TRY(comm_allgather(p->group, &loss, sizeof loss, losses));
    for (int i = 0; i < size; i++)
        r->loss += losses[i] / (double)p->args->microbatches;
    if (isfinite(r->loss)) return BASE_OK;
    return BASE_FAIL(p->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                     "bench placement: the loss is not finite");
}

base_status_t tr_bench_placement_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                      void *user)
{
    placement_t p = {.args = user, .ctx = ctx, .group = group};
    base_status_t st;

    if (comm_group_size(group) > TR_BENCH_PLACEMENT_RANKS)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_CLI_02,
                         "bench placement: %d ranks; at most %d", comm_group_size(group),
                         TR_BENCH_PLACEMENT_RANKS);
    p.result = base_calloc(ctx, 1, sizeof *p.result, "measurements");
    if (p.result == NULL) return BASE_ERR_NOMEM;
    p.result->of[comm_group_rank(group)].used_before_bytes = base_device_used_bytes(dev);
    st = make_trainer(&p, dev);
    if (p.args->memory) {
        if (st >= 0) st = print_memory(&p);
        goto out;
    }
    if (st >= 0) st = measure(&p);
    const base_status_t traced = tr_run_trace_close(p.trace, st);
    if (st >= 0) st = traced;
    if (st >= 0) st = share(&p, dev);
    if (st >= 0 && comm_group_rank(group) == 0)
        st = tr_bench_placement_report(ctx, p.args, p.result);
out:
    if (st < 0) comm_group_stop(group, NULL); /* before what its exchanges name goes */
    for (int i = 1; i >= 0; i--)
        tr_lot_destroy(p.lots[i]);
    tr_trainer_destroy(p.trainer);
    as_topology_destroy(p.topology);
    base_free(ctx, p.rows);
    base_free(ctx, p.result);
    return st;
}
