/* What adapters owe each other when they share a job, on a real (golden) model:
 *
 *   Company       what an adapter learns does not depend on who trains beside it
 *   Accumulation  nor on how its global batch is divided (users' complaint 9)
 *   Servers       nor on who computes attention
 *   Isolation     an adapter that breaks breaks alone
 *   Memory        nothing is allocated between microbatches after the first two */
#include "tests/support/ctx_fixture.h"

#include "tests/golden/golden_case.h"
#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include <math.h>
#include <stdlib.h>

#define NUM     3
#define VOCAB   97
#define LONGEST 300

/* Different ranks, targets and seeds; the last has dropout. */
static const lora_adapter_options_t all_options[NUM] = {
    {.name = "a", .rank = 4, .scale = 1.5, .targets = BASE_CONFIG_TARGET_ALL, .seed = 1},
    {.name = "b",
     .rank = 8,
     .scale = 2.0,
     .targets = BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V | BASE_CONFIG_TARGET_DOWN,
     .seed = 2},
    {.name = "c",
     .rank = 3,
     .scale = 1.0,
     .dropout = 0.2,
     .targets = BASE_CONFIG_TARGET_ALL & ~(uint32_t)BASE_CONFIG_TARGET_O,
     .seed = 3}};

static const char *model_path(char path[1024])
{
    return golden_path("llama/model", path, 1024);
}

/* ==== training some of the adapters ==== */

typedef struct job_case {
    int32_t num;
    int32_t which[NUM]; /* of all_options */
    int64_t steps[NUM], batch;
    int64_t min_rows, max_rows;
    int64_t tokens;
    kern_dtype_t dtype;
    tr_recompute_t recompute;
    int32_t rank_columns; /* 0: enough for all */
    double spread[NUM];   /* of the initial B; 0: 0.08 */
    base_device_kind_t device;
    int num_ranks; /* 0: one */
    as_placement_t placement;
} job_case_t;

typedef struct job_result {
    const job_case_t *c;
    lora_layout_t *layout[NUM];
    double *values[NUM];
    train_log_t log[NUM];
} job_result_t;

static void write_documents(base_ctx_t *ctx, const job_case_t *c, int32_t adapter, char path[64])
{
    model_documents_t docs;
    data_document_t list[16];

    model_documents_random(&(model_documents_options_t){.seed = 70 + (uint64_t)adapter,
                                                        .count = 12,
                                                        .vocab = VOCAB,
                                                        .adapters = 1,
                                                        .min_rows = c->min_rows,
                                                        .max_rows = c->max_rows},
                           &docs);
    (void)snprintf(path, 64, "company_%d.h5", adapter);
    memcpy(list, docs.list, (size_t)docs.count * sizeof *list);
    assert_int_equal(train_write_dataset(ctx, path, list, docs.count, VOCAB), BASE_OK);
    model_documents_free(&docs);
}

static base_status_t jobs_body(train_rank_t *rank, void *user)
{
    job_result_t *r = user;
    base_config_adapter_t configs[NUM];
    char paths[NUM][64];

    for (int32_t j = 0; j < r->c->num; j++) {
        const lora_adapter_options_t *o = &all_options[r->c->which[j]];

        (void)snprintf(paths[j], sizeof paths[j], "company_%d.h5", r->c->which[j]);
        configs[j] = train_config(o->name, paths[j], r->c->steps[j], r->c->batch, 2e-3);
        configs[j].rank = o->rank;
        configs[j].weight_decay = 0.01;
        configs[j].seed = 9 + r->c->which[j];
        configs[j].order = BASE_CONFIG_ORDER_SHUFFLE;
    }
    return train_run_jobs(rank, configs, r->c->num, r->log);
}

static void run_jobs(const job_case_t *c, job_result_t *r)
{
    lora_adapter_options_t options[NUM];
    base_ctx_t *ctx = fixture_ctx();
    data_hf_folder_t *folder;
    char path[1024], data[64];

    *r = (job_result_t){.c = c};
    assert_int_equal(data_hf_folder_open(ctx, model_path(path), NULL, &folder), BASE_OK);
    for (int32_t j = 0; j < c->num; j++) {
        options[j] = all_options[c->which[j]];
        assert_int_equal(lora_layout_create(ctx, data_hf_folder_spec(folder), options[j].rank,
                                            options[j].targets, &r->layout[j]),
                         BASE_OK);
        const size_t count = (size_t)r->layout[j]->count;
        r->values[j] = calloc(count, sizeof(double));
        r->log[j].gradient = calloc(count, sizeof(double));
        r->log[j].final = calloc(count, sizeof(double));
        train_values(r->layout[j], 20 + (uint64_t)c->which[j],
                     c->spread[j] > 0 ? c->spread[j] : 0.08, r->values[j]);
        write_documents(ctx, c, c->which[j], data);
    }
    data_hf_folder_close(folder);
    const train_case_t run = {.folder = path,
                              .dtype = c->dtype,
                              .recompute = c->recompute,
                              .device = c->device,
                              .num_ranks = c->num_ranks,
                              .placement = c->placement,
                              .num_adapters = c->num,
                              .adapters = options,
                              .values = (const double *const *)r->values,
                              .rank_columns = c->rank_columns,
                              .tokens_per_trainer = c->tokens,
                              .longest = LONGEST,
                              .body = jobs_body,
                              .user = r};
    train_case_run(&run);
    for (int32_t j = 0; j < c->num; j++)
        lora_layout_destroy(r->layout[j]);
    fixture_ctx_end(ctx);
}

