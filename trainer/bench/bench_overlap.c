#include "trainer/bench/bench_overlap.h"

#include "base/clock.h"
#include "base/memory.h"
#include "comm/threads.h"
#include "lora/adapter_init.h"
#include "trainer/loop/build.h"
#include "trainer/loop/gradients.h"
#include "trainer/loop/microbatch.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEED        UINT64_C(7)
#define RANK        8
#define HEAD_DIM    64
#define VOCAB       256
#define NUM_RANKS   2
#define MESSAGES    8 /* of a layer */
#define NUM_KINDS   4 /* serial x 2 + delayed */
#define MILLISECOND INT64_C(1000000)

/* What both ranks of one run share. */
typedef struct run {
    const tr_bench_overlap_t *bench;
    data_model_spec_t spec;
    int serial;
    int64_t step_ns; /* rank 0's */
} run_t;

typedef struct stepper {
    run_t *run;
    base_ctx_t *ctx;
    as_topology_t *topology;
    tr_trainer_t *trainer;
    tr_lot_t *lots[2];
} stepper_t;

static void make_spec(const tr_bench_overlap_t *b, data_model_spec_t *spec)
{
    const int32_t heads = (int32_t)(b->hidden / HEAD_DIM);

    *spec = (data_model_spec_t){.family = DATA_MODEL_LLAMA,
                                .num_layers = (int32_t)b->layers,
                                .hidden = b->hidden,
                                .intermediate = b->hidden * 11 / 4,
                                .vocab = VOCAB,
                                .num_q_heads = heads,
                                .num_kv_heads = heads / 2,
                                .head_dim = HEAD_DIM,
                                .max_positions = b->rows,
                                .rms_eps = 1e-5,
                                .softmax_scale = 1.0 / sqrt(HEAD_DIM),
                                .rope = {.kind = DATA_ROPE_PLAIN, .theta = 1e4}};
}

static base_status_t init_adapter(stepper_t *s)
{
    const lora_layout_t *layout = s->trainer->adapters->adapters[0].layout;

    double *values = base_calloc(s->ctx, layout->count, sizeof *values, "adapter");
    if (values == NULL) return BASE_ERR_NOMEM;
    lora_adapter_init(layout, LORA_INIT_GAUSSIAN, SEED, values);
    const base_status_t st =
        lora_adapter_set_write(s->trainer->adapters, 0, s->trainer->stream, values);
    base_free(s->ctx, values);
    return st;
}

static base_status_t make_trainer(stepper_t *s, base_device_t *dev, comm_group_t *group)
{
    const run_t *run = s->run;
    const int64_t step = 2 * DATA_ROW_ALIGN;
    /* Each half of a trainer holds half of a document, and up to a tile stays free. */
    const int64_t rows = run->bench->rows + 2 * DATA_ROW_ALIGN;
    const lora_adapter_options_t adapter = {.name = "bench",
                                            .rank = RANK,
                                            .scale = 2.0,
                                            .targets = BASE_CONFIG_TARGET_ALL,
                                            .seed = SEED};
    tr_lot_options_t lots;

    BASE_TRY(as_topology_create(s->ctx, AS_IN_PLACE, NUM_RANKS, NULL, 0, &s->topology));
    const tr_build_t build = {.spec = &run->spec,
                              .dtype = KERN_F32,
                              .topology = s->topology,
                              .tokens_per_trainer = (rows + step - 1) / step * step,
                              .longest = run->bench->rows,
                              .optimizer = 1,
                              .num_adapters = 1,
                              .adapters = &adapter,
                              .rank_columns = RANK,
                              .serial = run->serial};
    BASE_TRY(tr_build_trainer(s->ctx, dev, group, &build, &lots, &s->trainer));
    BASE_TRY(tr_weights_random(s->trainer->weights, s->trainer->stream, SEED));
    BASE_TRY(init_adapter(s));
    for (int i = 0; i < 2; i++)
        BASE_TRY(tr_lot_create(s->ctx, &lots, s->lots[0], &s->lots[i]));
    return tr_gradients_zero(s->trainer);
}

static base_status_t fill_lot(const stepper_t *s, int64_t microbatch)
{
    const int64_t rows = s->run->bench->rows;
    tr_lot_t *lot = s->lots[microbatch % 2];

    tr_lot_begin(lot, microbatch);
    for (int d = 0; d < DATA_NUM_HALVES; d++) {
        BASE_TRY(tr_lot_add_rows(lot, rows));
        data_document_t *document = &lot->documents[d];
        int32_t *tokens = lot->tokens + d * rows;
        uint8_t *mask = lot->masks + d * rows;

        for (int64_t t = 0; t < rows; t++) {
            tokens[t] = (int32_t)((t * 31 + d) % VOCAB);
            mask[t] = t > 0;
        }
        document->tokens = tokens;
        document->loss_mask = mask;
        document->index = d;
        document->row_weight = 0.5 / (double)(rows - 1);
    }
    return tr_lot_finish(lot);
}

