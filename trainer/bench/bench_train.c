#include "trainer/bench/bench_train.h"

#include "base/clock.h"
#include "base/device/staging.h"
#include "base/memory.h"
#include "base/philox.h"
#include "lora/adapter_init.h"
#include "trainer/bench/model_shape.h"
#include "trainer/loop/adapter_step.h"
#include "trainer/loop/build.h"
#include "trainer/loop/microbatch.h"
#include "trainer/model/product_search.h"
#include "trainer/run/driver_memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEED          UINT64_C(7)
#define BARE_ROWS     INT64_C(8192)
#define RESERVE_BYTES (INT64_C(2) << 30) /* as in trainer/run/run_setup.c */

typedef struct bench {
    const tr_bench_train_t *args;
    base_ctx_t *ctx;
    data_model_spec_t spec;
    lora_adapter_options_t options[TR_BENCH_TRAIN_ADAPTERS];
    char names[TR_BENCH_TRAIN_ADAPTERS][24];
    as_topology_t *topology;
    tr_trainer_t *trainer;
    tr_lot_t *lots[2];
    base_staging_t landings; /* tr_step_landing_t [adapters] */
    int64_t microbatch;
    tr_bench_train_result_t *result;
} bench_t;

/* ==== what is trained ==== */

static base_status_t init_adapters(bench_t *b)
{
    const lora_layout_t *layout = b->trainer->adapters->adapters[0].layout;
    base_status_t st = BASE_OK;

    double *values = base_calloc(b->ctx, layout->count, sizeof *values, "adapter");
    if (values == NULL) return BASE_ERR_NOMEM;
    lora_adapter_init(layout, LORA_INIT_GAUSSIAN, SEED, values);
    for (int32_t a = 0; a < (int32_t)b->args->adapters && st >= 0; a++)
        st = lora_adapter_set_write(b->trainer->adapters, a, b->trainer->stream, values);
    base_free(b->ctx, values);
    return st;
}

static base_status_t make_build(bench_t *b, tr_build_t *build)
{
    const tr_bench_train_t *args = b->args;
    const int64_t step = 2 * DATA_ROW_ALIGN, rows = args->documents * args->rows;

    BASE_TRY(tr_model_shape(b->ctx, args->shape, args->layers, args->rows, &b->spec));
    for (int32_t a = 0; a < (int32_t)args->adapters; a++) {
        (void)snprintf(b->names[a], sizeof b->names[a], "bench%d", a);
        b->options[a] = (lora_adapter_options_t){.name = b->names[a],
                                                 .rank = (int32_t)args->rank,
                                                 .scale = 2.0,
                                                 .targets = BASE_CONFIG_TARGET_ALL,
                                                 .seed = SEED};
    }
    BASE_TRY(as_topology_create(b->ctx, AS_IN_PLACE, 1, NULL, 0, &b->topology));
    *build = (tr_build_t){.spec = &b->spec,
                          .dtype = args->dtype,
                          .topology = b->topology,
                          .tokens_per_trainer = (rows + DATA_ROW_ALIGN + step - 1) / step * step,
                          .longest = args->rows,
                          .optimizer = 1,
                          .num_adapters = (int32_t)args->adapters,
                          .adapters = b->options,
                          .rank_columns = (int32_t)(args->rank * args->adapters),
                          .recompute = args->recompute,
                          .follow_servers = args->follow_servers};
    return BASE_OK;
}

static base_status_t make_trainer(bench_t *b, base_device_t *dev, comm_group_t *group)
{
    const tr_bench_train_t *args = b->args;
    const int64_t free_bytes = base_device_free_bytes(dev);
    tr_lot_options_t lots;
    tr_build_t build;

    BASE_TRY(make_build(b, &build));
    if (args->recompute_auto && free_bytes > RESERVE_BYTES)
        build.memory_bytes = free_bytes - RESERVE_BYTES;
    BASE_TRY(tr_build_trainer(b->ctx, dev, group, &build, &lots, &b->trainer));
    BASE_TRY(kern_gemm_search_new(b->trainer->stream, 1));
    BASE_TRY(tr_weights_repeat(b->trainer->weights, b->trainer->stream, SEED));
    if (tr_product_has_choice(&b->trainer->graph)) BASE_TRY(tr_product_search(&b->trainer->graph));
    BASE_TRY(init_adapters(b));
    for (int i = 0; i < 2; i++)
        BASE_TRY(tr_lot_create(b->ctx, &lots, b->lots[0], &b->lots[i]));
    BASE_TRY(base_staging_create(dev, args->adapters * (int64_t)sizeof(tr_step_landing_t),
                                 "results of steps", &b->landings));
    return tr_gradients_zero(b->trainer);
}