static void free_jobs(job_result_t *r)
{
    for (int32_t j = 0; j < r->c->num; j++) {
        free(r->values[j]);
        free(r->log[j].gradient);
        free(r->log[j].final);
    }
}

/* B A of one module; out x in. */
static void product(const lora_layout_t *layout, const lora_module_t *m, const double *values,
                    double *w)
{
    for (int64_t o = 0; o < m->out; o++) {
        for (int64_t i = 0; i < m->in; i++) {
            double sum = 0.0;
            for (int32_t r = 0; r < layout->rank; r++)
                sum += values[m->b + o * layout->rank + r] * values[m->a + r * m->in + i];
            w[o * m->in + i] = sum;
        }
    }
}

/* The largest distance of a module's delta W between two results of an adapter. */
static double delta_distance(int32_t adapter, const double *got, const double *want)
{
    base_ctx_t *ctx = fixture_ctx();
    data_hf_folder_t *folder;
    lora_layout_t *layout;
    char path[1024];
    double worst = 0.0;

    assert_int_equal(data_hf_folder_open(ctx, model_path(path), NULL, &folder), BASE_OK);
    assert_int_equal(lora_layout_create(ctx, data_hf_folder_spec(folder), all_options[adapter].rank,
                                        all_options[adapter].targets, &layout),
                     BASE_OK);
    double *a = calloc(128 * 128, sizeof *a), *b = calloc(128 * 128, sizeof *b);
    assert_true(a != NULL && b != NULL);
    for (int64_t i = 0; i < layout->num_modules; i++) {
        const lora_module_t *m = &layout->modules[i];
        assert_true(m->in <= 128 && m->out <= 128);
        product(layout, m, got, a);
        product(layout, m, want, b);
        worst = fmax(worst, model_distance(a, b, m->in * m->out));
    }
    free(a);
    free(b);
    lora_layout_destroy(layout);
    data_hf_folder_close(folder);
    fixture_ctx_end(ctx);
    return worst;
}

static int64_t parameters(int32_t adapter)
{
    base_ctx_t *ctx = fixture_ctx();
    data_hf_folder_t *folder;
    lora_layout_t *layout;
    char path[1024];

    assert_int_equal(data_hf_folder_open(ctx, model_path(path), NULL, &folder), BASE_OK);
    assert_int_equal(lora_layout_create(ctx, data_hf_folder_spec(folder), all_options[adapter].rank,
                                        all_options[adapter].targets, &layout),
                     BASE_OK);
    const int64_t count = layout->count;
    lora_layout_destroy(layout);
    data_hf_folder_close(folder);
    fixture_ctx_end(ctx);
    return count;
}

/* ==== company ==== */

/* The promise: 1e-5 for the first 20 losses, 1e-3 for what 50 steps made of the weights. */
static void compare_company(const train_log_t *alone, const train_log_t *company, int32_t adapter)
{
    double worst = 0.0;

    assert_int_equal(alone->steps, 50);
    assert_int_equal(company->steps, 50);
    for (int s = 0; s < 20; s++) {
        const double off = fabs(company->loss[s] - alone->loss[s]) / alone->loss[s];
        worst = fmax(worst, off);
        if (!(off <= 1e-5))
            fail_msg("%s: step %d: loss %.9g in company, %.9g alone", all_options[adapter].name,
                     s + 1, company->loss[s], alone->loss[s]);
    }
    const double off = delta_distance(adapter, company->final, alone->final);
    print_message("%s: losses %.1e, delta W %.1e\n", all_options[adapter].name, worst, off);
    assert_true(alone->loss[49] < alone->loss[0]); /* it learned something */
    if (!(off <= 1e-3)) fail_msg("%s: delta W off by %.3g", all_options[adapter].name, off);
}

