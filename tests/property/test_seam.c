/* Placement invariance at the attention seam, over random documents, cuts, servers, head groups and
 * retention.
 *
 * For each seed: one rank without cuts (the oracle); T trainers in place with random cuts; the same
 * cuts with servers in a pool; the planner's own cuts; whole documents (local). o, lse and dq must
 * have the same bits everywhere; dk and dv the same bits for the same cuts and else differ by the
 * order of a sum. Then one of the plans with sums of dk and dv per server: the same again, with the
 * same bits for the same plan when a rank is late, and fewer bytes.
 *
 *   seam [--device cpu|strict] [--first N] [--seeds N] [--threads N] */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/mpi_world.h"
#include "tests/support/property_options.h"
#include "tests/support/random_plan.h"
#include "tests/support/seam_case.h"

#include <string.h>

static int64_t random_rows(uint64_t *state)
{
    static const int64_t edges[] = {1, 2, 127, 128, 129, 255, 256, 257, 384};
    switch (random_below(state, 8)) {
    case 0:
        return 1 + random_below(state, 2000);
    case 1:
    case 2:
        return edges[random_below(state, 9)];
    default:
        return 1 + random_below(state, 300);
    }
}

/* Documents and model of a seed; the caller adds where it runs. */
static seam_case_t random_case(uint64_t seed, const property_options_t *o)
{
    static const int32_t heads[][2] = {{1, 1}, {2, 1}, {4, 2}, {3, 3}, {8, 4}, {6, 2}};
    static const int64_t windows[] = {0, 1, 100, 128, 200, 700};
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    seam_case_t c = {.dtype = random_below(&state, 4) == 0 ? KERN_F64 : KERN_F32,
                     .head_dim = 4 + 4 * (int32_t)random_below(&state, 3),
                     .num_layers = 2,
                     .device = o->device,
                     .device_seed = seed,
                     .num_microbatches = 1};
    const uint32_t h = random_below(&state, 6);
    c.num_q_heads = heads[h][0];
    c.num_kv_heads = heads[h][1];
    c.window = windows[random_below(&state, 6)];
    c.num_documents = 1 + (int32_t)random_below(&state, 6);
    for (int32_t d = 0; d < c.num_documents; d++) {
        c.rows[d] = random_rows(&state);
        c.adapter[d] = (int32_t)random_below(&state, 3);
    }
    if (random_below(&state, 3) == 0) /* one that spans both halves of all trainers */
        c.rows[0] = 600 + random_below(&state, 1400);
    c.slow_rank = random_below(&state, 4) == 0 ? (int32_t)random_below(&state, 3) : -1;
    c.slow_ns = 4000000;
    c.cut_seed = seed * 3 + 1;
    c.assign_seed = seed * 7 + 2;
    return c;
}

static void run_or_fail(const seam_case_t *c, uint64_t seed, const char *name,
                        seam_result_t *result)
{
    const base_status_t st = seam_case_run(c, result);
    if (st < 0)
        fail_msg("seed %llu, %s: %s (%s:%d): %s", (unsigned long long)seed, name,
                 base_status_name(st), result->error.file ? result->error.file : "?",
                 result->error.line, result->error.text);
}

static void same_bits(const void *a, const void *b, int64_t elements, int64_t bytes, uint64_t seed,
                      const char *name, const char *what)
{
    if (memcmp(a, b, (size_t)(elements * bytes)) == 0) return;
    int64_t i = 0;
    while (memcmp((const char *)a + i * bytes, (const char *)b + i * bytes, (size_t)bytes) == 0)
        i++;
    fail_msg(
        "seed %llu, %s: %s differs from the oracle at element %lld of %lld, relative distance %g",
        (unsigned long long)seed, name, what, (long long)i, (long long)elements,
        seam_distance(a, bytes, b, bytes, elements));
}