/* Random tokens; all but the first of each document are targets. */
static base_status_t fill_lot(const bench_t *b, tr_lot_t *lot)
{
    const tr_bench_train_t *args = b->args;
    const base_philox_key_t key = base_philox_key(SEED);

    tr_lot_begin(lot, b->microbatch);
    for (int64_t d = 0; d < args->documents; d++) {
        const int64_t adapter = d % args->adapters;
        const int64_t of_adapter = (args->documents - adapter - 1) / args->adapters + 1;

        BASE_TRY(tr_lot_add_rows(lot, args->rows));
        data_document_t *document = &lot->documents[d];
        int32_t *tokens = lot->tokens + d * args->rows;
        uint8_t *mask = lot->masks + d * args->rows;

        for (int64_t t = 0; t < args->rows; t++) {
            const base_philox_t r = base_philox(key, (uint32_t)t, (uint32_t)d, 0, 'B');
            tokens[t] = (int32_t)(r.word[0] % (uint64_t)b->spec.vocab);
            mask[t] = t > 0;
        }
        document->tokens = tokens;
        document->loss_mask = mask;
        document->index = d;
        document->adapter = (int32_t)adapter;
        document->row_weight = 1.0 / (double)(of_adapter * (args->rows - 1));
    }
    return tr_lot_finish(lot);
}

/* ==== a step ==== */

static int32_t num_stepped(const bench_t *b)
{
    const int64_t adapters = b->args->adapters, documents = b->args->documents;

    return (int32_t)(adapters < documents ? adapters : documents);
}

static base_status_t step_adapters(bench_t *b)
{
    const tr_step_options_t options = {
        .learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip_norm = 1.0};
    const tr_step_hook_t none = {0};
    const base_trace_note_t note = {.part = BASE_PART_DENSE};
    tr_step_landing_t *landings = b->landings.memory;

    BASE_TRY(base_stream_begin(b->trainer->stream, "optimizer step", &note));
    for (int32_t a = 0; a < num_stepped(b); a++)
        BASE_TRY(tr_adapter_step(b->trainer, a, &options, &none, &landings[a]));
    return base_stream_end(b->trainer->stream);
}

/* After the stream has passed. */
static base_status_t check_steps(const bench_t *b, double *loss)
{
    const tr_step_landing_t *landings = b->landings.memory;

    for (int32_t a = 0; a < num_stepped(b); a++) {
        const tr_step_result_t result = tr_step_landed(b->trainer, &landings[a]);

        if (result.nonfinite > 0 || !isfinite(result.loss))
            return BASE_FAIL(b->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                             "bench train: adapter %d: %d elements of the gradient are not finite",
                             a, result.nonfinite);
        if (a == 0) *loss = result.loss;
    }
    return BASE_OK;
}

