#include "tests/support/planner_rig.h"

static as_planner_config_t draw_config(rng_t *rng)
{
    return (as_planner_config_t){.num_kv_heads = (int32_t)draw(rng, 1, MAX_HEADS),
                                 .cut_heads = (int32_t)draw(rng, 0, 1),
                                 .retain = (int32_t)draw(rng, 0, 1),
                                 .cuts_follow_servers = (int32_t)draw(rng, 0, 1)};
}

static void random_layouts_are_planned(void **state)
{
    static const int64_t windows[] = {0, 0, 0, 1, 100, 1000, 100000};
    rig_t r;

    (void)state;
    rig_begin(&r);
    for (uint32_t round = 0; round < 150; round++) {
        rng_t rng = {.round = round};
        const int32_t num_trainers = (int32_t)draw(&rng, 1, MAX_TRAINERS);
        as_topology_t *t;

        lay_random(&r, &rng, num_trainers, 24);
        for (int number = 0; (t = topology_of(r.ctx, num_trainers, number)) != NULL; number++) {
            const as_planner_config_t config = draw_config(&rng);

            for (int32_t s = 0; s < t->num_servers; s++)
                r.speed[s] = (int32_t)draw(&rng, 300, 2000);
            if (draw(&rng, 0, 1)) r.machine.speed = r.speed;
            r.task_ps[0] = draw(&rng, 0, 1) * draw(&rng, 0, 5000000);
            r.key_ps[1] = draw(&rng, 0, 1) * draw(&rng, 0, 300000);
            open_planner(&r, t, windows[draw(&rng, 0, 6)], config);
            assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
            check_cover(&r, config.num_kv_heads);
            assert_true(r.score.compute_ns >= r.score.bound_ns);

            const uint64_t hash = r.plan->hash;
            const int64_t calls = base_memory_calls(base_ctx_memory(r.ctx));
            assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
            assert_true(r.plan->hash == hash);
            assert_int_equal(base_memory_calls(base_ctx_memory(r.ctx)), calls);
            close_planner(&r);
        }
    }
    rig_end(&r);
}

/* Else dk and dv of one run would have other bits with other servers. */
static void cuts_do_not_depend_on_servers(void **state)
{
    static as_task_t first[4096];
    rig_t r;

    (void)state;
    rig_begin(&r);
    for (uint32_t round = 0; round < 60; round++) {
        rng_t rng = {.round = round};
        const int32_t num_trainers = (int32_t)draw(&rng, 1, MAX_TRAINERS);
        as_planner_config_t config = draw_config(&rng);
        int32_t num_first = 0;
        as_topology_t *t;

        config.cuts_follow_servers = 0;
        lay_random(&r, &rng, num_trainers, 24);
        for (int number = 0; (t = topology_of(r.ctx, num_trainers, number)) != NULL; number++) {
            for (int32_t s = 0; s < t->num_servers; s++)
                r.speed[s] = (int32_t)draw(&rng, 300, 2000);
            if (number > 0) r.machine.speed = r.speed;
            open_planner(&r, t, 0, config);
            assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
            if (number == 0) {
                num_first = r.plan->num_tasks;
                assert_true(num_first <= 4096);
                memcpy(first, r.plan->tasks, (size_t)num_first * sizeof *first);
            }
            assert_int_equal(r.plan->num_tasks, num_first);
            for (int32_t i = 0; i < num_first; i++) {
                assert_int_equal(r.plan->tasks[i].piece, first[i].piece);
                assert_int_equal(r.plan->tasks[i].q0, first[i].q0);
                assert_int_equal(r.plan->tasks[i].q1, first[i].q1);
                assert_int_equal(r.plan->tasks[i].h0, first[i].h0);
                assert_int_equal(r.plan->tasks[i].h1, first[i].h1);
            }
            close_planner(&r);
        }
    }
    rig_end(&r);
}

/* ==== memory ==== */

static int64_t document_rows_of(const data_batch_t *batch, int32_t trainer)
{
    int64_t rows = 0;

    for (int32_t p = 0; p < batch->num_pieces; p++)
        if (batch->pieces[p].trainer == trainer) rows += batch->pieces[p].rows;
    return rows;
}

/* Without limits first; then with less and less scratch on server 0 when all is resent (half of what
 * it might do without), or less memory for retained tasks on all. A plan that is given out fits. */