static void compare(const seam_result_t *r, const seam_result_t *oracle, uint64_t seed,
                    const char *name)
{
    same_bits(r->o, oracle->o, r->o_elements, r->element_bytes, seed, name, "o");
    same_bits(r->lse, oracle->lse, r->lse_elements, r->lse_bytes, seed, name, "lse");
    same_bits(r->dq, oracle->dq, r->o_elements, r->element_bytes, seed, name, "dq");
    if (r->served != r->planned || r->served_local != r->planned_local ||
        (r->planned > r->planned_local && r->sent_bytes == 0))
        fail_msg(
            "seed %llu, %s: %lld tasks served (%lld local), planned %lld (%lld); %lld bytes sent",
            (unsigned long long)seed, name, (long long)r->served, (long long)r->served_local,
            (long long)r->planned, (long long)r->planned_local, (long long)r->sent_bytes);
    /* The order of sums; in bf16 one rounding of the results, and with sums per server one of each
     * server's contribution (test_bf16). */
    const int64_t bytes = r->element_bytes;
    const double limit = bytes == 8 ? 1e-13 : bytes == 4 ? 1e-5 : 4e-3;
    const double dk = seam_distance(r->dk, bytes, oracle->dk, bytes, r->kv_elements);
    const double dv = seam_distance(r->dv, bytes, oracle->dv, bytes, r->kv_elements);
    if (!(dk <= limit && dv <= limit))
        fail_msg("seed %llu, %s: dk, dv differ from the oracle by %g, %g", (unsigned long long)seed,
                 name, dk, dv);
}

static void add_facts(seam_facts_t *all, const seam_facts_t *f)
{
    all->spanning += f->spanning;
    all->on_all_trainers += f->on_all_trainers;
    all->idle_trainers += f->idle_trainers;
    all->pad_rows += f->pad_rows;
    all->tasks += f->tasks;
    all->remote += f->remote;
    all->head_cut += f->head_cut;
    all->off_grid += f->off_grid;
    all->retained += f->retained;
    all->resent += f->resent;
    all->windowed += f->windowed;
}

/* The case with sums of dk and dv per server; `each` is its result with every task's. */
static void check_sums_per_server(const seam_case_t *each_case, const seam_result_t *each,
                                  const seam_result_t *oracle, uint64_t seed, const char *name)
{
    seam_case_t c = *each_case;
    seam_result_t sums, late;

    c.sums_per_server = 1;
    run_or_fail(&c, seed, name, &sums);
    compare(&sums, oracle, seed, name);
    if (sums.sent_bytes > each->sent_bytes)
        fail_msg("seed %llu, %s: %lld bytes sent, each task's sums are %lld",
                 (unsigned long long)seed, name, (long long)sums.sent_bytes,
                 (long long)each->sent_bytes);
    if (seed % 8 < 2) {
        c.slow_rank = (int32_t)(seed / 8 % (uint64_t)c.num_ranks);
        c.slow_ns = 1000000;
        run_or_fail(&c, seed, name, &late);
        same_bits(late.dk, sums.dk, sums.kv_elements, sums.element_bytes, seed, name,
                  "dk when a rank is late");
        same_bits(late.dv, sums.dv, sums.kv_elements, sums.element_bytes, seed, name,
                  "dv when a rank is late");
        seam_result_free(&late);
    }
    seam_result_free(&sums);
}

