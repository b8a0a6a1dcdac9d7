/* A planner over layouts of lora_pack_fast, for tests: layouts, topologies, and what every plan is
 * checked for. */
#ifndef CADRE_TESTS_SUPPORT_PLANNER_RIG_H
#define CADRE_TESTS_SUPPORT_PLANNER_RIG_H

#include "attention_server/planner.h"
#include "base/philox.h"
#include "lora/pack.h"
#include "tests/support/ctx_fixture.h"

#define MAX_DOCUMENTS  40 /* unless a test asks for more */
#define MOST_DOCUMENTS 4096
#define MAX_TRAINERS   5
#define MAX_SERVERS    10
#define MAX_ROWS       65536
#define MAX_HEADS      8

typedef struct rng {
    uint32_t round, next;
} rng_t;

static inline int64_t draw(rng_t *rng, int64_t low, int64_t high)
{
    const base_philox_t r = base_philox(base_philox_key(29), 0, 0, rng->round, rng->next++);

    return low + (int64_t)base_philox_below(r.word[0], r.word[1], (uint64_t)(high - low + 1));
}

typedef struct rig {
    base_ctx_t *ctx;
    data_batch_t *batch;
    as_topology_t *topology;
    as_cost_t *cost;
    as_machine_t machine;
    as_planner_t *planner;
    as_plan_t *plan;
    as_score_t score;
    int32_t max_documents, max_pieces;
    int64_t task_ps[AS_PROFILE_DIRECTIONS], key_ps[AS_PROFILE_DIRECTIONS];
    int64_t link_ps_per_kib[AS_NUM_TIERS];
    int32_t speed[MAX_SERVERS];
    int64_t scratch[MAX_SERVERS], retain[MAX_SERVERS];
} rig_t;

static inline void rig_begin_for(rig_t *r, int32_t max_documents)
{
    *r = (rig_t){.ctx = fixture_ctx(),
                 .max_documents = max_documents,
                 .max_pieces = max_documents + 2 * MAX_TRAINERS,
                 .link_ps_per_kib = {2753, 25600}};
    assert_int_equal(
        data_batch_create(r->ctx, max_documents, r->max_pieces, MAX_TRAINERS, &r->batch), BASE_OK);
}

static inline void rig_begin(rig_t *r)
{
    rig_begin_for(r, MAX_DOCUMENTS);
}

static inline void rig_end(rig_t *r)
{
    data_batch_destroy(r->batch);
    fixture_ctx_end(r->ctx);
}

static inline void lay(rig_t *r, int32_t num_trainers, int64_t tokens_per_trainer,
                       const int64_t *rows, int32_t count)
{
    static data_document_t documents[MOST_DOCUMENTS];
    const lora_pack_t pack = {.microbatch = 5,
                              .num_trainers = num_trainers,
                              .tokens_per_trainer = tokens_per_trainer,
                              .num_documents = count,
                              .documents = documents};

    for (int32_t d = 0; d < count; d++)
        documents[d] = (data_document_t){.rows = rows[d], .adapter = d % 3, .index = d};
    assert_int_equal(lora_pack_fast(r->ctx, &pack, r->batch), BASE_OK);
}

static inline void lay_random(rig_t *r, rng_t *rng, int32_t num_trainers, int64_t most)
{
    static const int64_t edges[] = {1, 127, 128, 129, 2048};
    const int64_t tokens_per_trainer = 256 * draw(rng, 1, most);
    const int32_t wanted = (int32_t)draw(rng, 1, MAX_DOCUMENTS);
    int64_t room = num_trainers * tokens_per_trainer - 127, rows[MAX_DOCUMENTS];
    int32_t count = 0;

    for (; count < wanted && room > 0; count++) {
        rows[count] = draw(rng, 0, 3) == 0 ? edges[draw(rng, 0, 4)] : draw(rng, 1, 4000);
        if (count == 0 && draw(rng, 0, 1)) rows[0] = draw(rng, room / 2 + 1, room);
        if (rows[count] > room) rows[count] = room;
        room -= rows[count];
    }
    lay(r, num_trainers, tokens_per_trainer, rows, count);
}