static void memory_is_respected(void **state)
{
    int num_fit = 0, num_resent = 0;
    rig_t r;

    (void)state;
    rig_begin(&r);
    for (uint32_t round = 0; round < 60; round++) {
        rng_t rng = {.round = 500 + round};
        const int32_t trainers = (int32_t)draw(&rng, 2, MAX_TRAINERS);
        int64_t scratch = INT64_MAX / 4, retain = INT64_MAX / 4;
        as_planner_config_t config = draw_config(&rng);

        config.cuts_follow_servers = 1;
        config.retain = round % 2;
        lay_random(&r, &rng, trainers, 24);
        /* Whoever computes, dk and dv of its own rows come into the scratch of a trainer. */
        const int64_t least =
            document_rows_of(r.batch, 0) * config.num_kv_heads * 2 * 128 * (int64_t)sizeof(float);
        for (int step = 0; step < 3; step++) {
            as_topology_t *t = topology_of(r.ctx, trainers, step == 0 ? 0 : (int)draw(&rng, 0, 1));

            for (int32_t s = 0; s < t->num_servers; s++) {
                r.scratch[s] = s == 0 ? scratch : INT64_MAX / 4;
                r.retain[s] = retain;
            }
            r.machine.scratch_bytes = r.scratch;
            r.machine.retain_bytes = r.retain;
            open_planner(&r, t, 0, config);
            const base_status_t st = as_planner_run(r.planner, r.batch, r.plan, &r.score);
            if (st == BASE_ERR_NOMEM) {
                fixture_expect_error(r.ctx, BASE_ERR_NOMEM, "MEM-01", "bytes of scratch");
            } else {
                assert_int_equal(st, BASE_OK);
                check_cover(&r, config.num_kv_heads);
                for (int32_t i = 0; i < t->num_servers; i++) {
                    const as_judge_t *judge = as_planner_judge(r.planner);

                    assert_true(as_judge_scratch_bytes(judge, t->server_rank[i]) <= r.scratch[i]);
                    assert_true(as_judge_retain_bytes(judge, t->server_rank[i]) <= retain);
                }
                num_fit += step > 0 && !config.retain;
                for (int32_t i = 0; i < r.plan->num_tasks; i++)
                    num_resent += config.retain && !r.plan->tasks[i].retained;
            }
            if (step == 0) {
                scratch = config.retain ? scratch
                                        : as_judge_scratch_bytes(as_planner_judge(r.planner), 0);
                retain = config.retain ? r.score.retain_bytes : retain;
            }
            if (config.retain)
                retain /= 2;
            else
                scratch = least + (scratch - least) / 2;
            close_planner(&r);
        }
    }
    assert_true(num_fit > 40); /* of 60; halved twice, some cannot */
    assert_true(num_resent > 40);
    rig_end(&r);
}

/* ==== balance ==== */

/* Documents of 4 k to 60 k rows on four servers: any of them can be cut. */
static void four_servers_are_balanced(void **state)
{
    static const int64_t mixed[][6] = {{40000, 12000, 5000, 4000, 1500, 1000},
                                       {60000, 900, 800, 700, 600, 500},
                                       {10000, 10000, 10000, 10000, 10000, 10000},
                                       {20000, 16000, 9000, 7000, 6000, 5000},
                                       {30000, 30000, 1000, 1000, 1000, 500}};
    rig_t r;

    (void)state;
    rig_begin(&r);
    for (size_t i = 0; i < sizeof mixed / sizeof mixed[0]; i++)
        for (int32_t follow = 0; follow < 2; follow++)
            for (int32_t cut_heads = 0; cut_heads < 2; cut_heads++) {
                lay(&r, 4, 16384, mixed[i], 6);
                open_planner(&r, topology_of(r.ctx, 4, 0), 0,
                             (as_planner_config_t){.num_kv_heads = 8,
                                                   .cut_heads = cut_heads,
                                                   .retain = 1,
                                                   .cuts_follow_servers = follow});
                assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
                /* Cuts at the trainers' edges, off the grid, cost more than the bound knows. */
                assert_true(r.score.compute_ns * 1000 <= r.score.bound_ns * 1015);
                close_planner(&r);
            }
    rig_end(&r);
}