/* All ranks together, from barrier to barrier. */
static base_status_t run_step(const stepper_t *s, comm_group_t *group, int64_t microbatch,
                              int64_t *step_ns)
{
    const tr_lot_t *lot = s->lots[microbatch % 2];

    BASE_TRY(fill_lot(s, microbatch));
    BASE_TRY(comm_barrier(group));
    const int64_t begin_ns = base_clock_ns();
    BASE_TRY(tr_microbatch_run(s->trainer, lot->batch, tr_lot_plans(lot)));
    BASE_TRY(tr_trainer_sync(s->trainer));
    BASE_TRY(comm_barrier(group));
    *step_ns = base_clock_ns() - begin_ns;
    return BASE_OK;
}

/* One step warms up, the second is taken. */
static base_status_t run_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    stepper_t s = {.run = user, .ctx = ctx};
    int64_t ns = 0;

    base_status_t st = make_trainer(&s, dev, group);
    for (int64_t m = 0; m < 2 && st >= 0; m++)
        st = run_step(&s, group, m, &ns);
    if (st < 0) comm_group_stop(group, NULL); /* before what its exchanges name goes */
    if (base_ctx_rank(ctx) == 0) s.run->step_ns = ns;
    for (int i = 1; i >= 0; i--)
        tr_lot_destroy(s.lots[i]);
    tr_trainer_destroy(s.trainer);
    as_topology_destroy(s.topology);
    return st;
}

/* ==== the four kinds ==== */

static base_status_t measure(base_ctx_t *ctx, const tr_bench_overlap_t *bench, int kind,
                             int64_t *step_ns)
{
    run_t run = {.bench = bench, .serial = kind / 2};
    const comm_threads_options_t options = {.num_ranks = NUM_RANKS,
                                            .device = BASE_DEVICE_CPU,
                                            .delay_ns =
                                                kind % 2 ? bench->delay_ms * MILLISECOND : 0,
                                            .log = base_ctx_log(ctx)};
    base_error_t error;

    make_spec(bench, &run.spec);
    if (data_model_spec_check(&run.spec) != NULL)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "bench overlap: a model of these sizes cannot be: %s",
                         data_model_spec_check(&run.spec));
    const base_status_t st = comm_threads_run(&options, run_rank, &run, &error);
    if (st < 0) return BASE_FAIL(ctx, st, error.message, "%s", error.text);
    *step_ns = run.step_ns;
    return BASE_OK;
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static double median_ms(const int64_t *values, int64_t count)
{
    int64_t sorted[TR_BENCH_OVERLAP_ROUNDS];

    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    return (double)(sorted[count / 2] + sorted[(count - 1) / 2]) / (2.0 * MILLISECOND);
}

static void print_table(tr_bench_overlap_t *b, int64_t ns[NUM_KINDS][TR_BENCH_OVERLAP_ROUNDS])
{
    const double all_ms = (double)(MESSAGES * b->layers * b->delay_ms);
    double grown[2];

    (void)fprintf(b->out,
                  "%" PRId64 " layers of %" PRId64 ", two documents of %" PRId64 " rows, %" PRId64
                  " rounds; %" PRId64 " ms a message, %.0f ms of a step\n"
                  "ping-pong  ms a step  delayed   grows by   of the delay\n",
                  b->layers, b->hidden, b->rows, b->rounds, b->delay_ms, all_ms);
    for (int serial = 0; serial < 2; serial++) {
        const double plain = median_ms(ns[2 * serial], b->rounds);
        const double delayed = median_ms(ns[2 * serial + 1], b->rounds);

        grown[serial] = (delayed - plain) / all_ms;
        (void)fprintf(b->out, "%-9s  %9.1f  %7.1f  %6.1f ms  %11.1f%%\n", serial ? "off" : "on",
                      plain, delayed, delayed - plain, 100 * grown[serial]);
    }
    b->met = grown[0] <= TR_BENCH_OVERLAP_HIDDEN && grown[1] >= TR_BENCH_OVERLAP_SEEN;
}

base_status_t tr_bench_overlap(base_ctx_t *ctx, tr_bench_overlap_t *bench)
{
    int64_t ns[NUM_KINDS][TR_BENCH_OVERLAP_ROUNDS];

    for (int64_t r = 0; r < bench->rounds; r++)
        for (int kind = 0; kind < NUM_KINDS; kind++)
            BASE_TRY(measure(ctx, bench, kind, &ns[kind][r]));
    print_table(bench, ns);
    return BASE_OK;
}