/* *sizes: a bit for each number of ranks that computed a case. */
static void check_seed(uint64_t seed, const property_options_t *o, seam_facts_t *facts,
                       uint64_t *sizes)
{
    static const int32_t hosts[] = {0, 0, 1, 1, 1, 1};
    const seam_case_t base = random_case(seed, o);
    uint64_t state = seed + 99;
    const int32_t drawn = 1 + (int32_t)random_below(&state, 4);
    const int32_t trainers = o->threads > 0 ? o->threads : drawn;
    seam_result_t oracle, in_place, pool, planned, local;

    seam_case_t c = base;
    c.placement = AS_LOCAL;
    c.num_ranks = 1;
    c.plan = SEAM_PLAN_UNCUT;
    run_or_fail(&c, seed, "oracle", &oracle);

    c = base;
    c.placement = AS_IN_PLACE;
    c.num_ranks = trainers;
    c.plan = SEAM_PLAN_RANDOM;
    c.num_microbatches = seed % 5 == 0 ? 4 : 1;
    *sizes |= UINT64_C(1) << c.num_ranks;
    run_or_fail(&c, seed, "in place", &in_place);
    compare(&in_place, &oracle, seed, "in place");
    if (seed % 2 == 0)
        check_sums_per_server(&c, &in_place, &oracle, seed, "in place, sums per server");

    c = base;
    c.placement = AS_POOL;
    c.servers_per_host = 1 + (int32_t)random_below(&state, 2);
    c.num_ranks = trainers + c.servers_per_host;
    if (c.servers_per_host == 2 && trainers >= 2 && seed % 2 == 0) {
        c.servers_per_host = 1; /* two hosts: ranks 1 and last serve */
        c.rank_host = hosts;
    }
    c.plan = SEAM_PLAN_RANDOM;
    c.assign_seed += 5;
    *sizes |= UINT64_C(1) << c.num_ranks;
    run_or_fail(&c, seed, "pool", &pool);
    compare(&pool, &oracle, seed, "pool");
    if (seed % 2 == 1) check_sums_per_server(&c, &pool, &oracle, seed, "pool, sums per server");
    same_bits(pool.dk, in_place.dk, pool.kv_elements, pool.element_bytes, seed,
              "pool against in place", "dk");
    same_bits(pool.dv, in_place.dv, pool.kv_elements, pool.element_bytes, seed,
              "pool against in place", "dv");

    c.plan = SEAM_PLAN_TOKEN;
    run_or_fail(&c, seed, "planned", &planned);
    compare(&planned, &oracle, seed, "planned");

    c = base;
    c.placement = AS_LOCAL;
    c.num_ranks = trainers;
    c.plan = SEAM_PLAN_RANDOM;
    run_or_fail(&c, seed, "local", &local);
    compare(&local, &oracle, seed, "local");

    add_facts(facts, &in_place.facts);
    add_facts(facts, &pool.facts);
    seam_result_free(&oracle);
    seam_result_free(&in_place);
    seam_result_free(&pool);
    seam_result_free(&planned);
    seam_result_free(&local);
}

static void test_seeds(void **cmocka_state)
{
    const property_options_t *o = *cmocka_state;
    const uint64_t all_sizes = UINT64_C(0x3e); /* 1 to 5 ranks */
    seam_facts_t f = {0};
    uint64_t sizes = 0;
    for (uint64_t seed = o->first; seed < o->first + o->count; seed++)
        check_seed(seed, o, &f, &sizes);
    print_message(
        "%llu seeds: %lld spanning documents, %lld on all trainers, %lld idle trainers, %lld "
        "pad rows; %lld tasks: %lld remote (%lld retained, %lld resent), %lld of some heads, "
        "%lld off the grid, %lld cut by a window; sizes %llx\n",
        (unsigned long long)o->count, (long long)f.spanning, (long long)f.on_all_trainers,
        (long long)f.idle_trainers, (long long)f.pad_rows, (long long)f.tasks, (long long)f.remote,
        (long long)f.retained, (long long)f.resent, (long long)f.head_cut, (long long)f.off_grid,
        (long long)f.windowed, (unsigned long long)sizes);
    if (o->count >= (mpi_world() != NULL ? 5 : 20)) {
        assert_true(f.spanning && f.on_all_trainers && f.idle_trainers && f.pad_rows && f.remote);
        assert_true(f.retained && f.resent && f.head_cut && f.off_grid && f.windowed);
        assert_true(o->threads > 0 || (sizes & all_sizes) == all_sizes);
    }
}

/* With the same plan for the third time, a microbatch asks for no memory on any rank. */
static void test_steady_state_allocates_nothing(void **cmocka_state)
{
    const property_options_t *o = *cmocka_state;
    seam_case_t c = random_case(4, o);
    c.placement = AS_IN_PLACE;
    c.num_ranks = 3;
    c.plan = SEAM_PLAN_RANDOM;
    c.num_microbatches = 5;
    for (c.sums_per_server = 0; c.sums_per_server < 2; c.sums_per_server++) {
        seam_result_t r;
        run_or_fail(&c, 4, "steady state", &r);
        assert_int_equal(r.steady_allocations, 0);
        seam_result_free(&r);
    }
}

/* bf16, with a workspace for the backward, and what sums per server cost: dk and dv of a case with
 * each task's sums and of the same case with sums per server, both against the same case computed in
 * fp32 from the same (bf16) values. */
