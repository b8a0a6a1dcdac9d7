#include "trainer/bench/bench_pack.h"

#include "base/json_write.h"
#include "base/memory.h"
#include "data/batch.h"
#include "lora/bound.h"
#include "lora/packer.h"
#include "trainer/simulate/draw_samples.h"
#include "trainer/simulate/pack_ffd.h"
#include "trainer/simulate/pack_two_stage.h"

#include <inttypes.h>
#include <time.h>

#define NUM_ADAPTERS 4
#define RANK         16
#define THEIR_ALIGN  128

typedef struct setting {
    const char *table, *model;
    tr_samples_t samples;
    int64_t capacity, align;
    int32_t batch, stages, num_samples, trainers;
    int32_t solver_seconds; /* 0: without LoRAFusion's programs */
} setting_t;

/* Four adapters with all their global batches. */
typedef struct draw {
    lora_window_t window;
    lora_window_adapter_t adapters[NUM_ADAPTERS];
    lora_window_batch_t *batches;
    int64_t *rows, *supervised;
    lora_schedule_t schedule;
} draw_t;

typedef struct row {
    lora_bounds_t bounds;
    lora_schedule_value_t ours;
    int64_t pad_rows; /* of our layout */
    int64_t ffd, pairs, two_stage;
    int32_t solved;
    int64_t pack_us;
} row_t;

/* ==== drawing ==== */

static void destroy_draw(base_ctx_t *ctx, draw_t *d)
{
    base_free(ctx, d->schedule.microbatch);
    base_free(ctx, d->supervised);
    base_free(ctx, d->rows);
    base_free(ctx, d->batches);
}

static base_status_t create_draw(base_ctx_t *ctx, const setting_t *s, uint64_t seed, draw_t *d)
{
    const int32_t rounds = (s->num_samples + s->batch - 1) / s->batch;
    const int64_t documents = (int64_t)NUM_ADAPTERS * s->num_samples;
    int32_t document = 0;

    *d = (draw_t){.batches =
                      base_calloc(ctx, (int64_t)NUM_ADAPTERS * rounds, sizeof *d->batches, "bench"),
                  .rows = base_calloc(ctx, documents, sizeof *d->rows, "bench"),
                  .supervised = base_calloc(ctx, documents, sizeof *d->supervised, "bench"),
                  .schedule.microbatch =
                      base_calloc(ctx, documents, sizeof *d->schedule.microbatch, "bench")};
    if (d->batches == NULL || d->rows == NULL || d->supervised == NULL ||
        d->schedule.microbatch == NULL) {
        destroy_draw(ctx, d);
        return BASE_ERR_NOMEM;
    }
    for (int32_t a = 0; a < NUM_ADAPTERS; a++) {
        d->adapters[a] = (lora_window_adapter_t){
            .rank = RANK, .total = rounds, .first_batch = a * rounds, .num_batches = rounds};
        for (int32_t i = 0; i < s->num_samples; i++, document++) {
            lora_window_batch_t *b = &d->batches[a * rounds + i / s->batch];

            if (b->num_documents++ == 0) b->first_document = document;
            d->rows[document] = tr_draw_sample(s->samples, seed, a, (uint32_t)i);
            /* An answer of 5 to 45 % of the sample. */
            d->supervised[document] =
                d->rows[document] *
                (5 + tr_draw_sample(TR_SAMPLES_MIX, seed + 1, a, (uint32_t)i) % 41) / 100;
        }
    }
    d->window = (lora_window_t){.capacity = s->capacity,
                                .alone_capacity = s->capacity,
                                .adapter_align = s->align,
                                .stages = s->stages,
                                .num_adapters = NUM_ADAPTERS,
                                .num_batches = NUM_ADAPTERS * rounds,
                                .num_documents = document,
                                .adapters = d->adapters,
                                .batches = d->batches,
                                .rows = d->rows,
                                .supervised = d->supervised};
    return BASE_OK;
}

/* ==== running ==== */

static int64_t thread_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Rows that no document covers: each half of each trainer is rounded up (lora/pack.h). */
static base_status_t count_pads(base_ctx_t *ctx, const draw_t *d, int32_t trainers, int64_t *pads)
{
    const int64_t grid = 2 * (int64_t)trainers * DATA_ROW_ALIGN;
    int64_t *rows = base_calloc(ctx, d->schedule.num_microbatches, sizeof *rows, "bench");

    if (rows == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < d->window.num_documents; i++)
        rows[d->schedule.microbatch[i]] += d->rows[i];
    *pads = 0;
    for (int32_t m = 0; m < d->schedule.num_microbatches; m++)
        *pads += (rows[m] + grid - 1) / grid * grid - rows[m];
    base_free(ctx, rows);
    return BASE_OK;
}

