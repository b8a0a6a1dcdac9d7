/* The training loop: evaluations, the best adapter, early stopping, and jobs that end at different
 * times, on a small random model. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include <math.h>
#include <stdlib.h>

#define NUM   2
#define VOCAB 40

static const data_model_spec_t spec = {.family = DATA_MODEL_LLAMA,
                                       .num_layers = 1,
                                       .hidden = 16,
                                       .intermediate = 20,
                                       .vocab = VOCAB,
                                       .num_q_heads = 2,
                                       .num_kv_heads = 2,
                                       .head_dim = 8,
                                       .max_positions = 512,
                                       .rms_eps = 1e-5,
                                       .softmax_scale = 0.35,
                                       .rope = {.kind = DATA_ROPE_PLAIN, .theta = 10000.0}};

static const lora_adapter_options_t options[NUM] = {
    {.name = "a", .rank = 4, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "b", .rank = 2, .scale = 1, .targets = BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V}};

typedef struct run {
    base_config_adapter_t configs[NUM];
    train_log_t logs[NUM];
    int64_t count[NUM];
} run_t;

static void make_datasets(void)
{
    static const char *const paths[] = {"train_0.h5", "train_1.h5", "train_eval.h5"};
    base_ctx_t *ctx = fixture_ctx();

    for (uint64_t f = 0; f < 3; f++) {
        model_documents_t docs;
        model_documents_random(&(model_documents_options_t){.seed = 5 + f,
                                                            .count = 9,
                                                            .vocab = VOCAB,
                                                            .adapters = 1,
                                                            .min_rows = 10,
                                                            .max_rows = 60},
                               &docs);
        assert_int_equal(train_write_dataset(ctx, paths[f], docs.list, docs.count, VOCAB), BASE_OK);
        model_documents_free(&docs);
    }
    fixture_ctx_end(ctx);
}

static run_t make_run(void)
{
    run_t r = {0};
    base_ctx_t *ctx = fixture_ctx();

    for (int32_t j = 0; j < NUM; j++) {
        lora_layout_t *layout;

        assert_int_equal(
            lora_layout_create(ctx, &spec, options[j].rank, options[j].targets, &layout), BASE_OK);
        r.count[j] = layout->count;
        r.logs[j].final = calloc((size_t)layout->count, sizeof(double));
        lora_layout_destroy(layout);
        r.configs[j] =
            train_config(options[j].name, j == 0 ? "train_0.h5" : "train_1.h5", 6, 3, 1e-3);
        r.configs[j].rank = options[j].rank;
    }
    fixture_ctx_end(ctx);
    return r;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    run_t *r = user;

    return train_run_jobs(rank, r->configs, NUM, r->logs);
}

static void execute_on(base_device_kind_t device, run_t *r)
{
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 2,
                            .dtype = KERN_F32,
                            .device = device,
                            .num_adapters = NUM,
                            .adapters = options,
                            .tokens_per_trainer = 512,
                            .longest = 60,
                            .body = body,
                            .user = r};

    train_case_run(&c);
}

static void execute(run_t *r)
{
    execute_on(BASE_DEVICE_CPU, r);
}

static void end_run(run_t *r)
{
    for (int32_t j = 0; j < NUM; j++)
        free(r->logs[j].final);
}

/* Each job makes its own number of steps; ended is told once. */
static void test_different_ends(void **state)
{
    run_t r = make_run();

    (void)state;
    r.configs[0].steps = 2;
    r.configs[1].steps = 0;
    r.configs[1].epochs = 3;
    execute(&r);
    assert_int_equal(r.logs[0].steps, 2);
    assert_int_equal(r.logs[1].steps, 9);
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(r.logs[j].ended, 1);
        assert_int_equal(r.logs[j].state, TR_JOB_DONE);
        assert_int_equal(r.logs[j].evaluations, 0);
    }
    assert_true(r.logs[0].microbatches < r.logs[1].microbatches);
    end_run(&r);
}

