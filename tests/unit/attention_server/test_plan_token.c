#include "tests/support/ctx_fixture.h"

#include "attention_server/plan.h"
#include "base/philox.h"
#include "lora/pack.h"

#define MAX_DOCUMENTS 48
#define MAX_TRAINERS  5
#define MAX_PIECES    (MAX_DOCUMENTS + 2 * MAX_TRAINERS)
#define MAX_TASKS     (MAX_PIECES + 16 * MAX_TRAINERS)
#define MAX_SERVERS   8

typedef struct rng {
    uint32_t round, next;
} rng_t;

static int64_t draw(rng_t *rng, int64_t low, int64_t high)
{
    const base_philox_t r = base_philox(base_philox_key(13), 0, 0, rng->round, rng->next++);

    return low + (int64_t)base_philox_below(r.word[0], r.word[1], (uint64_t)(high - low + 1));
}

typedef struct planner {
    base_ctx_t *ctx;
    data_batch_t *batch;
    as_plan_t *plan;
} planner_t;

static planner_t new_planner(void)
{
    planner_t p = {.ctx = fixture_ctx()};

    assert_int_equal(data_batch_create(p.ctx, MAX_DOCUMENTS, MAX_PIECES, MAX_TRAINERS, &p.batch),
                     BASE_OK);
    assert_int_equal(as_plan_create(p.ctx, MAX_TASKS, &p.plan), BASE_OK);
    return p;
}

static void end_planner(planner_t *p)
{
    as_plan_destroy(p->plan);
    data_batch_destroy(p->batch);
    fixture_ctx_end(p->ctx);
}

/* Packs `count` documents of the given rows. */
static void lay(planner_t *p, int32_t num_trainers, int64_t tokens_per_trainer, int whole,
                const int64_t *rows, int32_t count)
{
    data_document_t documents[MAX_DOCUMENTS];
    const lora_pack_t pack = {.microbatch = 3,
                              .num_trainers = num_trainers,
                              .tokens_per_trainer = tokens_per_trainer,
                              .whole_documents = whole,
                              .num_documents = count,
                              .documents = documents};

    for (int32_t d = 0; d < count; d++)
        documents[d] = (data_document_t){.rows = rows[d], .adapter = d % 3, .index = d};
    assert_int_equal(lora_pack_fast(p->ctx, &pack, p->batch), BASE_OK);
}

/* Mixed lengths that fit together; sometimes one document longer than a half. */
static void lay_random(planner_t *p, rng_t *rng, int32_t num_trainers, int whole)
{
    static const int64_t edges[] = {1, 127, 128, 129};
    const int64_t tokens_per_trainer = 256 * draw(rng, 16, 24);
    const int32_t wanted = (int32_t)draw(rng, 1, MAX_DOCUMENTS);
    int64_t room = num_trainers * (tokens_per_trainer / 2 - 128), rows[MAX_DOCUMENTS];
    int32_t count = 0;

    for (; count < wanted; count++) {
        rows[count] = draw(rng, 0, 3) == 0 ? edges[draw(rng, 0, 3)] : draw(rng, 1, 2000);
        if (count == 0 && !whole && draw(rng, 0, 1)) rows[0] = draw(rng, room / 2 + 1, room);
        if (rows[count] > room) break;
        room -= rows[count];
    }
    if (count == 0) rows[count++] = room;
    lay(p, num_trainers, tokens_per_trainer, whole, rows, count);
}

/* The topologies of `num_trainers` trainers, by number; NULL when there are no more. */
static as_topology_t *topology_of(base_ctx_t *ctx, int32_t num_trainers, int number)
{
    static const int32_t hosts[2 * MAX_TRAINERS] = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4};
    as_topology_t *t = NULL;

    if (number == 0)
        assert_int_equal(as_topology_create(ctx, AS_IN_PLACE, num_trainers, NULL, 0, &t), BASE_OK);
    else if (number <= 3) /* one host with 1 to 3 servers */
        assert_int_equal(as_topology_create(ctx, AS_POOL, num_trainers + number, NULL, number, &t),
                         BASE_OK);
    else if (number == 4) /* a host and a server for each trainer */
        assert_int_equal(as_topology_create(ctx, AS_POOL, 2 * num_trainers, hosts, 1, &t), BASE_OK);
    else if (number == 5)
        assert_int_equal(as_topology_create(ctx, AS_LOCAL, num_trainers, NULL, 0, &t), BASE_OK);
    if (t != NULL) assert_int_equal(t->num_trainers, num_trainers);
    return t;
}

