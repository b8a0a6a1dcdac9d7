/* Attention on four servers is shared as the plan foretold: counted task by task as the kernels get
 * them, on every rank, forward and backward. Counted work, not time: the machine may be busy. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include "trainer/loop/builtin_profile.h"

#include <string.h>

#define RANKS  4
#define LAYERS 2
#define VOCAB  40
#define TOKENS 2048

static const data_model_spec_t spec = {.family = DATA_MODEL_LLAMA,
                                       .num_layers = LAYERS,
                                       .hidden = 16,
                                       .intermediate = 20,
                                       .vocab = VOCAB,
                                       .num_q_heads = 4,
                                       .num_kv_heads = 2,
                                       .head_dim = 8,
                                       .max_positions = 4096,
                                       .rms_eps = 1e-5,
                                       .softmax_scale = 0.35,
                                       .rope = {.kind = DATA_ROPE_PLAIN, .theta = 10000.0}};

static const lora_adapter_options_t adapter = {
    .name = "a", .rank = 2, .scale = 1, .targets = BASE_CONFIG_TARGET_Q};

/* One long document, some of middle length, many short ones. */
static const int64_t lengths[] = {3000, 1300, 900, 700, 500, 300, 200, 150, 129, 100, 60, 37};
enum { NUM_DOCUMENTS = sizeof lengths / sizeof lengths[0] };

typedef struct balance {
    int64_t longest;
    const double *speeds;   /* NULL: all alike */
    int64_t counted[RANKS]; /* ns of the cost model that its kernels' tasks take */
    int64_t planned[RANKS]; /* of the tasks that the plan gives it */
    as_score_t score[RANKS];
    uint64_t hash[RANKS];
} balance_t;

typedef struct counter {
    const as_cost_t *cost;
    int64_t ns;
} counter_t;

static int64_t cost_of(const as_cost_t *cost, as_cost_kind_t kind, const kern_attention_task_t *t,
                       int64_t count)
{
    int64_t ns = 0;

    for (int64_t i = 0; i < count; i++) {
        const as_task_t task = {
            .h1 = t[i].kv_heads, .q0 = t[i].q_row0, .q1 = t[i].q_row0 + t[i].q_rows};

        if (t[i].q_rows > 0) ns += as_cost_task(cost, kind, &task);
    }
    return ns;
}

static void on_begin(void *user, const char *work, const void *args)
{
    counter_t *c = user;

    if (strcmp(work, "attention_fwd") == 0) {
        const kern_attention_fwd_t *a = args;
        c->ns += cost_of(c->cost, AS_COST_FORWARD, a->tasks, a->num_tasks);
    } else if (strcmp(work, "attention_bwd") == 0) {
        const kern_attention_bwd_t *a = args;
        c->ns += cost_of(c->cost, AS_COST_BACKWARD, a->tasks, a->num_tasks);
    }
}

static void on_end(void *user, const char *work, const void *args)
{
    (void)user;
    (void)work;
    (void)args;
}

static base_status_t run_counted(train_rank_t *rank, tr_lot_t *lot, const as_cost_t *cost,
                                 balance_t *b)
{
    const int me = base_ctx_rank(rank->ctx);
    counter_t counter = {.cost = cost};
    const base_observer_t observer = {.begin = on_begin, .end = on_end, .user = &counter};

    base_ctx_set_observer(rank->ctx, &observer);
    base_status_t st = tr_microbatch_run(rank->trainer, lot->batch, tr_lot_plans(lot));
    if (st >= 0) st = tr_trainer_sync(rank->trainer);
    base_ctx_set_observer(rank->ctx, NULL);
    b->counted[me] = counter.ns;
    b->score[me] = lot->scores[0];
    b->hash[me] = lot->plans[0]->hash;
    for (int32_t i = 0; i < lot->plans[0]->num_tasks; i++) {
        const as_task_t *task = &lot->plans[0]->tasks[i];
        if (task->server == me)
            b->planned[me] += LAYERS * (as_cost_task(cost, AS_COST_FORWARD, task) +
                                        as_cost_task(cost, AS_COST_BACKWARD, task));
    }
    return st;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    balance_t *b = user;
    model_documents_t docs;
    as_profile_t profile;
    as_cost_t *cost = NULL;
    tr_lot_t *lot = NULL;
    base_status_t st;

    model_documents_random(&(model_documents_options_t){.seed = 3,
                                                        .count = NUM_DOCUMENTS,
                                                        .vocab = VOCAB,
                                                        .adapters = 1,
                                                        .min_rows = b->longest,
                                                        .max_rows = b->longest},
                           &docs);
    tr_builtin_profile(KERN_F32, 2, 8, &profile);
    BASE_TRY_GOTO(as_cost_create(rank->ctx, &profile, 0, RANKS * TOKENS, &cost), st, out);
    BASE_TRY_GOTO(tr_lot_create(rank->ctx, &rank->lots, NULL, &lot), st, out);
    tr_lot_begin(lot, 0);
    for (int32_t d = 0; d < NUM_DOCUMENTS; d++) {
        data_document_t document = docs.list[d]; /* its first rows */

        document.rows = lengths[d] < b->longest ? lengths[d] : b->longest;
        train_lot_add(lot, &document);
    }
    BASE_TRY_GOTO(tr_lot_finish(lot), st, out);
    st = run_counted(rank, lot, cost, b);
out:
    tr_lot_destroy(lot);
    as_cost_destroy(cost);
    model_documents_free(&docs);
    return st;
}