/* Evaluations come when they are due and change no bit of what is learned. */
static void test_evaluations(void **state)
{
    char eval[] = "train_eval.h5";
    run_t with = make_run(), without = make_run();

    (void)state;
    with.configs[0].eval = eval;
    with.configs[0].eval_every_steps = 2;
    with.configs[0].steps = without.configs[0].steps = 5;
    /* A rate so small that every evaluation is better than the one before. */
    with.configs[0].learning_rate = without.configs[0].learning_rate = 1e-4;
    execute(&with);
    execute(&without);
    assert_int_equal(with.logs[0].evaluations, 3);
    assert_int_equal(with.logs[1].evaluations, 0);
    for (int32_t j = 0; j < NUM; j++)
        assert_memory_equal(with.logs[j].loss, without.logs[j].loss, sizeof with.logs[j].loss);
    assert_memory_equal(with.logs[1].final, without.logs[1].final,
                        (size_t)with.count[1] * sizeof(double));
    for (int e = 0; e < 3; e++)
        assert_true(with.logs[0].evaluation[e] > 0.5 && with.logs[0].evaluation[e] < 10.0);
    end_run(&with);
    end_run(&without);
}

/* An evaluation on the training data, before anything is learned (rate 0), is the training loss of
 * all of it. */
static void test_evaluation_is_the_loss(void **state)
{
    char eval[] = "train_0.h5";
    run_t r = make_run();

    (void)state;
    r.configs[0].eval = eval;
    r.configs[0].global_batch_documents = 9;
    r.configs[0].learning_rate = 0.0;
    r.configs[0].steps = 2;
    execute(&r);
    /* Sums over other rows, in fp32. */
    assert_true(fabs(r.logs[0].evaluation[0] - r.logs[0].loss[1]) <= 1e-6 * r.logs[0].loss[1]);
    assert_true(r.logs[0].evaluation[0] == r.logs[0].evaluation[1]);
    assert_int_equal(r.logs[0].best_evaluation, 0);
    end_run(&r);
}

/* A rate far too high gets worse: the job stops after two evaluations without gain, and what is
 * kept is the best one, to the bit what a run of just so many steps ends with. */
static void test_early_stopping_keeps_the_best(void **state)
{
    char eval[] = "train_eval.h5";
    run_t r = make_run(), shorter = make_run();

    (void)state;
    r.configs[0].eval = eval;
    r.configs[0].early_stopping_patience = 2;
    r.configs[0].steps = 50;
    r.configs[0].learning_rate = 3e-2;
    r.configs[1].steps = 50;
    execute(&r);
    assert_int_equal(r.logs[0].state, TR_JOB_STOPPED);
    assert_int_equal(r.logs[1].state, TR_JOB_DONE);
    assert_true(r.logs[0].steps < 50);
    assert_int_equal(r.logs[0].evaluations, r.logs[0].steps);
    assert_int_equal(r.logs[0].best_evaluation, r.logs[0].steps - 3);
    shorter.configs[0].steps = r.logs[0].best_evaluation + 1;
    shorter.configs[0].learning_rate = 3e-2;
    shorter.configs[1].steps = 50;
    execute(&shorter);
    /* Documents meet others of b from the step on at which the shorter one has ended. */
    assert_memory_equal(shorter.logs[0].final, r.logs[0].final,
                        (size_t)r.count[0] * sizeof(double));
    end_run(&r);
    end_run(&shorter);
}

/* Between microbatches the host waits for nothing that it has just given, evaluations or not: a
 * device that runs late is still at work when the next microbatch is given, and what is learned has
 * the same bits. */
static void test_host_does_not_wait(void **state)
{
    char eval[] = "train_eval.h5";
    run_t now = make_run(), late = make_run();

    (void)state;
    now.configs[0].eval = late.configs[0].eval = eval;
    now.configs[0].eval_every_steps = late.configs[0].eval_every_steps = 2;
    execute_on(BASE_DEVICE_CPU, &now);
    execute_on(BASE_DEVICE_STRICT, &late);
    assert_int_equal(now.logs[0].waits.all, 0);
    assert_int_equal(late.logs[0].waits.all, 0);
    assert_int_equal(now.logs[0].waits.results, 0);
    assert_int_equal(now.logs[0].waits.slots, 0);
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(late.logs[j].steps, 6);
        assert_memory_equal(now.logs[j].loss, late.logs[j].loss, sizeof now.logs[j].loss);
        assert_memory_equal(now.logs[j].norm, late.logs[j].norm, sizeof now.logs[j].norm);
        assert_memory_equal(now.logs[j].final, late.logs[j].final,
                            (size_t)now.count[j] * sizeof(double));
    }
    end_run(&now);
    end_run(&late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_different_ends),
        cmocka_unit_test(test_evaluations),
        cmocka_unit_test(test_evaluation_is_the_loss),
        cmocka_unit_test(test_early_stopping_keeps_the_best),
        cmocka_unit_test(test_host_does_not_wait),
    };

    make_datasets();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
