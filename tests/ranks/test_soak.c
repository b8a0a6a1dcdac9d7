/* A thousand microbatches with two trainers and an attention server, as threads or as the processes
 * that mpirun started, while jobs end all the time: some make their steps, some stop early, some are
 * quarantined because a gradient is not finite, each after another number of steps. What lives and
 * what is resident must not grow, and all ranks must end the same jobs in the same places.
 *
 *   soak [MICROBATCHES] */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/mpi_world.h"
#include "tests/support/train_case.h"

#include <stdlib.h>
#include <unistd.h>

#define RANKS        3
#define JOBS         36
#define VOCAB        40
#define TOKENS       256 /* of a trainer */
#define LONGEST      300
#define RANK         2  /* of an adapter */
#define COLUMNS      16 /* so that adapters make room for each other all the time */
#define WINDOW       200
#define MICROBATCHES 1000
#define MAX_WINDOWS  16
/* What the resident set may grow by in a window: a microbatch that lost one page every time would
 * lose 800 KB. */
#define MAX_GROWTH (1 << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RESIDENT_SET 0 /* theirs grows */
#else
#define RESIDENT_SET 1
#endif

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

enum { GOES_ON, STOPS, BREAKS, NUM_KINDS };
enum { SHORT_ONES, LONG_ONES, HELD_OUT, NUM_FILES };

/* What one rank saw. */
typedef struct seen {
    int64_t microbatches;
    int64_t windows, live[MAX_WINDOWS], resident[MAX_WINDOWS]; /* at their ends */
    int64_t ends;
    int64_t ended_at[JOBS], ended_as[JOBS]; /* microbatch + 1, tr_job_state_t; 0: still at work */
} seen_t;

typedef struct soak {
    int64_t microbatches;
    base_config_adapter_t configs[JOBS];
    lora_adapter_options_t adapters[JOBS];
    char names[JOBS][16], paths[NUM_FILES][64];
    seen_t seen[RANKS];
} soak_t;

typedef struct soak_rank {
    soak_t *soak;
    seen_t *seen;
    base_ctx_t *ctx;
    tr_job_t *jobs[JOBS];
    int32_t num_jobs;
} soak_rank_t;

/* ==== what a rank does ==== */

static int64_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long long size = 0, resident = 0;

    if (file == NULL) return 0;
    if (fscanf(file, "%lld %lld", &size, &resident) != 2) resident = 0;
    (void)fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

static base_status_t on_microbatch(void *user, int64_t microbatch, int64_t document_rows)
{
    soak_rank_t *r = user;
    seen_t *s = r->seen;

    (void)microbatch;
    (void)document_rows;
    if (++s->microbatches % WINDOW == 0 && s->windows < MAX_WINDOWS) {
        s->live[s->windows] = base_memory_live_total(base_ctx_memory(r->ctx));
        s->resident[s->windows++] = resident_bytes();
    }
    return BASE_OK;
}

static base_status_t on_ended(void *user, int32_t job)
{
    soak_rank_t *r = user;

    r->seen->ended_at[job] = r->seen->microbatches + 1;
    r->seen->ended_as[job] = r->jobs[job]->state;
    r->seen->ends++;
    return BASE_OK;
}

static base_status_t open_jobs(soak_rank_t *r)
{
    base_error_list_t errors;
    base_status_t st = BASE_OK;

    base_error_list_init(&errors, r->ctx);
    while (r->num_jobs < JOBS && st >= 0) {
        const base_config_adapter_t *c = &r->soak->configs[r->num_jobs];

        st = tr_job_open(r->ctx, c, c->name, c->data, c->eval, TRAIN_CASE_SHA, VOCAB, &errors,
                         &r->jobs[r->num_jobs]);
        if (st >= 0 && r->jobs[r->num_jobs++] == NULL)
            st = BASE_FAIL(r->ctx, BASE_ERR_FORMAT, BASE_MSG_INT_01, "a job does not open");
    }
    base_error_list_deinit(&errors);
    return st;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    soak_t *soak = user;
    soak_rank_t r = {.soak = soak, .seen = &soak->seen[base_ctx_rank(rank->ctx)], .ctx = rank->ctx};
    const tr_train_options_t options = {.rank_columns = COLUMNS,
                                        .max_microbatches = soak->microbatches};
    const tr_train_events_t events = {.user = &r, .microbatch = on_microbatch, .ended = on_ended};
    tr_train_t *train = NULL;
    base_status_t st = open_jobs(&r);

    if (st >= 0)
        st = tr_train_create(rank->ctx, rank->trainer, r.jobs, JOBS, &rank->lots, &options, &events,
                             &train);
    if (st >= 0) st = tr_train_run(train);
    tr_train_destroy(train);
    for (int32_t j = 0; j < r.num_jobs; j++)
        tr_job_close(r.jobs[j]);
    return st;
}

/* ==== the case ==== */

/* Of the process: processes share a folder. */
static void make_datasets(soak_t *s)
{
    static const int64_t rows[NUM_FILES][2] = {{10, 40}, {TOKENS + 1, LONGEST}, {20, 40}};
    static const int32_t count[NUM_FILES] = {9, 3, 2};
    base_ctx_t *ctx = fixture_ctx();
    const int number = mpi_world() == NULL ? -1 : comm_mpi_rank(mpi_world());

    for (int f = 0; f < NUM_FILES; f++) {
        model_documents_t docs;

        (void)snprintf(s->paths[f], sizeof s->paths[f], "soak_%d_%d.h5", number, f);
        model_documents_random(&(model_documents_options_t){.seed = 31 + (uint64_t)f,
                                                            .count = count[f],
                                                            .vocab = VOCAB,
                                                            .adapters = 1,
                                                            .min_rows = rows[f][0],
                                                            .max_rows = rows[f][1]},
                               &docs);
        assert_int_equal(train_write_dataset(ctx, s->paths[f], docs.list, docs.count, VOCAB),
                         BASE_OK);
        model_documents_free(&docs);
    }
    fixture_ctx_end(ctx);
}