static balance_t run(as_placement_t placement, int64_t longest, const double *speeds)
{
    balance_t b = {.longest = longest, .speeds = speeds};
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 2,
                            .dtype = KERN_F32,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = 1,
                            .adapters = &adapter,
                            .tokens_per_trainer = TOKENS,
                            .longest = longest,
                            .num_ranks = RANKS,
                            .placement = placement,
                            .server_speeds = speeds,
                            .body = body,
                            .user = &b};

    train_case_run(&c);
    return b;
}

static int64_t largest(const int64_t *ns)
{
    int64_t most = 0;

    for (int r = 0; r < RANKS; r++)
        most = ns[r] > most ? ns[r] : most;
    return most;
}

static double over_mean(const int64_t *ns)
{
    int64_t sum = 0;

    for (int r = 0; r < RANKS; r++)
        sum += ns[r];
    return (double)largest(ns) * RANKS / (double)sum;
}

static void test_four_servers_share_as_planned(void **state)
{
    const balance_t b = run(AS_IN_PLACE, 3000, NULL);

    (void)state;
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(b.counted[r], b.planned[r]);
        assert_true(b.hash[r] == b.hash[0]);
    }
    assert_int_equal(largest(b.counted), LAYERS * b.score[0].compute_ns);
    /* The dearest tile row of one head is a tenth of a server's share, half of it is the grain of
     * what can be levelled. What is above the bound beside that is tile rows that trainers' edges
     * divide, which are computed twice in part. */
    assert_true(over_mean(b.counted) < 1.05);
    assert_true((double)b.score[0].compute_ns < 1.2 * (double)b.score[0].bound_ns);
}

/* Each server's time is its work over its speed. Cuts follow the layout here, so that none is made for
 * the slow one: a task is up to a quarter of a server's mean. */
static void test_unlike_servers_share_by_speed(void **state)
{
    static const double speeds[RANKS] = {1, 0.5, 2, 1};
    const balance_t b = run(AS_IN_PLACE, 3000, speeds);
    int64_t work = 0;
    double last = 0;

    (void)state;
    for (int r = 0; r < RANKS; r++) {
        const double ns = (double)b.counted[r] / speeds[r];

        assert_int_equal(b.counted[r], b.planned[r]);
        assert_true(b.hash[r] == b.hash[0]);
        last = ns > last ? ns : last;
        work += b.counted[r];
    }
    assert_true(last <= (double)(LAYERS * (b.score[0].compute_ns + 1)));
    assert_true(last < 1.15 * (double)work / 4.5);
    assert_true(b.counted[2] > 3 * b.counted[1]);
}

/* What sharing is for: whole documents, each where its rows are. */
static void test_whole_documents_are_not_shared(void **state)
{
    const balance_t b = run(AS_LOCAL, TOKENS, NULL);

    (void)state;
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(b.counted[r], b.planned[r]);
    assert_true(over_mean(b.counted) > 1.3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_four_servers_share_as_planned),
        cmocka_unit_test(test_unlike_servers_share_by_speed),
        cmocka_unit_test(test_whole_documents_are_not_shared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
