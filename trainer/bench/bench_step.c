#include "trainer/bench/bench_step.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/philox.h"
#include "kernels/cpu/blas.h"
#include "lora/adapter_init.h"
#include "trainer/bench/blas_sampler.h"
#include "trainer/loop/adapter_step.h"
#include "trainer/loop/build.h"
#include "trainer/loop/microbatch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RANK     16
#define HEAD_DIM 64
#define SEED     UINT64_C(7)

typedef struct stepper {
    tr_bench_step_t *bench;
    base_ctx_t *ctx;
    data_model_spec_t spec;
    as_topology_t *topology;
    tr_trainer_t *trainer;
    tr_lot_t *lots[2];
    int64_t microbatch;
    float *bare; /* three matrices of bare products, one behind the other */
    int64_t bare_room[3];
} stepper_t;

/* ==== model and documents ==== */

static void make_spec(const tr_bench_step_t *b, data_model_spec_t *spec)
{
    *spec = (data_model_spec_t){.family = DATA_MODEL_LLAMA,
                                .num_layers = (int32_t)b->layers,
                                .hidden = b->hidden,
                                .intermediate = b->hidden * 11 / 4,
                                .vocab = b->vocab,
                                .num_q_heads = (int32_t)(b->hidden / HEAD_DIM),
                                .num_kv_heads = (int32_t)(b->hidden / HEAD_DIM / 4),
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
    const tr_bench_step_t *b = s->bench;
    const int64_t step = 2 * DATA_ROW_ALIGN;
    const lora_adapter_options_t adapter = {.name = "bench",
                                            .rank = RANK,
                                            .scale = 2.0,
                                            .targets = BASE_CONFIG_TARGET_ALL,
                                            .seed = SEED};
    tr_lot_options_t lots;

    make_spec(b, &s->spec);
    if (data_model_spec_check(&s->spec) != NULL)
        return BASE_FAIL(s->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "bench step: a model of these sizes cannot be: %s",
                         data_model_spec_check(&s->spec));
    BASE_TRY(as_topology_create(s->ctx, AS_IN_PLACE, 1, NULL, 0, &s->topology));
    /* The packer leaves up to a tile of rows free (trainer/loop/lot.c). */
    const int64_t rows = b->documents * b->rows + DATA_ROW_ALIGN;
    const tr_build_t build = {.spec = &s->spec,
                              .dtype = KERN_F32,
                              .topology = s->topology,
                              .tokens_per_trainer = (rows + step - 1) / step * step,
                              .longest = b->rows,
                              .optimizer = 1,
                              .num_adapters = 1,
                              .adapters = &adapter,
                              .rank_columns = RANK};
    BASE_TRY(tr_build_trainer(s->ctx, dev, group, &build, &lots, &s->trainer));
    BASE_TRY(tr_weights_random(s->trainer->weights, s->trainer->stream, SEED));
    BASE_TRY(init_adapter(s));
    for (int i = 0; i < 2; i++)
        BASE_TRY(tr_lot_create(s->ctx, &lots, s->lots[0], &s->lots[i]));
    return tr_gradients_zero(s->trainer);
}

/* Random tokens; all but the first of each document are targets. */
static base_status_t fill_lot(const stepper_t *s, tr_lot_t *lot)
{
    const tr_bench_step_t *b = s->bench;
    const base_philox_key_t key = base_philox_key(SEED);

    tr_lot_begin(lot, s->microbatch);
    for (int64_t d = 0; d < b->documents; d++) {
        BASE_TRY(tr_lot_add_rows(lot, b->rows));
        data_document_t *document = &lot->documents[d];
        int32_t *tokens = lot->tokens + d * b->rows;
        uint8_t *mask = lot->masks + d * b->rows;

        for (int64_t t = 0; t < b->rows; t++) {
            const base_philox_t r = base_philox(key, (uint32_t)t, (uint32_t)d, 0, 'B');
            tokens[t] = (int32_t)(r.word[0] % (uint64_t)b->vocab);
            mask[t] = t > 0;
        }
        document->tokens = tokens;
        document->loss_mask = mask;
        document->index = d;
        document->row_weight = 1.0 / (double)(b->documents * (b->rows - 1));
    }
    return tr_lot_finish(lot);
}

static base_status_t run_step(stepper_t *s)
{
    const tr_step_options_t options = {
        .learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip_norm = 1.0};
    const tr_step_hook_t none = {0};
    tr_lot_t *lot = s->lots[s->microbatch % 2];
    tr_step_landing_t landing;

    BASE_TRY(fill_lot(s, lot));
    s->microbatch++;
    BASE_TRY(tr_microbatch_run(s->trainer, lot->batch, tr_lot_plans(lot)));
    BASE_TRY(tr_adapter_step(s->trainer, 0, &options, &none, &landing));
    BASE_TRY(base_stream_sync(s->trainer->stream));
    const tr_step_result_t result = tr_step_landed(s->trainer, &landing);
    if (result.nonfinite == 0 && isfinite(result.loss)) return BASE_OK;
    return BASE_FAIL(s->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                     "bench step: the gradient is not finite");
}

/* ==== bare products ==== */

static base_status_t make_bare(stepper_t *s, const tr_op_clock_t *clock)
{
    int64_t all = 0;

    for (int i = 0; i < clock->count; i++) {
        const tr_op_entry_t *e = &clock->entries[i];
        const int64_t sizes[3] = {e->m * e->k, e->k * e->n, e->m * e->n};

        for (int x = 0; x < 3; x++)
            if (sizes[x] > s->bare_room[x]) s->bare_room[x] = sizes[x];
    }
    for (int x = 0; x < 3; x++)
        all += s->bare_room[x];
    s->bare = base_calloc(s->ctx, all, sizeof *s->bare, "bare products");
    if (s->bare == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < all; i++)
        s->bare[i] = (float)(i % 1021 - 510) * 1e-3F;
    return BASE_OK;
}

static int64_t bare_product(const stepper_t *s, const tr_op_entry_t *e)
{
    const float *a = s->bare, *b = a + s->bare_room[0];
    float *c = s->bare + s->bare_room[0] + s->bare_room[1];
    const int64_t begin = tr_op_clock_cpu_ns();

    kern_blas_sgemm(e->ta, e->tb, e->m, e->n, e->k, 1, a, e->ta ? e->m : e->k, b,
                    e->tb ? e->k : e->n, e->accumulate ? 1 : 0, c, e->n);
    return tr_op_clock_cpu_ns() - begin;
}

/* ==== numbers ==== */

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static int64_t median(int64_t *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static void judge(tr_bench_step_t *bench, tr_bench_result_t *r)
{
    double bare = 0, dense = 0, attention = 0, attention_ns = 0;

    r->op_ns = 0;
    for (int i = 0; i < r->clock.count; i++) {
        const tr_op_entry_t *e = &r->clock.entries[i];

        r->op_ns += e->ns;
        if (strncmp(e->op, "attention_", 10) == 0) {
            attention += e->flops;
            attention_ns += (double)e->ns;
        }
        if (r->bare_ns[i] == 0) continue;
        const double speed = e->flops / (double)e->calls / ((double)r->bare_ns[i] * 1e-9);
        if (speed > r->peak) r->peak = speed;
        bare += (double)(r->bare_ns[i] * e->calls);
        dense += (double)e->ns;
    }
    r->dense = bare / dense;
    r->attention = attention / (attention_ns * 1e-9) / r->peak;
    bench->met = r->blas >= TR_BENCH_BLAS && r->dense >= TR_BENCH_DENSE &&
                 r->attention >= TR_BENCH_ATTENTION;
}

/* ==== the run ==== */

typedef struct series {
    int64_t step[TR_BENCH_REPEAT], wall[TR_BENCH_REPEAT];
    int64_t bare[TR_OP_CLOCK_ENTRIES][TR_BENCH_REPEAT];
} series_t;

static base_status_t measure_step(stepper_t *s, tr_blas_sampler_t *sampler, tr_bench_result_t *r,
                                  series_t *series, int64_t i)
{
    const int64_t wall = base_clock_ns(), begin = tr_op_clock_cpu_ns();

    base_ctx_set_observer(s->ctx, &r->clock.observer);
    tr_blas_sampler_run(sampler, 1);
    const base_status_t st = run_step(s);
    tr_blas_sampler_run(sampler, 0);
    base_ctx_set_observer(s->ctx, NULL);
    BASE_TRY(st);
    series->step[i] = tr_op_clock_cpu_ns() - begin;
    series->wall[i] = base_clock_ns() - wall;
    r->all_ns += series->step[i];
    if (s->bare == NULL) BASE_TRY(make_bare(s, &r->clock));
    for (int e = 0; e < r->clock.count; e++)
        if (r->clock.entries[e].m > 0) series->bare[e][i] = bare_product(s, &r->clock.entries[e]);
    return BASE_OK;
}

static base_status_t measure(stepper_t *s, tr_blas_sampler_t *sampler, tr_bench_result_t *r)
{
    const int64_t repeat = s->bench->repeat;
    base_status_t st = BASE_OK;

    series_t *series = base_calloc(s->ctx, 1, sizeof *series, "measurements");
    if (series == NULL) return BASE_ERR_NOMEM;
    for (int i = 0; i < 2 && st >= 0; i++) /* warm: both slots of every double buffer */
        st = run_step(s);
    tr_op_clock_init(&r->clock);
    for (int64_t i = 0; i < repeat && st >= 0; i++)
        st = measure_step(s, sampler, r, series, i);
    for (int e = 0; e < r->clock.count && st >= 0; e++)
        r->bare_ns[e] = median(series->bare[e], repeat);
    if (st >= 0) {
        r->step_ns = median(series->step, repeat);
        r->wall_ns = median(series->wall, repeat);
        r->blas = tr_blas_sampler_share(sampler, &r->samples);
        if (getloadavg(&r->load, 1) != 1) r->load = (double)NAN;
        judge(s->bench, r);
    }
    base_free(s->ctx, series);
    return st;
}

static base_status_t run_all(stepper_t *s, base_device_t *dev, comm_group_t *group,
                             tr_bench_result_t *r)
{
    tr_blas_sampler_t *sampler;

    BASE_TRY(make_trainer(s, dev, group));
    BASE_TRY(tr_blas_sampler_create(s->ctx, &sampler));
    const base_status_t st = measure(s, sampler, r);
    tr_blas_sampler_destroy(sampler);
    return st;
}

base_status_t tr_bench_step_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    stepper_t s = {.bench = user, .ctx = ctx};
    base_status_t st = BASE_ERR_NOMEM;

    tr_bench_result_t *r = base_calloc(ctx, 1, sizeof *r, "measurements");
    if (r != NULL) st = run_all(&s, dev, group, r);
    if (st >= 0 && s.bench->json)
        st = tr_bench_step_json(ctx, s.bench, r);
    else if (st >= 0)
        tr_bench_step_text(s.bench, r);
    base_free(ctx, r);
    base_free(ctx, s.bare);
    for (int i = 0; i < 2; i++)
        tr_lot_destroy(s.lots[i]);
    tr_trainer_destroy(s.trainer);
    as_topology_destroy(s.topology);
    return st;
}