/* All together, with columns for all or for two at a time, and each alone. */
static void check_company(int32_t rank_columns)
{
    const job_case_t together = {.num = NUM,
                                 .which = {0, 1, 2},
                                 .steps = {50, 50, 50},
                                 .batch = 3,
                                 .min_rows = 8,
                                 .max_rows = 120,
                                 .tokens = 1024,
                                 .dtype = KERN_F32,
                                 .rank_columns = rank_columns};
    job_result_t company, alone;

    run_jobs(&together, &company);
    for (int32_t j = 0; j < NUM; j++) {
        job_case_t one = together;

        one.num = 1;
        one.which[0] = j;
        one.rank_columns = 0;
        run_jobs(&one, &alone);
        compare_company(&alone.log[0], &company.log[j], j);
        free_jobs(&alone);
    }
    free_jobs(&company);
}

/* Complaints 1 and 2: what an adapter learns beside others of another rank, alpha and targets. */
static void test_company_complaints_1_and_2(void **state)
{
    (void)state;
    check_company(0);
}

/* More adapters than columns: they come and go. */
static void test_company_that_changes(void **state)
{
    (void)state;
    check_company(11);
}

/* The strict device runs everything late and shuts memory that no operand names: the same bits. */
static void check_strict(kern_dtype_t dtype)
{
    job_case_t c = {.num = NUM,
                    .which = {0, 1, 2},
                    .steps = {6, 5, 4},
                    .batch = 2,
                    .min_rows = 8,
                    .max_rows = 150,
                    .tokens = 512,
                    .dtype = dtype,
                    .rank_columns = 11,
                    .device = BASE_DEVICE_CPU};
    job_result_t cpu, strict;

    run_jobs(&c, &cpu);
    c.device = BASE_DEVICE_STRICT;
    run_jobs(&c, &strict);
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(strict.log[j].steps, c.steps[j]);
        assert_memory_equal(strict.log[j].loss, cpu.log[j].loss, sizeof cpu.log[j].loss);
        assert_memory_equal(strict.log[j].final, cpu.log[j].final,
                            (size_t)parameters(j) * sizeof(double));
    }
    free_jobs(&cpu);
    free_jobs(&strict);
}

static void test_strict(void **state)
{
    (void)state;
    check_strict(KERN_F32);
    check_strict(KERN_BF16);
}

/* Adapters with dropout and without, and what the backward makes again: the same bits. */
static void test_recompute(void **state)
{
    job_case_t c = {.num = NUM,
                    .which = {0, 1, 2},
                    .steps = {4, 4, 4},
                    .batch = 2,
                    .min_rows = 8,
                    .max_rows = 150,
                    .tokens = 512,
                    .dtype = KERN_F32,
                    .device = BASE_DEVICE_CPU};
    job_result_t kept, again;

    (void)state;
    run_jobs(&c, &kept);
    for (c.recompute = TR_RECOMPUTE_QKV; c.recompute < TR_NUM_RECOMPUTES; c.recompute++) {
        c.device = c.recompute == TR_RECOMPUTE_QKV ? BASE_DEVICE_CPU : BASE_DEVICE_STRICT;
        run_jobs(&c, &again);
        for (int32_t j = 0; j < NUM; j++) {
            assert_memory_equal(again.log[j].loss, kept.log[j].loss, sizeof kept.log[j].loss);
            assert_memory_equal(again.log[j].final, kept.log[j].final,
                                (size_t)parameters(j) * sizeof(double));
        }
        free_jobs(&again);
    }
    free_jobs(&kept);
}

/* Two trainers, in place or with a server of their own: the same bits. One trainer with twice the
 * rows: the same but for the order of sums. */
static void check_servers(kern_dtype_t dtype, double limit)
{
    job_case_t c = {.num = NUM,
                    .which = {0, 1, 2},
                    .steps = {8, 7, 6},
                    .batch = 4,
                    .min_rows = 20,
                    .max_rows = 280,
                    .tokens = 1024,
                    .dtype = dtype,
                    .device = BASE_DEVICE_CPU};
    job_result_t one, two, pool;

    run_jobs(&c, &one);
    c.tokens = 512;
    c.num_ranks = 2;
    run_jobs(&c, &two);
    c.num_ranks = 3;
    c.placement = AS_POOL;
    run_jobs(&c, &pool);
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(two.log[j].steps, c.steps[j]);
        assert_memory_equal(two.log[j].loss, pool.log[j].loss, sizeof two.log[j].loss);
        assert_memory_equal(two.log[j].final, pool.log[j].final,
                            (size_t)parameters(j) * sizeof(double));
        for (int64_t s = 0; s < c.steps[j]; s++)
            assert_true(fabs(two.log[j].loss[s] - one.log[j].loss[s]) <=
                        limit * one.log[j].loss[s]);
    }
    free_jobs(&one);
    free_jobs(&two);
    free_jobs(&pool);
}

