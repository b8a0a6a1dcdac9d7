/* The planner where layouts and machines are as unlike each other as can be: giants and thousands of
 * documents of one row, servers up to 64 times slower than others, links without bandwidth, memory
 * that is just enough. */
#include "tests/support/planner_rig.h"

#define TRAINERS 4
#define ROWS     16384

typedef struct layout {
    const char *name;
    int32_t count;
    int64_t first, others; /* rows */
} layout_t;

static const layout_t layouts[] = {
    {"equal documents", 15, 4096, 4096},
    {"equal documents, off the grid", 15, 4097, 4097},
    {"one giant", 1, 65400, 0},
    {"documents of one row", 4000, 1, 1},
    {"a giant among documents of one row", 4000, 40000, 1},
    {"a longer one among short ones", 500, 2000, 100},
    {"a giant among middling ones", 24, 40000, 1001},
};
enum { NUM_LAYOUTS = sizeof layouts / sizeof layouts[0] };

static const int32_t unlike[MAX_SERVERS] = {1024, 64, 2048, 512, 300, 4096, 1024, 1024, 1024, 1024};

static void lay_layout(rig_t *r, const layout_t *l)
{
    static int64_t rows[MOST_DOCUMENTS];

    for (int32_t d = 0; d < l->count; d++)
        rows[d] = d == 0 ? l->first : l->others;
    lay(r, TRAINERS, ROWS, rows, l->count);
}

/* Of the plan's own tasks, by number over all speeds: no division of the same tasks is faster. */
static double mean_ns(const rig_t *r)
{
    int64_t work = 0, speeds = 0;

    for (int32_t i = 0; i < r->plan->num_tasks; i++)
        work += as_cost_task(r->cost, AS_COST_BOTH, &r->plan->tasks[i]);
    for (int32_t s = 0; s < r->topology->num_servers; s++)
        speeds += as_machine_speed(&r->machine, s);
    return (double)work * AS_SPEED_ONE / (double)speeds;
}

static as_planner_config_t config_of(int32_t heads)
{
    return (as_planner_config_t){
        .num_kv_heads = heads, .cut_heads = 1, .retain = 1, .cuts_follow_servers = 1};
}

/* Within 2 % of its tasks' mean, and 6 % of what the documents take uncut: cuts cost constants. */
static void check_balance(rig_t *r, const char *name, int number, int32_t heads)
{
    const as_planner_config_t c = config_of(heads);

    open_planner(r, topology_of(r->ctx, TRAINERS, number), 0, c);
    assert_int_equal(as_planner_run(r->planner, r->batch, r->plan, &r->score), BASE_OK);
    check_cover(r, c.num_kv_heads);
    assert_true(r->score.compute_ns >= r->score.bound_ns);
    if ((double)r->score.compute_ns > 1.02 * mean_ns(r) ||
        (double)r->score.compute_ns > 1.06 * (double)r->score.bound_ns)
        fail_msg("%s, topology %d, %d KV heads, %s: makespan %lld, tasks' mean %.0f, bound %lld",
                 name, number, c.num_kv_heads, r->machine.speed == NULL ? "like" : "unlike",
                 (long long)r->score.compute_ns, mean_ns(r), (long long)r->score.bound_ns);
    close_planner(r);
}

/* A task's constant is seven times what a tile row takes: with short documents it is most of the work. */
static void all_are_balanced(void **state)
{
    rig_t r;

    (void)state;
    rig_begin_for(&r, MOST_DOCUMENTS);
    r.task_ps[0] = 2000000;
    r.task_ps[1] = 5000000;
    for (int i = 0; i < NUM_LAYOUTS; i++) {
        lay_layout(&r, &layouts[i]);
        for (int number = 0; number <= 4; number++)
            for (int32_t heads = 1; heads <= MAX_HEADS; heads += MAX_HEADS - 1)
                for (int speeds = 0; speeds < 2; speeds++) {
                    r.machine.speed = speeds ? unlike : NULL;
                    check_balance(&r, layouts[i].name, number, heads);
                }
    }
    rig_end(&r);
}

/* Balance comes before links, whatever those take; what a layer takes then is added up all the same. */
static void links_may_be_endless_or_none(void **state)
{
    static const int64_t slow = INT64_C(1) << 36; /* 64 ms for 1024 bytes */
    rig_t r;

    (void)state;
    rig_begin_for(&r, MOST_DOCUMENTS);
    for (int i = 0; i < NUM_LAYOUTS; i++)
        for (int64_t ps = 0; ps <= slow; ps += slow) {
            lay_layout(&r, &layouts[i]);
            r.link_ps_per_kib[AS_SAME_HOST] = r.link_ps_per_kib[AS_OTHER_HOST] = ps;
            open_planner(&r, topology_of(r.ctx, TRAINERS, 1), 0, config_of(8));
            assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
            check_cover(&r, 8);
            assert_true((double)r.score.compute_ns <= 1.02 * mean_ns(&r));
            for (int pass = 0; pass < 2; pass++) {
                assert_true(r.score.pass_ns[pass] >= r.score.pass_bound_ns[pass]);
                assert_true(ps == 0 || r.score.total_bytes == 0 ||
                            r.score.pass_ns[pass] >= ps / 1000);
            }
            close_planner(&r);
        }
    rig_end(&r);
}

static base_status_t plan_with(rig_t *r, int64_t scratch)
{
    as_planner_config_t config = config_of(8);

    config.retain = 0;
    for (int32_t s = 0; s < MAX_SERVERS; s++)
        r->scratch[s] = scratch;
    r->machine.scratch_bytes = r->scratch;
    open_planner(r, topology_of(r->ctx, TRAINERS, 0), 0, config);
    const base_status_t st = as_planner_run(r->planner, r->batch, r->plan, &r->score);
    if (st == BASE_OK) {
        assert_true(r->score.scratch_bytes <= scratch);
        check_cover(r, 8);
    } else {
        assert_int_equal(st, BASE_ERR_NOMEM);
        fixture_expect_error(r->ctx, BASE_ERR_NOMEM, "MEM-01", "bytes of scratch");
    }
    close_planner(r);
    return st;
}

/* What a plan without limits takes is enough to the byte. With less, down to nothing, a plan fits or
 * the error is said: looked at towards the edge between both. */
static void memory_may_be_just_enough(void **state)
{
    rig_t r;

    (void)state;
    rig_begin_for(&r, MOST_DOCUMENTS);
    for (int i = 0; i < NUM_LAYOUTS; i++) {
        int64_t low = 0, high;

        lay_layout(&r, &layouts[i]);
        assert_int_equal(plan_with(&r, INT64_MAX / 4), BASE_OK);
        high = r.score.scratch_bytes;
        assert_int_equal(plan_with(&r, high), BASE_OK);
        assert_int_equal(r.score.at_home, 0);
        if (layouts[i].count > 1000)
            continue; /* as many pieces take long to give away for memory */
        if (r.batch->num_pieces ==
            r.batch->num_documents) { /* whole at home, in the trainers' tensors */
            assert_int_equal(plan_with(&r, low), BASE_OK);
            continue;
        }
        assert_int_equal(plan_with(&r, low), BASE_ERR_NOMEM);
        for (int step = 0; step < 8; step++) {
            const int64_t middle = low + (high - low) / 2;

            if (plan_with(&r, middle) == BASE_OK)
                high = middle;
            else
                low = middle;
        }
    }
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_balanced),
        cmocka_unit_test(links_may_be_endless_or_none),
        cmocka_unit_test(memory_may_be_just_enough),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