static base_status_t run_step(bench_t *b, int64_t *step_ns, int64_t *given_ns, double *loss)
{
    tr_lot_t *lot = b->lots[b->microbatch % 2];

    BASE_TRY(fill_lot(b, lot));
    b->microbatch++;
    BASE_TRY(base_stream_sync(b->trainer->stream));
    const int64_t begin = base_clock_ns();
    BASE_TRY(tr_microbatch_run(b->trainer, lot->batch, tr_lot_plans(lot)));
    *given_ns = base_clock_ns() - begin;
    BASE_TRY(step_adapters(b));
    BASE_TRY(base_stream_sync(b->trainer->stream));
    *step_ns = base_clock_ns() - begin;
    return check_steps(b, loss);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The steps whose times count, and what the stream did in them. */
static base_status_t measure_steps(bench_t *b)
{
    tr_bench_train_result_t *r = b->result;
    int64_t before[BASE_NUM_PARTS], after[BASE_NUM_PARTS];

    base_meter_read(&b->trainer->meter, before);
    for (int64_t i = 0; i < b->args->repeat; i++) {
        BASE_TRY(run_step(b, &r->step_ns[i], &r->given_ns[i], &r->loss[1]));
        r->part_ns[BASE_PART_NONE] += r->step_ns[i];
    }
    r->stalls = b->trainer->stalls;
    base_meter_read(&b->trainer->meter, after);
    for (int p = BASE_PART_NONE + 1; p < BASE_NUM_PARTS; p++) {
        r->part_ns[p] = after[p] - before[p];
        r->part_ns[BASE_PART_NONE] -= r->part_ns[p];
    }
    return BASE_OK;
}

/* Of the shape of the largest product of a layer, at most 8192 rows of it, which fill any device. */
static base_status_t measure_bare(bench_t *b)
{
    tr_bare_t *bare = &b->result->bare;
    const int64_t rows = data_batch_trainer_rows(b->lots[0]->batch);

    bare->dtype = b->args->dtype;
    bare->m = rows < BARE_ROWS ? rows : BARE_ROWS;
    bare->n = 2 * b->spec.intermediate;
    bare->k = b->spec.hidden;
    return tr_bare_measure(b->trainer->stream, bare);
}

/* A half has half of the documents; a single one it has half of, which whole is as fast. */
static base_status_t measure_attention(bench_t *b, base_device_t *dev)
{
    tr_bare_attention_t *bare = &b->result->attention;

    bare->shape = (tr_attention_shape_t){.kv_heads = b->spec.num_kv_heads,
                                         .group = b->spec.num_q_heads / b->spec.num_kv_heads,
                                         .head_dim = b->spec.head_dim};
    bare->count = b->args->documents > 1 ? b->args->documents / 2 : 1;
    bare->rows = b->args->rows;
    return tr_bare_attention_measure(b->ctx, base_device_kind(dev), bare);
}

static void count_memory(const bench_t *b)
{
    tr_bench_train_result_t *r = b->result;

    const tr_driver_case_t of = {.device = base_device_kind(base_stream_device(b->trainer->stream)),
                                 .num_ranks = 1,
                                 .is_trainer = 1};
    const tr_driver_memory_t driver = tr_driver_memory(&of);

    r->arena_bytes = base_arena_bytes(b->trainer->arena);
    r->planned_bytes = r->arena_bytes + tr_driver_memory_total(&driver);
    r->device_bytes = base_memory_peak(base_ctx_memory(b->ctx), BASE_RESOURCE_DEVICE);
    r->used_bytes[1] = base_device_used_bytes(base_stream_device(b->trainer->stream));
}

static base_status_t measure(bench_t *b)
{
    tr_bench_train_result_t *r = b->result;
    const int64_t repeat = b->args->repeat;
    int64_t sorted[TR_BENCH_TRAIN_REPEAT], given;
    double loss;

    for (int64_t i = 0; i < b->args->warm; i++)
        BASE_TRY(run_step(b, &sorted[0], &given, i == 0 ? &r->loss[0] : &loss));
    BASE_TRY(measure_steps(b));
    count_memory(b);
    memcpy(sorted, r->step_ns, (size_t)repeat * sizeof *sorted);
    qsort(sorted, (size_t)repeat, sizeof *sorted, by_value);
    r->median_ns = sorted[repeat / 2];

    if (b->args->steps_only) return BASE_OK;
    tr_op_clock_init_stream(&r->clock, b->trainer->stream);
    base_ctx_set_observer(b->ctx, &r->clock.observer);
    const base_status_t st = run_step(b, &r->serial_ns, &given, &loss);
    base_ctx_set_observer(b->ctx, NULL);
    BASE_TRY(st);
    BASE_TRY(r->clock.status);
    BASE_TRY(measure_bare(b));
    return measure_attention(b, base_stream_device(b->trainer->stream));
}

static void describe(bench_t *b, base_device_t *dev)
{
    tr_bench_train_result_t *r = b->result;

    (void)snprintf(r->device, sizeof r->device, "%s", base_device_name(dev));
    r->parameters = tr_model_parameters(b->trainer->model);
    r->batch_rows = data_batch_trainer_rows(b->lots[0]->batch);
    r->recompute = b->trainer->activations->recompute;
}

/* ==== memory ==== */

/* Sums by owner say what is large, though regions may share bytes. */
static int64_t bytes_of(const base_arena_t *arena, const char *owner)
{
    int64_t bytes = 0;

    for (base_region_t r = 0; r < base_arena_num_regions(arena); r++) {
        const base_arena_entry_t entry = base_arena_entry(arena, r);
        if (strcmp(entry.owner, owner) == 0) bytes += entry.bytes;
    }
    return bytes;
}

static base_status_t print_memory(bench_t *b, base_device_t *dev, comm_group_t *group)
{
    const double gib = (double)(INT64_C(1) << 30);
    tr_lot_options_t lots;
    tr_build_t build;

    BASE_TRY(make_build(b, &build));
    build.layout_only = 1;
    for (int r = 0; r < TR_NUM_RECOMPUTES; r++) {
        tr_trainer_t *trainer;

        build.recompute = (tr_recompute_t)r;
        BASE_TRY(tr_build_trainer(b->ctx, dev, group, &build, &lots, &trainer));
        (void)fprintf(
            b->args->out,
            "recompute %-6s %8.2f GiB (trainer %.2f, lora %.2f, attention_server %.2f; some of "
            "it shares bytes)\n",
            tr_recompute_name(build.recompute), (double)base_arena_bytes(trainer->arena) / gib,
            (double)bytes_of(trainer->arena, "trainer") / gib,
            (double)bytes_of(trainer->arena, "lora") / gib,
            (double)bytes_of(trainer->arena, "attention_server") / gib);
        tr_trainer_destroy(trainer);
    }
    return BASE_OK;
}

base_status_t tr_bench_train_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    bench_t b = {.args = user, .ctx = ctx};
    base_status_t st;

    b.result = base_calloc(ctx, 1, sizeof *b.result, "measurements");
    if (b.result == NULL) return BASE_ERR_NOMEM;
    if (b.args->memory) {
        st = print_memory(&b, dev, group);
        goto out;
    }
    b.result->used_bytes[0] = base_device_used_bytes(dev);
    st = make_trainer(&b, dev, group);
    if (st >= 0) st = measure(&b);
    if (st >= 0) describe(&b, dev);
    if (st >= 0) st = tr_bench_train_report(ctx, b.args, b.result);
out:
    base_free(ctx, b.result);
    for (int i = 1; i >= 0; i--)
        tr_lot_destroy(b.lots[i]);
    tr_trainer_destroy(b.trainer);
    base_staging_destroy(&b.landings);
    as_topology_destroy(b.topology);
    return st;
}