/* bf16: a sum in another order may fall on the other side of a rounding, 2^-8 of the value; a loss
 * is a mean over some hundred tokens. */
static void test_servers(void **state)
{
    (void)state;
    check_servers(KERN_F32, 1e-5);
    check_servers(KERN_BF16, 1.0 / 256);
}

/* ==== accumulation ==== */

static double accumulation(kern_dtype_t dtype)
{
    job_case_t one = {.num = 1,
                      .which = {2},
                      .steps = {1},
                      .batch = 8,
                      .min_rows = 257,
                      .max_rows = 300,
                      .tokens = 4096,
                      .dtype = dtype};
    job_case_t eight = one;
    job_result_t a, b;

    eight.tokens = 512; /* each is alone */
    run_jobs(&one, &a);
    run_jobs(&eight, &b);
    assert_int_equal(a.log[0].microbatches, 1);
    assert_int_equal(b.log[0].microbatches, 8);
    const double off = model_distance(b.log[0].gradient, a.log[0].gradient, parameters(2));
    const double loss = fabs(a.log[0].loss[0] - b.log[0].loss[0]) / a.log[0].loss[0];
    print_message("accumulation %s: gradient %.1e, loss %.1e\n", kern_dtype_name(dtype), off, loss);
    free_jobs(&a);
    free_jobs(&b);
    return fmax(off, loss);
}

/* Users' complaint 9: eight documents in one microbatch, or one in each of eight. */
static void test_accumulation_complaint_9(void **state)
{
    (void)state;
    assert_true(accumulation(KERN_F32) <= 1e-6);
    assert_true(accumulation(KERN_F64) <= 1e-12);
}

/* ==== an adapter that breaks ==== */

/* b's products overflow: its gradient is not finite. The others' first gradients keep their bits,
 * and they go on as if nothing were; b keeps its initial values. */
static void check_quarantine(kern_dtype_t dtype, double limit)
{
    job_case_t good = {.num = NUM,
                       .which = {0, 1, 2},
                       .steps = {6, 6, 6},
                       .batch = 3,
                       .min_rows = 8,
                       .max_rows = 100,
                       .tokens = 1024,
                       .dtype = dtype};
    job_case_t bad = good;
    job_result_t a, b;

    bad.spread[1] = 5e37;
    run_jobs(&good, &a);
    run_jobs(&bad, &b);
    for (int32_t j = 0; j < NUM; j++) {
        const size_t bytes = (size_t)parameters(j) * sizeof(double);

        assert_int_equal(b.log[j].ended, 1);
        if (j == 1) {
            assert_int_equal(b.log[j].state, TR_JOB_QUARANTINED);
            assert_int_equal(b.log[j].steps, 0);
            assert_memory_equal(b.log[j].final, b.values[j], bytes);
            continue;
        }
        assert_int_equal(b.log[j].state, TR_JOB_DONE);
        assert_memory_equal(b.log[j].gradient, a.log[j].gradient, bytes);
        assert_true(b.log[j].loss[0] == a.log[j].loss[0]);
        for (int s = 1; s < 6; s++)
            assert_true(fabs(b.log[j].loss[s] - a.log[j].loss[s]) <= limit * a.log[j].loss[s]);
    }
    free_jobs(&a);
    free_jobs(&b);
}

static void test_quarantine(void **state)
{
    (void)state;
    check_quarantine(KERN_F32, 1e-5);
    check_quarantine(KERN_BF16, 1.0 / 256);
}

/* ==== memory ==== */

static void test_no_allocation(void **state)
{
    const job_case_t c = {.num = NUM,
                          .which = {0, 1, 2},
                          .steps = {20, 10, 15},
                          .batch = 4,
                          .min_rows = 8,
                          .max_rows = 200,
                          .tokens = 768,
                          .dtype = KERN_F32,
                          .rank_columns = 12};
    job_result_t r;

    (void)state;
    run_jobs(&c, &r);
    assert_true(r.log[0].microbatches > 20);
    assert_int_equal(r.log[0].late_requests, 0);
    free_jobs(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_company_complaints_1_and_2),
        cmocka_unit_test(test_company_that_changes),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_servers),
        cmocka_unit_test(test_accumulation_complaint_9),
        cmocka_unit_test(test_quarantine),
        cmocka_unit_test(test_no_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
