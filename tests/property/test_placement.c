/* Placement invariance of the whole model, end to end, over random documents, cuts, servers, head
 * groups and retention.
 *
 * For each seed: T trainers in place; the same trainers with one and two servers in a pool; the
 * same with random cuts, in place and pool; one rank; whole documents (local). With the same
 * trainers, packing and cuts all bits of losses, gradients and final hidden states are the same;
 * and so they are when the backward makes again what was not kept;
 * with other trainers or cuts they agree within 1e-5 (fp32), 1e-12 (fp64) or 0.02 (bf16: see
 * LIMIT_BF16). Then accumulation (one
 * microbatch against one a document) and isolation (another first document).
 *
 *   placement [--device cpu|strict] [--first N] [--seeds N] [--threads N] [--dtype bf16] */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/model_case.h"
#include "tests/support/property_options.h"
#include "tests/support/random_plan.h"

#include <stdlib.h>
#include <string.h>

/* Sums of another order differ in fp32 bits, and a result near the middle between two bf16 numbers is
 * then rounded the other way: 2^-8 of it, as any rounding of the pass. So runs are as far apart as
 * each is from exact arithmetic, a few 2^-8; norm weights' gradients, sums that cancel, up to ten
 * times that. */
#define LIMIT_BF16 0.02

/* Random cuts that depend on the seed only, servers that depend on `assign` too. */
typedef struct random_servers {
    uint64_t seed, assign;
    int32_t num_kv_heads;
} random_servers_t;

static base_status_t plan_random(void *user, int64_t window, const data_batch_t *batch,
                                 const as_topology_t *topology, as_plan_t *plan)
{
    const random_servers_t *r = user;
    const random_plan_t options = {.cut_seed = r->seed * 13 + (uint64_t)window,
                                   .assign_seed = r->assign * 17 + (uint64_t)window,
                                   .window = window,
                                   .num_kv_heads = r->num_kv_heads};
    return random_plan_fill(&options, batch, topology, plan);
}

static void run_or_fail(const model_case_t *c, uint64_t seed, const char *name,
                        model_result_t *result)
{
    const base_status_t st = model_case_run(c, result);
    if (st < 0)
        fail_msg("seed %llu, %s: %s (%s:%d): %s", (unsigned long long)seed, name,
                 base_status_name(st), result->error.file ? result->error.file : "?",
                 result->error.line, result->error.text);
}

/* All weights' gradients as one vector. */
static double gradient_distance(const model_result_t *a, const model_result_t *b)
{
    return model_distance(a->gradients, b->gradients, a->num_parameters);
}

/* Runs `c` and compares all its bits with `same`. */
static void expect_bits(const model_case_t *c, const model_result_t *same, uint64_t seed,
                        const char *name)
{
    model_result_t r;
    char what[128];
    run_or_fail(c, seed, name, &r);
    if (!model_result_same(&r, same, what, sizeof what))
        fail_msg("seed %llu, %s: %s", (unsigned long long)seed, name, what);
    model_result_free(&r);
}

static void expect_near(const model_case_t *c, const model_result_t *near, double limit,
                        uint64_t seed, const char *name)
{
    model_result_t r;
    char what[128];
    run_or_fail(c, seed, name, &r);
    const double distance = model_result_distance(&r, near, what, sizeof what);
    if (!(distance <= limit))
        fail_msg("seed %llu, %s: %s differs by %g, want at most %g", (unsigned long long)seed, name,
                 what, distance, limit);
    model_result_free(&r);
}

/* Documents and model of a seed. */
static model_case_t random_case(uint64_t seed, const property_options_t *o,
                                model_documents_t *documents)
{
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 5;
    const model_documents_options_t d = {.seed = seed,
                                         .count = 1 + (int32_t)random_below(&state, 5),
                                         .vocab = 50 + (int32_t)random_below(&state, 50),
                                         .adapters = 1 + (int32_t)random_below(&state, 3),
                                         .max_rows = random_below(&state, 6) == 0 ? 2000 : 400,
                                         .edges = 1};
    model_documents_random(&d, documents);
    model_case_t c = model_case_default(documents);
    c.model.dtype = random_below(&state, 3) == 0 ? KERN_F64 : KERN_F32;
    static const int64_t windows[][3] = {{0, 0, 0}, {0, 100, 0}, {130, 0, 130}};
    if (o->bf16) c.model.dtype = KERN_BF16;
    c.model.num_layers = random_below(&state, 2) ? 3 : 1;
    c.model.layer_window = windows[random_below(&state, 3)];
    c.device = o->device;
    c.device_seed = seed;
    c.retain = (int32_t)random_below(&state, 2);
    return c;
}