/* Every (row, KV head) of every document once, told by counting it, and cuts on the grid. */
static void check_tasks(const planner_t *p, const as_plan_options_t *options)
{
    int64_t covered[MAX_DOCUMENTS] = {0};

    for (int32_t i = 0; i < p->plan->num_tasks; i++) {
        const as_task_t *t = &p->plan->tasks[i];
        const data_piece_t *piece = &p->batch->pieces[t->piece];

        assert_int_equal(t->q0, covered[t->document]);
        assert_ptr_equal(piece, data_batch_piece_at(p->batch, t->document, t->q0));
        assert_ptr_equal(piece, data_batch_piece_at(p->batch, t->document, t->q1 - 1));
        assert_true(t->q1 % DATA_ROW_ALIGN == 0 || t->q1 == piece->doc_row + piece->rows);
        assert_int_equal(t->h0, 0);
        assert_int_equal(t->h1, options->num_kv_heads);
        assert_int_equal(t->retained, options->retain);
        covered[t->document] = t->q1;
    }
    for (int32_t d = 0; d < p->batch->num_documents; d++)
        assert_int_equal(covered[d], p->batch->documents[d].rows);
    assert_true(p->plan->num_tasks <= p->batch->num_pieces + 16 * p->batch->num_trainers);
}

/* Pairs of each server in one half; gives the sum. */
static int64_t server_loads(const planner_t *p, int32_t half, int64_t load[MAX_SERVERS + 1])
{
    int64_t sum = 0;

    memset(load, 0, (MAX_SERVERS + 1) * sizeof *load);
    for (int32_t i = 0; i < p->plan->num_tasks; i++) {
        const as_task_t *t = &p->plan->tasks[i];

        if (p->batch->pieces[t->piece].half != half) continue;
        load[t->server] += as_task_pairs(t, p->plan->window);
        sum += as_task_pairs(t, p->plan->window);
    }
    return sum;
}

/* No server has more than the mean and one task, and no task that could be cut is over the limit. */
static void check_greedy(const planner_t *p, const as_topology_t *topology)
{
    for (int32_t half = 0; half < DATA_NUM_HALVES; half++) {
        int64_t load[MAX_SERVERS + 1], largest = 0;
        const int64_t sum = server_loads(p, half, load);

        for (int32_t i = 0; i < p->plan->num_tasks; i++) {
            const as_task_t *t = &p->plan->tasks[i];
            const int64_t pairs = as_task_pairs(t, p->plan->window);

            if (p->batch->pieces[t->piece].half != half) continue;
            if (pairs > largest) largest = pairs;
            if (t->q1 - t->q0 > DATA_ROW_ALIGN)
                assert_true((pairs - 1) * 4 * p->batch->num_trainers < sum);
        }
        if (topology->placement == AS_LOCAL) continue;
        for (int32_t s = 0; s < topology->num_servers; s++)
            assert_true((load[s] - largest - 1) * topology->num_servers <= sum);
    }
}

static void random_layouts_are_planned(void **state)
{
    static const int64_t windows[] = {0, 1, 100, 128, 1000, 100000};
    planner_t p = new_planner();

    (void)state;
    for (uint32_t round = 0; round < 200; round++) {
        rng_t rng = {.round = round};
        const int32_t num_trainers = (int32_t)draw(&rng, 1, MAX_TRAINERS);
        const as_plan_options_t options = {.window = windows[draw(&rng, 0, 5)],
                                           .num_kv_heads = (int32_t)draw(&rng, 1, 8),
                                           .retain = (int32_t)draw(&rng, 0, 1)};
        as_topology_t *t;

        lay_random(&p, &rng, num_trainers, round % 4 == 0);
        for (int number = 0; (t = topology_of(p.ctx, num_trainers, number)) != NULL; number++) {
            assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, p.plan), BASE_OK);
            check_tasks(&p, &options);
            check_greedy(&p, t);
            const uint64_t hash = p.plan->hash;
            const int64_t calls = base_memory_calls(base_ctx_memory(p.ctx));

            assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, p.plan), BASE_OK);
            assert_true(p.plan->hash == hash);
            assert_int_equal(base_memory_calls(base_ctx_memory(p.ctx)), calls);
            as_topology_destroy(t);
        }
    }
    end_planner(&p);
}

/* Else dk and dv of one run would have other bits with other servers. */
static void cuts_do_not_depend_on_servers(void **state)
{
    const as_plan_options_t options = {.window = 0, .num_kv_heads = 2, .retain = 0};
    planner_t p = new_planner();
    as_plan_t *first = NULL;

    (void)state;
    assert_int_equal(as_plan_create(p.ctx, MAX_TASKS, &first), BASE_OK);
    for (uint32_t round = 0; round < 40; round++) {
        rng_t rng = {.round = round};
        const int32_t num_trainers = (int32_t)draw(&rng, 1, MAX_TRAINERS);
        as_topology_t *t;

        lay_random(&p, &rng, num_trainers, 0);
        for (int number = 0; (t = topology_of(p.ctx, num_trainers, number)) != NULL; number++) {
            as_plan_t *plan = number == 0 ? first : p.plan;

            assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, plan), BASE_OK);
            assert_int_equal(plan->num_tasks, first->num_tasks);
            for (int32_t i = 0; i < plan->num_tasks; i++) {
                assert_int_equal(plan->tasks[i].document, first->tasks[i].document);
                assert_int_equal(plan->tasks[i].q0, first->tasks[i].q0);
                assert_int_equal(plan->tasks[i].q1, first->tasks[i].q1);
            }
            as_topology_destroy(t);
        }
    }
    as_plan_destroy(first);
    end_planner(&p);
}