static base_status_t run_ours(base_ctx_t *ctx, const setting_t *s, draw_t *d, row_t *row)
{
    const lora_window_t *w = &d->window;
    const lora_packer_limits_t limits = {w->num_adapters, w->num_batches, w->num_documents};
    lora_packer_t *packer = NULL;
    base_status_t st;

    BASE_TRY(lora_packer_create(ctx, &limits, &packer));
    const int64_t begin = thread_us();
    BASE_TRY_GOTO(lora_packer_run(packer, w, &d->schedule), st, out);
    row->pack_us = thread_us() - begin;
    BASE_TRY_GOTO(lora_schedule_judge(ctx, w, &d->schedule, &row->ours), st, out);
    BASE_TRY_GOTO(lora_bound_window(ctx, w, &row->bounds), st, out);
    st = count_pads(ctx, d, s->trainers, &row->pad_rows);
out:
    lora_packer_destroy(packer);
    return st;
}

/* The others' schedules are judged like ours. */
static base_status_t run_others(base_ctx_t *ctx, const setting_t *s, draw_t *d, row_t *row)
{
    tr_two_stage_t pairs = {.seconds = 0}, solved = {.seconds = s->solver_seconds};

    BASE_TRY(tr_pack_ffd(ctx, &d->window, &d->schedule));
    BASE_TRY(lora_schedule_judge(ctx, &d->window, &d->schedule, NULL));
    row->ffd = d->schedule.num_microbatches;
    BASE_TRY(tr_pack_two_stage(ctx, &d->window, &pairs, &d->schedule));
    BASE_TRY(lora_schedule_judge(ctx, &d->window, &d->schedule, NULL));
    row->pairs = d->schedule.num_microbatches;
    if (s->solver_seconds == 0) return BASE_OK;
    BASE_TRY(tr_pack_two_stage(ctx, &d->window, &solved, &d->schedule));
    BASE_TRY(lora_schedule_judge(ctx, &d->window, &d->schedule, NULL));
    row->two_stage = d->schedule.num_microbatches;
    row->solved = solved.solved;
    return BASE_OK;
}

/* ==== writing ==== */

typedef struct writer {
    base_ctx_t *ctx;
    const tr_bench_pack_t *options;
    FILE *out;
} writer_t;

static base_status_t write_json(const writer_t *w, const setting_t *s, const row_t *r)
{
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {
        {"capacity", s->capacity},
        {"adapter_align", s->align},
        {"global_batch", s->batch},
        {"stages", s->stages},
        {"samples_per_adapter", s->num_samples},
        {"trainers", s->trainers},
        {"bound_volume", r->bounds.volume},
        {"bound_l2", r->bounds.l2},
        {"bound_chain", r->bounds.chain},
        {"bound", r->bounds.best},
        {"cadre", r->ours.microbatches},
        {"cadre_adapters", r->ours.adapters},
        {"cadre_supervised_excess", r->ours.supervised_excess},
        {"cadre_rows", r->ours.rows},
        {"cadre_pad_rows", r->pad_rows},
        {"cadre_us", r->pack_us},
        {"ffd", r->ffd},
        {"lorafusion_first_fit", r->pairs},
        {"lorafusion_solver", r->two_stage},
        {"solver_seconds", s->solver_seconds},
    };
    base_json_t j;

    base_json_to_file(&j, w->out);
    base_json_begin_object(&j);
    base_json_put_string(&j, "table", s->table);
    base_json_put_string(&j, "model", s->model);
    base_json_put_string(&j, "samples", tr_samples_name(s->samples));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        base_json_put_int(&j, numbers[i].key, numbers[i].value);
    }
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, w->ctx, "bench pack");
}

static void write_number(FILE *out, int64_t value)
{
    if (value > 0)
        (void)fprintf(out, " %7" PRId64, value);
    else
        (void)fprintf(out, " %7s", "-");
}

static void write_row(FILE *out, const setting_t *s, const row_t *r)
{
    (void)fprintf(out, "%-5s %-8s %7" PRId64 " %5" PRId32 " %2" PRId32, s->model,
                  tr_samples_name(s->samples), s->capacity, s->batch, s->stages);
    write_number(out, r->bounds.best);
    write_number(out, r->ours.microbatches);
    (void)fprintf(out, "  %.4f", (double)r->ours.microbatches / (double)r->bounds.best);
    write_number(out, r->ffd);
    write_number(out, r->pairs);
    write_number(out, r->two_stage);
    (void)fprintf(out, "  %8.2f %9.2f %9.2f %8.1f\n",
                  (double)r->ours.adapters / (double)r->ours.microbatches,
                  100.0 * (double)r->pad_rows / (double)(r->ours.rows + r->pad_rows),
                  100.0 * (double)r->ours.rows / (double)(r->ours.microbatches * s->capacity),
                  (double)r->pack_us / 1e3);
}

static void write_head(const writer_t *w, const char *title)
{
    if (w->options->json) return;
    (void)fprintf(w->out, "\n%s\n%-5s %-8s %7s %5s %2s %7s %7s  %6s %7s %7s %7s  %8s %9s %9s %8s\n",
                  title, "model", "samples", "rows", "batch", "S", "bound", "cadre", "/bound",
                  "FFD", "pairs", "MILP", "adapters", "pad %", "full %", "ms");
}