/* In place on one host or two; pools; local. NULL: no more. */
static inline as_topology_t *topology_of(base_ctx_t *ctx, int32_t num_trainers, int number)
{
    static const int32_t pairs[2 * MAX_TRAINERS] = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4};
    static const int32_t apart[MAX_TRAINERS] = {0, 1, 2, 3, 4};
    as_topology_t *t = NULL;

    if (number == 0)
        assert_int_equal(as_topology_create(ctx, AS_IN_PLACE, num_trainers, NULL, 0, &t), BASE_OK);
    else if (number == 1)
        assert_int_equal(as_topology_create(ctx, AS_IN_PLACE, num_trainers, apart, 0, &t), BASE_OK);
    else if (number <= 3)
        assert_int_equal(
            as_topology_create(ctx, AS_POOL, num_trainers + number - 1, NULL, number - 1, &t),
            BASE_OK);
    else if (number == 4)
        assert_int_equal(as_topology_create(ctx, AS_POOL, 2 * num_trainers, pairs, 1, &t), BASE_OK);
    else if (number == 5)
        assert_int_equal(as_topology_create(ctx, AS_LOCAL, num_trainers, NULL, 0, &t), BASE_OK);
    return t;
}

/* Like an H200, with a constant of a task as the test wants it. */
static inline as_profile_t profile_of(const rig_t *r)
{
    return (as_profile_t){.row_grain = 32,
                          .num_points = 2,
                          .keys = {128, 32768},
                          .tile_row_ps = {{200000, 12000000}, {770000, 36000000}},
                          .task_ps = {r->task_ps[0], r->task_ps[1]},
                          .key_ps = {r->key_ps[0], r->key_ps[1]}};
}

static inline void open_planner(rig_t *r, as_topology_t *topology, int64_t window,
                                as_planner_config_t config)
{
    const as_profile_t profile = profile_of(r);

    r->topology = topology;
    r->machine.topology = topology;
    r->machine.num_layers = 2;
    for (int tier = 0; tier < AS_NUM_TIERS; tier++)
        r->machine.link_ps_per_kib[tier] = r->link_ps_per_kib[tier];
    r->machine.dense_ns[0] = r->machine.dense_ns[1] = 100000;
    as_wire_seam(4, 128, 2, 4, 4, &r->machine.wire);
    assert_int_equal(as_cost_create(r->ctx, &profile, window, MAX_ROWS, &r->cost), BASE_OK);
    config.machine = &r->machine;
    config.cost = r->cost;
    config.max_documents = r->max_documents;
    config.max_pieces = r->max_pieces;
    assert_int_equal(as_planner_create(r->ctx, &config, &r->planner), BASE_OK);
    assert_int_equal(as_plan_create(r->ctx, as_planner_max_tasks(r->planner), &r->plan), BASE_OK);
}

static inline void close_planner(rig_t *r)
{
    as_plan_destroy(r->plan);
    as_planner_destroy(r->planner);
    as_cost_destroy(r->cost);
    as_topology_destroy(r->topology);
    r->machine = (as_machine_t){0};
}

/* Every row of every KV head once, told by marking it: without as_plan_finish's help. */
static inline void check_cover(const rig_t *r, int32_t num_kv_heads)
{
    static uint8_t seen[MAX_HEADS][MAX_ROWS];
    int32_t i = 0;

    for (int32_t d = 0; d < r->batch->num_documents; d++) {
        const int64_t rows = r->batch->documents[d].rows;

        for (int32_t h = 0; h < num_kv_heads; h++)
            memset(seen[h], 0, (size_t)rows);
        for (; i < r->plan->num_tasks && r->plan->tasks[i].document == d; i++) {
            const as_task_t *t = &r->plan->tasks[i];

            assert_true(t->q0 < t->q1 && t->q1 <= rows && t->h0 < t->h1 && t->h1 <= num_kv_heads);
            for (int32_t h = t->h0; h < t->h1; h++)
                for (int64_t row = t->q0; row < t->q1; row++)
                    assert_int_equal(seen[h][row]++, 0);
        }
        for (int32_t h = 0; h < num_kv_heads; h++)
            assert_null(memchr(seen[h], 0, (size_t)rows));
    }
    assert_int_equal(i, r->plan->num_tasks);
}

#endif