/* Job j's kind and pace; the first one outlives them all, on documents longer than a trainer's
 * rows. */
static void make_job(soak_t *s, int32_t j)
{
    /* With weight decay 1 a step multiplies the weights by 1 - rate, until their products are
     * infinite: after 5 to 80 steps. */
    static const double rates[] = {3, 4, 6, 10, 30, 100, 1000, 10000};
    base_config_adapter_t *c = &s->configs[j];
    const int kind = j == 0 ? GOES_ON : j % NUM_KINDS;

    (void)snprintf(s->names[j], sizeof s->names[j], "job-%d", j);
    *c = train_config(s->names[j], s->paths[SHORT_ONES], 4 + j, 1 + j % 3, 1e-3);
    c->rank = RANK;
    c->order = BASE_CONFIG_ORDER_SHUFFLE;
    c->seed = j;
    if (j == 0) {
        c->data = s->paths[LONG_ONES];
        c->steps = 1000000;
    }
    if (kind == STOPS) {
        c->eval = s->paths[HELD_OUT];
        c->eval_every_steps = 1 + j % 5;
        c->early_stopping_patience = 2 + j % 4;
        c->learning_rate = 3e-2;
        c->steps = 100;
    }
    if (kind == BREAKS) {
        c->learning_rate = rates[j / NUM_KINDS % 8];
        c->weight_decay = 1;
        c->steps = 100;
    }
    s->adapters[j] = (lora_adapter_options_t){
        .name = c->name, .rank = RANK, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL};
}

static void run(soak_t *s)
{
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 2,
                            .dtype = KERN_F32,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = JOBS,
                            .adapters = s->adapters,
                            .rank_columns = COLUMNS,
                            .tokens_per_trainer = TOKENS,
                            .longest = LONGEST,
                            .num_ranks = RANKS,
                            .mpi = mpi_world(),
                            .placement = AS_POOL,
                            .body = body,
                            .user = s};
    const mpi_piece_t pieces[] = {{s->seen, sizeof s->seen}};

    train_case_run(&c);
    mpi_world_merge(pieces, 1);
}

/* ==== the test ==== */

static void check_flat(const seen_t *s, int rank)
{
    for (int64_t w = 1; w < s->windows; w++) {
        const int64_t growth = s->resident[w] - s->resident[w - 1];

        if (s->live[w] > s->live[w - 1])
            fail_msg("rank %d: %lld objects live after window %lld, %lld before it", rank,
                     (long long)s->live[w], (long long)w, (long long)s->live[w - 1]);
        if (RESIDENT_SET && growth > MAX_GROWTH)
            fail_msg("rank %d: the resident set grew by %lld bytes in window %lld", rank,
                     (long long)growth, (long long)w);
    }
}

/* Ends in different places of the run. */
static int64_t places(const seen_t *s)
{
    int64_t found = 0;

    for (int32_t j = 0; j < JOBS; j++) {
        int is_new = s->ended_at[j] > 0;

        for (int32_t k = 0; k < j; k++)
            is_new = is_new && s->ended_at[k] != s->ended_at[j];
        found += is_new;
    }
    return found;
}

static void a_thousand_microbatches_leave_nothing(void **state)
{
    soak_t *s = *state;
    int64_t as[TR_JOB_QUARANTINED + 1] = {0};

    make_datasets(s);
    for (int32_t j = 0; j < JOBS; j++)
        make_job(s, j);
    run(s);
    for (int32_t j = 0; j < JOBS; j++)
        as[s->seen[0].ended_as[j]] += s->seen[0].ended_at[j] > 0;
    print_message("%lld microbatches: %lld jobs done, %lld stopped early, %lld quarantined, "
                  "in %lld places; resident %lld KiB, then %lld KiB\n",
                  (long long)s->seen[0].microbatches, (long long)as[TR_JOB_DONE],
                  (long long)as[TR_JOB_STOPPED], (long long)as[TR_JOB_QUARANTINED],
                  (long long)places(&s->seen[0]), (long long)s->seen[0].resident[0] / 1024,
                  (long long)s->seen[0].resident[s->seen[0].windows - 1] / 1024);
    assert_true(as[TR_JOB_DONE] >= 3 && as[TR_JOB_STOPPED] >= 3 && as[TR_JOB_QUARANTINED] >= 3);
    assert_true(places(&s->seen[0]) >= 10);
    for (int r = 0; r < RANKS; r++) {
        /* Those of evaluations are not told. */
        assert_int_equal(s->seen[r].microbatches, s->seen[0].microbatches);
        assert_true(2 * s->seen[r].microbatches > s->microbatches);
        assert_true(s->seen[r].windows >= 2);
        assert_memory_equal(s->seen[r].ended_at, s->seen[0].ended_at, sizeof s->seen[0].ended_at);
        assert_memory_equal(s->seen[r].ended_as, s->seen[0].ended_as, sizeof s->seen[0].ended_as);
        check_flat(&s->seen[r], r);
    }
}

int main(int argc, char **argv)
{
    soak_t *s = calloc(1, sizeof *s);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(a_thousand_microbatches_leave_nothing, s)};

    if (s == NULL || argc > 2) return 2;
    s->microbatches = argc > 1 ? strtoll(argv[1], NULL, 10) : MICROBATCHES;
    mpi_world_open();
    const int failed = cmocka_run_group_tests_name("soak", tests, NULL, NULL);
    mpi_world_close();
    free(s);
    return failed;
}