/* Twice the speed, twice the work. */
static void speed_is_used(void **state)
{
    static const int64_t rows[] = {30000, 8000, 5000, 4000, 1500, 1000};
    rig_t r;

    (void)state;
    rig_begin(&r);
    lay(&r, 4, 16384, rows, 6);
    for (int32_t s = 0; s < 4; s++)
        r.speed[s] = s == 1 ? 2048 : 1024;
    r.machine.speed = r.speed;
    open_planner(
        &r, topology_of(r.ctx, 4, 0), 0,
        (as_planner_config_t){.num_kv_heads = 8, .cut_heads = 1, .cuts_follow_servers = 1});
    assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
    assert_true(r.score.compute_ns * 1000 <= r.score.bound_ns * 1015);
    for (int32_t s = 0; s < 4; s++)
        assert_true(as_judge_server_ns(as_planner_judge(r.planner), s) * 1000 >=
                    r.score.bound_ns * 970);
    close_planner(&r);
    rig_end(&r);
}

/* Equal documents, one for each trainer: nothing has to travel. */
static void balanced_rows_stay_at_home(void **state)
{
    static const int64_t rows[] = {1024, 1024, 1024, 1024};
    rig_t r;

    (void)state;
    rig_begin(&r);
    lay(&r, 2, 2048, rows, 4);
    open_planner(
        &r, topology_of(r.ctx, 2, 0), 0,
        (as_planner_config_t){.num_kv_heads = 2, .cut_heads = 1, .cuts_follow_servers = 1});
    assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
    assert_int_equal(r.score.num_tasks, 4);
    assert_int_equal(r.score.num_remote, 0);
    assert_int_equal(r.score.total_bytes, 0);
    close_planner(&r);
    rig_end(&r);
}

/* All arithmetic is in integers: these are the same on every compiler and machine. */
static void plans_are_the_same_everywhere(void **state)
{
    static const uint64_t want[2][2] = {
        {UINT64_C(0x6bed076a2764dad7), UINT64_C(0x36dbce1eac60ec78)},
        {UINT64_C(0xad48eff7668a385e), UINT64_C(0x160c77426702ef73)}};
    static const int64_t rows[] = {30000, 8100, 5000, 4001, 1500, 1000, 777, 129, 1};
    rig_t r;

    (void)state;
    rig_begin(&r);
    for (int32_t follow = 0; follow < 2; follow++)
        for (int32_t cut_heads = 0; cut_heads < 2; cut_heads++) {
            lay(&r, 4, 16384, rows, 9);
            open_planner(&r, topology_of(r.ctx, 4, 0), 0,
                         (as_planner_config_t){.num_kv_heads = 8,
                                               .cut_heads = cut_heads,
                                               .retain = 1,
                                               .cuts_follow_servers = follow});
            assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);
            if (r.plan->hash != want[follow][cut_heads])
                fail_msg("cuts_follow_servers %d, cut_heads %d: hash 0x%016llx", (int)follow,
                         (int)cut_heads, (unsigned long long)r.plan->hash);
            close_planner(&r);
        }
    rig_end(&r);
}

static void misuse_is_refused(void **state)
{
    static const int64_t rows[] = {900, 500};
    as_planner_config_t config = {.num_kv_heads = 2, .cuts_follow_servers = 1};
    as_planner_t *none = NULL;
    as_plan_t *small = NULL;
    rig_t r;

    (void)state;
    rig_begin(&r);
    lay(&r, 2, 1024, rows, 2);
    open_planner(&r, topology_of(r.ctx, 3, 0), 0, config);
    assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_ERR_ARG);
    fixture_expect_error(r.ctx, BASE_ERR_ARG, "INT-01", "finished layout of 2 trainers, want 3");
    close_planner(&r);

    open_planner(&r, topology_of(r.ctx, 2, 0), 0, config);
    assert_int_equal(as_plan_create(r.ctx, 1, &small), BASE_OK);
    assert_int_equal(as_planner_run(r.planner, r.batch, small, &r.score), BASE_ERR_ARG);
    fixture_expect_error(r.ctx, BASE_ERR_ARG, "INT-01", "the plan is full with 1 tasks");
    as_plan_destroy(small);
    config.machine = &r.machine;
    config.cost = r.cost;
    config.max_documents = config.max_pieces = 1;
    config.num_kv_heads = 0;
    assert_int_equal(as_planner_create(r.ctx, &config, &none), BASE_ERR_ARG);
    fixture_expect_error(r.ctx, BASE_ERR_ARG, "INT-01", "0 KV heads");
    config.num_kv_heads = 2;
    assert_int_equal(as_planner_create(r.ctx, &config, &none), BASE_OK);
    assert_int_equal(as_planner_run(none, r.batch, r.plan, &r.score), BASE_ERR_ARG);
    fixture_expect_error(r.ctx, BASE_ERR_ARG, "INT-01", "the planner is for 1 and 1");
    as_planner_destroy(none);
    close_planner(&r);
    rig_end(&r);
}