static void check_bf16(uint64_t seed, const property_options_t *o, double error[2])
{
    seam_case_t c = random_case(seed, o);
    seam_result_t exact, oracle, result;

    c.head_dim = 64;
    c.num_q_heads = 4;
    c.num_kv_heads = 2;
    c.num_layers = 1;
    c.window = 0;
    c.num_documents = c.num_documents < 3 ? c.num_documents : 3;
    seam_case_t whole = c;
    whole.placement = AS_LOCAL;
    whole.num_ranks = 1;
    whole.plan = SEAM_PLAN_UNCUT;
    whole.dtype = KERN_F32;
    whole.bf16_values = 1;
    run_or_fail(&whole, seed, "fp32", &exact);
    whole.dtype = KERN_BF16;
    run_or_fail(&whole, seed, "bf16 oracle", &oracle);
    c.dtype = KERN_BF16;
    c.bf16_values = 1;
    c.placement = seed % 2 == 0 ? AS_IN_PLACE : AS_POOL;
    c.servers_per_host = 2;
    c.num_ranks = 4;
    c.plan = SEAM_PLAN_RANDOM;
    for (c.sums_per_server = 0; c.sums_per_server < 2; c.sums_per_server++) {
        run_or_fail(&c, seed, "bf16", &result);
        compare(&result, &oracle, seed, "bf16");
        const double dk = seam_distance(result.dk, 2, exact.dk, 4, exact.kv_elements);
        const double dv = seam_distance(result.dv, 2, exact.dv, 4, exact.kv_elements);
        error[c.sums_per_server] += (dk + dv) / 2;
        seam_result_free(&result);
    }
    seam_result_free(&exact);
    seam_result_free(&oracle);
}

/* Rounding to nearest loses up to 2^-9, about 2^-9 / sqrt(3) of the norm. Sums per server round each
 * server's contribution as well; contributions of different query rows are nearly orthogonal, so
 * their roundings together are about one more: sqrt(2) times the error in all. */
static void test_bf16(void **cmocka_state)
{
    const property_options_t *o = *cmocka_state;
    const uint64_t seeds = o->count < 12 ? o->count : 12;
    double error[2] = {0, 0};

    if (mpi_world() != NULL) return;
    for (uint64_t seed = 0; seed < seeds; seed++)
        check_bf16(seed, o, error);
    print_message(
        "bf16, %llu seeds: relative error of dk, dv %.2e with each task's sums, %.2e with "
        "sums per server\n",
        (unsigned long long)seeds, error[0] / (double)seeds, error[1] / (double)seeds);
    assert_true(error[0] / (double)seeds < 2.5e-3);
    assert_true(error[1] < 2 * error[0]);
}

/* Trainer 1's tasks read keys of trainer 0, but their server gets nothing from trainer 0 after the
 * forward: it runs ahead into the next layer while trainer 0, which lags, has not yet fetched the
 * partial sums of this one. They must stay where they are until then. */
static void test_lagging_key_owner(void **cmocka_state)
{
    const property_options_t *o = *cmocka_state;
    seam_case_t c = {.dtype = KERN_F32,
                     .num_q_heads = 2,
                     .num_kv_heads = 1,
                     .head_dim = 8,
                     .num_layers = 4,
                     .num_documents = 1,
                     .rows = {700},
                     .device = o->device,
                     .device_seed = 1,
                     .num_microbatches = 1,
                     .slow_rank = -1,
                     .placement = AS_LOCAL,
                     .num_ranks = 1,
                     .plan = SEAM_PLAN_UNCUT};
    seam_result_t oracle, lagging;
    run_or_fail(&c, 0, "oracle", &oracle);
    c.placement = AS_POOL;
    c.servers_per_host = 2;
    c.num_ranks = 4;
    c.plan = SEAM_PLAN_OWN_SERVER;
    c.slow_rank = 0;
    c.slow_ns = 20000000;
    run_or_fail(&c, 0, "lagging", &lagging);
    compare(&lagging, &oracle, 0, "lagging");
    seam_result_free(&oracle);
    seam_result_free(&lagging);
}

int main(int argc, char **argv)
{
    property_options_t o = property_options(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_seeds, &o),
        cmocka_unit_test_prestate(test_steady_state_allocates_nothing, &o),
        cmocka_unit_test_prestate(test_lagging_key_owner, &o),
        cmocka_unit_test_prestate(test_bf16, &o),
    };
    mpi_world_open();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mpi_world_close();
    return failed;
}