static void expect_balance(planner_t *p, const as_topology_t *t, int64_t permille)
{
    for (int32_t half = 0; half < DATA_NUM_HALVES; half++) {
        int64_t load[MAX_SERVERS + 1], most = 0;
        const int64_t sum = server_loads(p, half, load);

        for (int32_t s = 0; s < t->num_servers; s++)
            if (load[s] > most) most = load[s];
        if (most * t->num_servers * 1000 >= sum * permille)
            fail_msg("half %d: a server has %lld of %lld pairs", half, (long long)most,
                     (long long)sum);
    }
}

/* Four trainers that are servers, documents of 4 k to 40 k rows: any of them can be cut. */
static void four_servers_are_balanced(void **state)
{
    static const int64_t mixed[][6] = {{40000, 12000, 5000, 4000, 1500, 1000},
                                       {60000, 900, 800, 700, 600, 500},
                                       {10000, 10000, 10000, 10000, 10000, 10000},
                                       {20000, 16000, 9000, 7000, 6000, 5000},
                                       {30000, 30000, 1000, 1000, 1000, 500}};
    const as_plan_options_t options = {.window = 0, .num_kv_heads = 8, .retain = 1};
    planner_t p = new_planner();
    as_topology_t *t = topology_of(p.ctx, 4, 0);

    (void)state;
    for (size_t i = 0; i < sizeof mixed / sizeof mixed[0]; i++) {
        lay(&p, 4, 16384, 0, mixed[i], 6);
        assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, p.plan), BASE_OK);
        expect_balance(&p, t, 1100);
    }
    as_topology_destroy(t);
    end_planner(&p);
}

/* Equal documents, one for each trainer: nothing has to travel. */
static void balanced_rows_stay_at_home(void **state)
{
    static const int64_t rows[] = {1024, 1024, 1024, 1024};
    const as_plan_options_t options = {.window = 0, .num_kv_heads = 2, .retain = 0};
    planner_t p = new_planner();
    as_topology_t *t = topology_of(p.ctx, 2, 0);

    (void)state;
    lay(&p, 2, 2048, 0, rows, 4);
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, p.plan), BASE_OK);
    for (int32_t i = 0; i < p.plan->num_tasks; i++) {
        const as_task_t *task = &p.plan->tasks[i];

        assert_int_equal(t->server_rank[task->server],
                         t->trainer_rank[p.batch->pieces[task->piece].trainer]);
    }
    as_topology_destroy(t);
    end_planner(&p);
}

static void hash_follows_the_layout(void **state)
{
    int64_t rows[] = {900, 500, 100};
    const as_plan_options_t options = {.window = 0, .num_kv_heads = 2, .retain = 0};
    planner_t p = new_planner();
    as_topology_t *t = topology_of(p.ctx, 2, 0);

    (void)state;
    lay(&p, 2, 1024, 0, rows, 3);
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, p.plan), BASE_OK);
    const uint64_t hash = p.plan->hash;

    rows[2]++;
    lay(&p, 2, 1024, 0, rows, 3);
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, p.plan), BASE_OK);
    assert_true(p.plan->hash != hash);
    rows[2]--;
    lay(&p, 2, 1024, 0, rows, 3);
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, t, p.plan), BASE_OK);
    assert_true(p.plan->hash == hash);
    as_topology_destroy(t);
    end_planner(&p);
}

static void misuse_is_refused(void **state)
{
    static const int64_t rows[] = {900, 500};
    as_plan_options_t options = {.window = 0, .num_kv_heads = 2, .retain = 0};
    planner_t p = new_planner();
    as_topology_t *two = topology_of(p.ctx, 2, 0), *three = topology_of(p.ctx, 3, 0);
    as_plan_t *small = NULL;

    (void)state;
    assert_int_equal(as_plan_create(p.ctx, 3, &small), BASE_OK);
    lay(&p, 2, 1024, 0, rows, 2);
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, three, p.plan), BASE_ERR_ARG);
    fixture_expect_error(p.ctx, BASE_ERR_ARG, "INT-01", "finished layout of 2 trainers, want 3");
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, two, small), BASE_ERR_ARG);
    fixture_expect_error(p.ctx, BASE_ERR_ARG, "INT-01", "the plan is full with 3 tasks");
    options.num_kv_heads = 0;
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, two, p.plan), BASE_ERR_ARG);
    fixture_expect_error(p.ctx, BASE_ERR_ARG, "INT-01", "0 KV heads");
    assert_int_equal(data_batch_begin(p.batch, 3, 2), BASE_OK);
    assert_int_equal(as_plan_token(p.ctx, &options, p.batch, two, p.plan), BASE_ERR_ARG);
    fixture_expect_error(p.ctx, BASE_ERR_ARG, "INT-01", "unfinished layout of 2 trainers");
    as_plan_destroy(small);
    as_topology_destroy(three);
    as_topology_destroy(two);
    end_planner(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_layouts_are_planned),
        cmocka_unit_test(cuts_do_not_depend_on_servers),
        cmocka_unit_test(four_servers_are_balanced),
        cmocka_unit_test(balanced_rows_stay_at_home),
        cmocka_unit_test(hash_follows_the_layout),
        cmocka_unit_test(misuse_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