/* ==== against the best there is ==== */

/* Least makespan of `count` indivisible amounts of work on servers of equal speed. */
static int64_t best_makespan(const int64_t *work, int32_t count, int64_t *load, int32_t servers,
                             int64_t limit)
{
    int64_t most = 0;

    for (int32_t s = 0; s < servers; s++)
        if (load[s] > most) most = load[s];
    if (count == 0 || most >= limit) return most < limit ? most : limit;
    for (int32_t s = 0; s < servers; s++) {
        load[s] += work[0];
        limit = best_makespan(work + 1, count - 1, load, servers, limit);
        load[s] -= work[0];
        if (load[s] == 0) break; /* empty servers are alike */
    }
    return limit;
}

/* The optimum of all plans: each tile row of each piece on any server. */
static int64_t brute_force(const rig_t *r, int32_t heads, int64_t *dearest)
{
    int64_t work[32], load[MAX_SERVERS] = {0};
    int32_t count = 0;

    *dearest = 0;
    for (int32_t p = 0; p < r->batch->num_pieces; p++) {
        const data_piece_t *piece = &r->batch->pieces[p];
        const int64_t end = piece->doc_row + piece->rows;

        for (int64_t q0 = piece->doc_row, q1; q0 < end; q0 = q1) {
            q1 = (q0 / 128 + 1) * 128 < end ? (q0 / 128 + 1) * 128 : end;
            for (int32_t h = 0; h < heads; h++) {
                assert_true(count < 32);
                work[count] = as_cost_rows(r->cost, AS_COST_BOTH, q0, q1);
                if (work[count] > *dearest) *dearest = work[count];
                count++;
            }
        }
    }
    return best_makespan(work, count, load, r->topology->num_servers, INT64_MAX);
}

static void tiny_cases_are_near_the_optimum(void **state)
{
    int64_t num_cases = 0, num_best = 0, sum = 0, best_sum = 0;
    rig_t r;

    (void)state;
    rig_begin(&r);
    for (uint32_t round = 0; round < 200; round++) {
        rng_t rng = {.round = 1000 + round};
        const int32_t trainers = (int32_t)draw(&rng, 2, 3), count = (int32_t)draw(&rng, 1, 3);
        int64_t rows[3], dearest;

        for (int32_t d = 0; d < count; d++)
            rows[d] = draw(&rng, 1, 1000 / count);
        lay(&r, trainers, 512, rows, count);
        open_planner(&r, topology_of(r.ctx, trainers, 0), 0,
                     (as_planner_config_t){.num_kv_heads = 1, .cuts_follow_servers = 1});
        assert_int_equal(as_planner_run(r.planner, r.batch, r.plan, &r.score), BASE_OK);

        const int64_t best = brute_force(&r, 1, &dearest);
        int64_t most = 0, load[MAX_SERVERS] = {0};
        for (int32_t i = 0; i < r.plan->num_tasks; i++) {
            const as_task_t *t = &r.plan->tasks[i];

            load[t->server] += as_cost_rows(r.cost, AS_COST_BOTH, t->q0, t->q1);
            if (load[t->server] > most) most = load[t->server];
        }
        if (r.score.bound_ns > best || most < best || most > best + dearest)
            fail_msg("round %u: bound %lld, best %lld, planned %lld, dearest tile row %lld", round,
                     (long long)r.score.bound_ns, (long long)best, (long long)most,
                     (long long)dearest);
        num_cases++;
        num_best += most <= best + best / 100;
        sum += most;
        best_sum += best;
        close_planner(&r);
    }
    print_message(
        "%lld of %lld within 1 %% of the optimum, all together %.4f of the optima's sum\n",
        (long long)num_best, (long long)num_cases, (double)sum / (double)best_sum);
    /* Rows as short as these leave a few tile rows a server: rounding, not planning. 136 of the 200
     * are within 1 % of the optimum, and all together 2.5 % above. */
    assert_true(num_best * 100 >= num_cases * 65);
    assert_true(sum * 1000 <= best_sum * 1030);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_layouts_are_planned),
        cmocka_unit_test(cuts_do_not_depend_on_servers),
        cmocka_unit_test(memory_is_respected),
        cmocka_unit_test(four_servers_are_balanced),
        cmocka_unit_test(speed_is_used),
        cmocka_unit_test(balanced_rows_stay_at_home),
        cmocka_unit_test(plans_are_the_same_everywhere),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(tiny_cases_are_near_the_optimum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