static void check_placements(const model_case_t *base, int32_t trainers, uint64_t seed,
                             double limit)
{
    model_result_t in_place, cut;
    model_case_t c = *base;
    c.placement = AS_IN_PLACE;
    c.num_ranks = trainers;
    run_or_fail(&c, seed, "in place", &in_place);

    c.placement = AS_POOL;
    for (c.servers_per_host = 1; c.servers_per_host <= 2; c.servers_per_host++) {
        c.num_ranks = trainers + c.servers_per_host;
        expect_bits(&c, &in_place, seed, c.servers_per_host == 1 ? "pool of one" : "pool of two");
    }

    /* What the backward makes again has the bits that it had. */
    c = *base;
    c.placement = AS_IN_PLACE;
    c.num_ranks = trainers;
    c.recompute = seed % 2 == 0 ? TR_RECOMPUTE_QKV : TR_RECOMPUTE_BLOCK;
    expect_bits(&c, &in_place, seed, tr_recompute_name(c.recompute));

    random_servers_t servers = {seed, 1, base->model.num_kv_heads};
    c = *base;
    c.placement = AS_IN_PLACE;
    c.num_ranks = trainers;
    c.plan = plan_random;
    c.user = &servers;
    run_or_fail(&c, seed, "random cuts", &cut);
    servers.assign = 2;
    c.placement = AS_POOL;
    c.servers_per_host = 2;
    c.num_ranks = trainers + 2;
    expect_bits(&c, &cut, seed, "random cuts, pool");
    char what[128];
    const double distance = model_result_distance(&cut, &in_place, what, sizeof what);
    if (!(distance <= limit))
        fail_msg("seed %llu, other cuts: %s differs by %g", (unsigned long long)seed, what,
                 distance);

    c = *base;
    c.placement = AS_LOCAL;
    c.num_ranks = 1;
    expect_near(&c, &in_place, limit, seed, "one rank");
    c.num_ranks = trainers;
    expect_near(&c, &in_place, limit, seed, "whole documents");
    model_result_free(&in_place);
    model_result_free(&cut);
}

/* All documents at once, and one microbatch a document: the gradient within 1e-6 (fp32) or 1e-12
 * (fp64) of its norm, and each weight's, where sums cancel (norm weights), within ten times that.
 */
static void check_accumulation(const model_case_t *base, int32_t trainers, uint64_t seed,
                               double limit)
{
    model_result_t together, single;
    model_case_t c = *base;
    c.placement = AS_IN_PLACE;
    c.num_ranks = trainers;
    run_or_fail(&c, seed, "together", &together);
    c.documents_per_microbatch = 1;
    run_or_fail(&c, seed, "one by one", &single);
    char what[128];
    const double whole = gradient_distance(&single, &together);
    const double worst = model_result_distance(&single, &together, what, sizeof what);
    if (!(whole <= limit && worst <= 10 * limit))
        fail_msg("seed %llu, one by one: gradient differs by %g, %s by %g",
                 (unsigned long long)seed, whole, what, worst);
    model_result_free(&together);
    model_result_free(&single);
}

/* Another first document: the others' final hidden states keep their bits. */
static void check_isolation(const model_case_t *base, int32_t trainers, uint64_t seed)
{
    if (base->documents->count < 2) return;
    model_result_t before, after;
    model_documents_t changed;
    model_documents_copy(base->documents, &changed);
    for (int64_t i = 0; i < changed.list[0].rows;
         i++) /* tokens of all documents lie one after the other */
        changed.tokens[i] = 1 + (changed.tokens[i] + (int32_t)i) % (changed.vocab - 1);
    model_case_t c = *base;
    c.placement = AS_IN_PLACE;
    c.num_ranks = trainers;
    run_or_fail(&c, seed, "isolation, before", &before);
    c.documents = &changed;
    run_or_fail(&c, seed, "isolation, after", &after);
    const int64_t others = before.document_at[1] * before.hidden_cols;
    const int64_t all = before.document_at[base->documents->count] * before.hidden_cols;
    if (memcmp(before.hidden + others, after.hidden + others,
               (size_t)(all - others) * sizeof(double)) != 0)
        fail_msg("seed %llu: a change of document 0 reaches other documents",
                 (unsigned long long)seed);
    if (memcmp(before.hidden, after.hidden, (size_t)others * sizeof(double)) == 0 &&
        base->documents->list[0].rows > 2)
        fail_msg("seed %llu: the change of document 0 changed nothing", (unsigned long long)seed);
    model_result_free(&before);
    model_result_free(&after);
    model_documents_free(&changed);
}

static double limit(const model_case_t *c, double fp32)
{
    if (c->model.dtype == KERN_BF16) return LIMIT_BF16;
    return c->model.dtype == KERN_F64 ? 1e-12 : fp32;
}

static void test_seeds(void **cmocka_state)
{
    const property_options_t *o = *cmocka_state;
    for (uint64_t seed = o->first; seed < o->first + o->count; seed++) {
        model_documents_t documents;
        const model_case_t c = random_case(seed, o, &documents);
        const int32_t trainers = o->threads > 0 ? o->threads : 1 + (int32_t)(seed % 4);
        check_placements(&c, trainers, seed, limit(&c, 1e-5));
        if (seed % 4 == 0) check_accumulation(&c, trainers, seed, limit(&c, 1e-6));
        if (seed % 4 == 2) check_isolation(&c, trainers, seed);
        model_documents_free(&documents);
    }
    print_message("%llu seeds\n", (unsigned long long)o->count);
}

int main(int argc, char **argv)
{
    property_options_t o = property_options(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_seeds, &o),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
