/* Pool ranks end each job where the trainers do: one adapter stops early and another is quarantined
 * while a third goes on, with and without servers, and all that is learned has the same bits. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include <math.h>
#include <stdlib.h>

#define NUM   3
#define VOCAB 40

enum { STOPS, BREAKS, GOES_ON };

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
    {.name = "stops", .rank = 4, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "breaks", .rank = 2, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "goes_on", .rank = 2, .scale = 1, .targets = BASE_CONFIG_TARGET_Q}};

static const char *const paths[] = {"pool_0.h5", "pool_1.h5", "pool_2.h5", "pool_eval.h5"};

typedef struct run {
    base_config_adapter_t configs[NUM];
    train_log_t logs[NUM];
    int64_t count[NUM];
} run_t;

static void make_datasets(void)
{
    base_ctx_t *ctx = fixture_ctx();

    for (uint64_t f = 0; f < 4; f++) {
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

static run_t make_run(char *eval)
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
        r.configs[j] = train_config(options[j].name, paths[j], 12, 3, 1e-3);
        r.configs[j].rank = options[j].rank;
    }
    /* Too high: it gets worse. Far too high: the step after the first is not finite. */
    r.configs[STOPS].learning_rate = 3e-2;
    r.configs[STOPS].eval = eval;
    r.configs[STOPS].steps = 50;
    r.configs[STOPS].early_stopping_patience = 2;
    r.configs[BREAKS].learning_rate = 1e30;
    fixture_ctx_end(ctx);
    return r;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    run_t *r = user;

    return train_run_jobs(rank, r->configs, NUM, r->logs);
}

static run_t execute(int num_ranks, as_placement_t placement, char *eval)
{
    run_t r = make_run(eval);
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 2,
                            .dtype = KERN_F32,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = NUM,
                            .adapters = options,
                            .tokens_per_trainer = 512,
                            .longest = 60,
                            .num_ranks = num_ranks,
                            .placement = placement,
                            .body = body,
                            .user = &r};

    train_case_run(&c);
    return r;
}

static void end_run(run_t *r)
{
    for (int32_t j = 0; j < NUM; j++)
        free(r->logs[j].final);
}

static void compare(const run_t *a, const run_t *b)
{
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(a->logs[j].state, b->logs[j].state);
        assert_int_equal(a->logs[j].steps, b->logs[j].steps);
        assert_int_equal(a->logs[j].microbatches, b->logs[j].microbatches);
        assert_memory_equal(a->logs[j].loss, b->logs[j].loss, sizeof a->logs[j].loss);
        assert_memory_equal(a->logs[j].evaluation, b->logs[j].evaluation,
                            sizeof a->logs[j].evaluation);
        assert_memory_equal(a->logs[j].final, b->logs[j].final,
                            (size_t)a->count[j] * sizeof(double));
    }
}

static void test_pool_ends_as_in_place(void **state)
{
    char eval[] = "pool_eval.h5";

    (void)state;
    for (int trainers = 1; trainers <= 2; trainers++) {
        run_t in_place = execute(trainers, AS_IN_PLACE, eval);
        run_t pool = execute(trainers + 1, AS_POOL, eval);

        assert_int_equal(in_place.logs[STOPS].state, TR_JOB_STOPPED);
        assert_int_equal(in_place.logs[BREAKS].state, TR_JOB_QUARANTINED);
        assert_int_equal(in_place.logs[GOES_ON].state, TR_JOB_DONE);
        assert_true(in_place.logs[STOPS].steps < 50 && in_place.logs[STOPS].steps > 2);
        assert_int_equal(in_place.logs[GOES_ON].steps, 12);
        compare(&in_place, &pool);
        end_run(&in_place);
        end_run(&pool);
    }
}

/* ==== where jobs end ==== */

#define MAX_RANKS 3

typedef struct ends_case {
    run_t *run;
    int64_t boundary[MAX_RANKS][NUM], told_at[MAX_RANKS][NUM];
    tr_job_state_t state[MAX_RANKS][NUM];
} ends_case_t;

typedef struct ends_rank {
    ends_case_t *of;
    int32_t rank;
    tr_job_t **jobs;
    tr_train_t *train;
} ends_rank_t;

static base_status_t note_end(void *user, int32_t job)
{
    ends_rank_t *r = user;

    r->of->boundary[r->rank][job] = r->train->microbatch - 1;
    r->of->told_at[r->rank][job] = r->jobs[job]->end_at;
    r->of->state[r->rank][job] = r->jobs[job]->state;
    return BASE_OK;
}

static base_status_t ends_body(train_rank_t *rank, void *user)
{
    tr_job_t *jobs[NUM] = {NULL};
    ends_rank_t r = {.of = user, .rank = base_ctx_rank(rank->ctx), .jobs = jobs};
    const tr_train_options_t loop = {.rank_columns = 8};
    const tr_train_events_t events = {.user = &r, .ended = note_end};
    base_error_list_t errors;
    base_status_t st = BASE_OK;

    base_error_list_init(&errors, rank->ctx);
    for (int32_t j = 0; j < NUM && st >= 0; j++) {
        const base_config_adapter_t *c = &r.of->run->configs[j];

        st = tr_job_open(rank->ctx, c, c->name, c->data, c->eval, TRAIN_CASE_SHA, VOCAB, &errors,
                         &jobs[j]);
    }
    base_error_list_deinit(&errors);
    if (st >= 0)
        st = tr_train_create(rank->ctx, rank->trainer, jobs, NUM, &rank->lots, &loop, &events,
                             &r.train);
    if (st >= 0) st = tr_train_run(r.train);
    tr_train_destroy(r.train);
    for (int32_t j = 0; j < NUM; j++)
        tr_job_close(jobs[j]);
    return st;
}

