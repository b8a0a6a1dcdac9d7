/* What ranks tell each other at a boundary: wants of any rank, ends that all trainers found; trainers
 * that found different ones are named; more ends than a record holds come with the next ones. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include <stdlib.h>

#define RANKS 3 /* two trainers and a server */
#define VOCAB 40
#define MANY  (TR_CONTROL_MAX_ENDS + 5)

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

static void run(int32_t num_adapters, train_body_fn body, void *user)
{
    lora_adapter_options_t adapters[MANY];
    char names[MANY][16];

    for (int32_t a = 0; a < num_adapters; a++) {
        (void)snprintf(names[a], sizeof names[a], "a%d", a);
        adapters[a] = (lora_adapter_options_t){
            .name = names[a], .rank = 2, .scale = 1, .targets = BASE_CONFIG_TARGET_Q};
    }
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 2,
                            .dtype = KERN_F32,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = num_adapters,
                            .adapters = adapters,
                            .tokens_per_trainer = 1024,
                            .longest = 60,
                            .num_ranks = RANKS,
                            .placement = AS_POOL,
                            .body = body,
                            .user = user};

    train_case_run(&c);
}

/* ==== the exchange ==== */

typedef struct told_case {
    int differs; /* 1: the second trainer finds another end in microbatch 2 */
    tr_control_told_t told[RANKS][4];
    base_status_t failed[RANKS];
    char text[RANKS][BASE_ERROR_TEXT_BYTES];
} told_case_t;

/* In microbatch n job n ends; the server wants a save in microbatch 1. */
static base_status_t tell(told_case_t *c, tr_control_t *control, int rank)
{
    for (int64_t n = 0; n < 4; n++) {
        tr_control_told_t mine = {.microbatch = n};

        if (rank == 2) {
            mine.wants = n == 1 ? TR_CONTROL_SAVE : 0;
        } else {
            mine.num_ends = 1;
            mine.ends[0] = (tr_control_end_t){(int32_t)n, TR_JOB_STOPPED};
            if (c->differs && rank == 1 && n == 2) mine.ends[0].state = TR_JOB_QUARANTINED;
        }
        BASE_TRY(tr_control_exchange(control, &mine, 77, &c->told[rank][n]));
    }
    return tr_control_finish(control);
}

static base_status_t told_body(train_rank_t *rank, void *user)
{
    const int me = base_ctx_rank(rank->ctx);
    told_case_t *c = user;
    tr_control_t *control;
    base_error_t error;

    BASE_TRY(tr_control_create(rank->trainer, &control));
    const base_status_t st = tell(c, control, me);
    if (st == BASE_ERR_MISMATCH && base_ctx_error(rank->ctx, &error)) {
        c->failed[me] = st;
        memcpy(c->text[me], error.text, sizeof error.text);
        base_ctx_clear_error(rank->ctx);
        /* What was given is on its way; all ranks are here. */
        BASE_TRY(tr_control_finish(control));
        tr_control_destroy(control);
        return BASE_OK;
    }
    tr_control_destroy(control);
    return st;
}

static void test_all_are_told(void **state)
{
    told_case_t c = {0};

    (void)state;
    run(1, told_body, &c);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(c.told[r][0].microbatch, -1);
        for (int64_t n = TR_CONTROL_TRAVEL; n < 4; n++) {
            const tr_control_told_t *told = &c.told[r][n];
            const int64_t of = n - TR_CONTROL_TRAVEL;

            assert_int_equal(told->microbatch, of);
            assert_int_equal(told->wants, of == 1 ? TR_CONTROL_SAVE : 0);
            assert_int_equal(told->num_ends, 1);
            assert_int_equal(told->ends[0].job, of);
            assert_int_equal(told->ends[0].state, TR_JOB_STOPPED);
        }
    }
}

static void test_trainers_that_differ_are_named(void **state)
{
    told_case_t c = {.differs = 1};

    (void)state;
    run(1, told_body, &c);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(c.failed[r], BASE_ERR_MISMATCH);
        if (strstr(c.text[r], "microbatch 2: ranks 0 and 1 have different results") == NULL)
            fail_msg("%s", c.text[r]);
    }
}

/* ==== many ends at once ==== */

typedef struct many_case {
    int64_t ends[RANKS][MANY]; /* how often */
    int64_t at[RANKS][MANY];   /* microbatch whose record told it */
} many_case_t;

typedef struct many_rank {
    many_case_t *of;
    int rank;
    tr_job_t **jobs;
} many_rank_t;

static base_status_t note_end(void *user, int32_t job)
{
    many_rank_t *r = user;

    r->of->ends[r->rank][job]++;
    r->of->at[r->rank][job] = r->jobs[job]->end_at;
    return BASE_OK;
}

static base_status_t many_body(train_rank_t *rank, void *user)
{
    tr_job_t *jobs[MANY] = {NULL};
    many_rank_t r = {.of = user, .rank = base_ctx_rank(rank->ctx), .jobs = jobs};
    const tr_train_options_t loop = {.rank_columns = 2 * MANY};
    const tr_train_events_t events = {.user = &r, .ended = note_end};
    base_config_adapter_t config = train_config("a", "control.h5", 1, 1, 1e-3);
    base_error_list_t errors;
    tr_train_t *train = NULL;
    base_status_t st = BASE_OK;

    config.rank = 2;
    base_error_list_init(&errors, rank->ctx);
    for (int32_t j = 0; j < MANY && st >= 0; j++)
        st = tr_job_open(rank->ctx, &config, "a", config.data, NULL, TRAIN_CASE_SHA, VOCAB, &errors,
                         &jobs[j]);
    base_error_list_deinit(&errors);
    if (st >= 0)
        st = tr_train_create(rank->ctx, rank->trainer, jobs, MANY, &rank->lots, &loop, &events,
                             &train);
    if (st >= 0) st = tr_train_run(train);
    tr_train_destroy(train);
    for (int32_t j = 0; j < MANY; j++)
        tr_job_close(jobs[j]);
    return st;
}

/* All jobs make their only step in the first microbatch; it is known TR_STEP_RESULTS_AFTER later. */
static void test_more_ends_than_a_record_holds(void **state)
{
    many_case_t c = {0};
    model_documents_t docs;
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    model_documents_random(
        &(model_documents_options_t){
            .seed = 5, .count = 2, .vocab = VOCAB, .adapters = 1, .min_rows = 10, .max_rows = 20},
        &docs);
    assert_int_equal(train_write_dataset(ctx, "control.h5", docs.list, docs.count, VOCAB), BASE_OK);
    model_documents_free(&docs);
    fixture_ctx_end(ctx);
    run(MANY, many_body, &c);
    for (int r = 0; r < RANKS; r++)
        for (int32_t j = 0; j < MANY; j++) {
            assert_int_equal(c.ends[r][j], 1);
            assert_int_equal(c.at[r][j], TR_STEP_RESULTS_AFTER + (j < TR_CONTROL_MAX_ENDS ? 0 : 1));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_are_told),
        cmocka_unit_test(test_trainers_that_differ_are_named),
        cmocka_unit_test(test_more_ends_than_a_record_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