static base_status_t run_setting(const writer_t *w, const setting_t *s)
{
    row_t row = {0};
    draw_t draw;
    base_status_t st;

    BASE_TRY(create_draw(w->ctx, s, w->options->seed, &draw));
    BASE_TRY_GOTO(run_ours(w->ctx, s, &draw, &row), st, out);
    BASE_TRY_GOTO(run_others(w->ctx, s, &draw, &row), st, out);
    if (w->options->json)
        st = write_json(w, s, &row);
    else
        write_row(w->out, s, &row);
    (void)fflush(w->out);
out:
    destroy_draw(w->ctx, &draw);
    return st;
}

/* ==== tables ==== */

/* Capacities, batches and pipeline stages of LoRAFusion's runs. */
static const struct {
    const char *name;
    int64_t capacity[TR_NUM_SAMPLES];
    int32_t batch, stages;
} models[] = {
    {"8B", {6656, 6144, 6144, 6144, 6144}, 8, 1},
    {"32B", {4096, 7168, 4096, 7168, 7168}, 8, 2},
    {"70B", {4096, 6144, 7168, 6144, 6144}, 16, 4},
};
enum { NUM_MODELS = sizeof models / sizeof models[0] };

static setting_t setting_of(const char *table, int model, tr_samples_t samples)
{
    return (setting_t){.table = table,
                       .model = models[model].name,
                       .samples = samples,
                       .capacity = models[model].capacity[samples],
                       .align = THEIR_ALIGN,
                       .batch = models[model].batch,
                       .stages = 1,
                       .trainers = 1};
}

static base_status_t their_table(const writer_t *w, const char *table, int64_t align, int pipelined)
{
    for (int m = pipelined ? 1 : 0; m < NUM_MODELS; m++)
        for (int x = 0; x < TR_NUM_SAMPLES; x++) {
            setting_t s = setting_of(table, m, (tr_samples_t)x);

            s.align = align;
            s.num_samples = w->options->samples;
            if (pipelined) s.stages = models[m].stages;
            BASE_TRY(run_setting(w, &s));
        }
    return BASE_OK;
}

static base_status_t solver_table(const writer_t *w)
{
    for (int m = 0; m < NUM_MODELS; m++)
        for (int x = 0; x < TR_NUM_SAMPLES; x++) {
            setting_t s = setting_of("solver", m, (tr_samples_t)x);

            s.num_samples = w->options->solver_samples;
            s.solver_seconds = w->options->solver_seconds;
            BASE_TRY(run_setting(w, &s));
        }
    return BASE_OK;
}

static base_status_t large_table(const writer_t *w)
{
    static const int32_t batches[] = {32, 64};

    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++)
        for (int x = 0; x < TR_NUM_SAMPLES; x++) {
            setting_t s = setting_of("25,600 samples", 2, (tr_samples_t)x);

            s.batch = batches[i];
            s.num_samples = 6400;
            BASE_TRY(run_setting(w, &s));
        }
    return BASE_OK;
}

static base_status_t cut_table(const writer_t *w)
{
    for (int32_t trainers = 1; trainers <= 8; trainers *= 2)
        for (int x = 0; x < TR_NUM_SAMPLES; x++) {
            setting_t s = setting_of("cut", 0, (tr_samples_t)x);

            s.model = trainers == 1 ? "1" : (trainers == 2 ? "2" : (trainers == 4 ? "4" : "8"));
            s.align = 1;
            s.trainers = trainers;
            s.capacity = 8192 * (int64_t)trainers - DATA_ROW_ALIGN + 1;
            s.batch = 8 * trainers;
            s.num_samples = w->options->samples;
            BASE_TRY(run_setting(w, &s));
        }
    return BASE_OK;
}

base_status_t tr_bench_pack(base_ctx_t *ctx, const tr_bench_pack_t *options, FILE *out)
{
    const writer_t w = {.ctx = ctx, .options = options, .out = out};

    write_head(&w, "LoRAFusion's setting, one pipeline stage, adapters padded to 128 rows");
    BASE_TRY(their_table(&w, "padded", THEIR_ALIGN, 0));
    write_head(&w, "The same without padding between adapters, as our layers run");
    BASE_TRY(their_table(&w, "unpadded", 1, 0));
    write_head(&w, "Its pipeline stages, adapters padded to 128 rows");
    BASE_TRY(their_table(&w, "stages", THEIR_ALIGN, 1));
    write_head(&w, "25,600 samples, adapters padded to 128 rows");
    BASE_TRY(large_table(&w));
    write_head(&w, "As we run: documents cut over so many trainers (model) of 8,192 rows");
    BASE_TRY(cut_table(&w));
    if (options->solver_samples == 0) return BASE_OK;
    write_head(&w, "LoRAFusion's mixed-integer programs solved, fewer samples");
    return solver_table(&w);
}