/* Early stop, quarantine and the last step: found in one microbatch, told in its record, in effect so
 * many microbatches later, on every rank, the server among them. */
static void test_all_ranks_end_jobs_at_the_same_boundary(void **state)
{
    static const tr_job_state_t want[NUM] = {
        [STOPS] = TR_JOB_STOPPED, [BREAKS] = TR_JOB_QUARANTINED, [GOES_ON] = TR_JOB_DONE};
    char eval[] = "pool_eval.h5";
    run_t run = make_run(eval);

    (void)state;
    for (int pool = 0; pool < 2; pool++) {
        ends_case_t e = {.run = &run};
        const train_case_t c = {.spec = &spec,
                                .weight_seed = 2,
                                .dtype = KERN_F32,
                                .device = BASE_DEVICE_CPU,
                                .num_adapters = NUM,
                                .adapters = options,
                                .tokens_per_trainer = 512,
                                .longest = 60,
                                .num_ranks = MAX_RANKS,
                                .placement = pool ? AS_POOL : AS_IN_PLACE,
                                .body = ends_body,
                                .user = &e};

        train_case_run(&c);
        for (int32_t j = 0; j < NUM; j++)
            for (int r = 0; r < MAX_RANKS; r++) {
                assert_int_equal(e.state[r][j], want[j]);
                assert_int_equal(e.told_at[r][j], e.told_at[0][j]);
                /* After the last microbatch boundaries go on without any. */
                assert_true(e.boundary[r][j] <= e.told_at[r][j] + TR_CONTROL_LOOK_AHEAD);
                assert_int_equal(e.boundary[r][j], e.boundary[0][j]);
            }
        assert_int_equal(e.boundary[0][BREAKS], e.told_at[0][BREAKS] + TR_CONTROL_LOOK_AHEAD);
    }
    end_run(&run);
}

/* ==== an end that one rank wants ==== */

#define WANTED_AT 3 /* the microbatch at which it says so */

typedef struct stop_case {
    base_config_adapter_t config;
    int32_t rank; /* that wants it */
    int64_t done[4], told[4];
    uint64_t events[4];
} stop_case_t;

typedef struct stop_rank {
    stop_case_t *of;
    int32_t rank;
    int64_t asked;
    tr_train_t *train;
} stop_rank_t;

static uint64_t wants(void *user)
{
    stop_rank_t *r = user;

    return r->asked++ == WANTED_AT && r->rank == r->of->rank ? TR_CONTROL_END : 0;
}

static base_status_t agreed(void *user, uint64_t events)
{
    stop_rank_t *r = user;

    r->of->told[r->rank] = r->train->microbatch;
    r->of->events[r->rank] = events;
    return BASE_OK;
}

static base_status_t stop_body(train_rank_t *rank, void *user)
{
    stop_rank_t r = {.of = user, .rank = base_ctx_rank(rank->ctx)};
    const tr_train_options_t loop = {.rank_columns = 8};
    const tr_train_events_t events = {.user = &r, .wants = wants, .agreed = agreed};
    base_error_list_t errors;
    tr_job_t *job = NULL;

    base_error_list_init(&errors, rank->ctx);
    base_status_t st = tr_job_open(rank->ctx, &r.of->config, "stops", paths[0], NULL,
                                   TRAIN_CASE_SHA, VOCAB, &errors, &job);
    base_error_list_deinit(&errors);
    if (st >= 0)
        st = tr_train_create(rank->ctx, rank->trainer, &job, 1, &rank->lots, &loop, &events,
                             &r.train);
    if (st >= 0) st = tr_train_run(r.train);
    if (st >= 0) r.of->done[r.rank] = r.train->microbatch;
    tr_train_destroy(r.train);
    tr_job_close(job);
    return st;
}

/* Whoever wants it, a server too, all ranks end after the same microbatch. */
static void test_all_end_where_one_wants(void **state)
{
    (void)state;
    for (int32_t who = 0; who < 3; who++) {
        stop_case_t s = {.config = train_config("stops", paths[0], 100, 3, 1e-3), .rank = who};
        const train_case_t c = {.spec = &spec,
                                .weight_seed = 2,
                                .dtype = KERN_F32,
                                .device = BASE_DEVICE_CPU,
                                .num_adapters = 1,
                                .adapters = options,
                                .rank_columns = 8,
                                .tokens_per_trainer = 512,
                                .longest = 60,
                                .num_ranks = 3,
                                .placement = AS_POOL,
                                .body = stop_body,
                                .user = &s};

        s.config.rank = options[0].rank;
        train_case_run(&c);
        for (int r = 0; r < 3; r++) {
            assert_int_equal(s.done[r], WANTED_AT + TR_CONTROL_LOOK_AHEAD + 1);
            assert_int_equal(s.told[r], s.done[r]);
            assert_int_equal(s.events[r], TR_CONTROL_END);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_ends_as_in_place),
        cmocka_unit_test(test_all_ranks_end_jobs_at_the_same_boundary),
        cmocka_unit_test(test_all_end_where_one_wants),
    };

    make_datasets();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
