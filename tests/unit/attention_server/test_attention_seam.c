/* The seam's own errors: wrong order of calls, wrong arguments, plans that do not fit. */
#include "tests/support/ctx_fixture.h"

#include "attention_server/attention.h"
#include "base/clock.h"
#include "comm/threads.h"
#include "lora/pack.h"

#include <math.h>
#include <stdatomic.h>

enum { ROWS = 128, HEADS = 2, KV_HEADS = 1, DIM = 8, LAYERS = 2 };

typedef struct rig {
    base_ctx_t *ctx;
    base_stream_t *compute;
    base_arena_t *arena;
    as_topology_t *topology;
    as_attention_t *attention;
    data_batch_t *batch;
    as_plan_t *plan;
    base_region_t tensor;
} rig_t;

static as_attention_config_t small_config(void)
{
    return (as_attention_config_t){.dtype = KERN_F32,
                                   .num_q_heads = HEADS,
                                   .num_kv_heads = KV_HEADS,
                                   .head_dim = DIM,
                                   .scale = 0.35,
                                   .num_layers = LAYERS,
                                   .num_kinds = 1,
                                   .max_rows = ROWS,
                                   .head_rows = ROWS,
                                   .o_pitch = HEADS * DIM,
                                   .d_o_pitch = HEADS * DIM,
                                   .scratch_bytes = 1 << 20,
                                   .retain_bytes = 1 << 16,
                                   .max_tasks = 16};
}

/* A document that spans both halves: its tasks leave partial sums. */
static base_status_t make_batch(rig_t *r)
{
    const data_document_t document = {.rows = 200};
    const lora_pack_t pack = {.num_trainers = 1,
                              .tokens_per_trainer = 2 * ROWS,
                              .num_documents = 1,
                              .documents = &document};
    const as_plan_options_t options = {.num_kv_heads = KV_HEADS};
    BASE_TRY(lora_pack_fast(r->ctx, &pack, r->batch));
    return as_plan_token(r->ctx, &options, r->batch, r->topology, r->plan);
}

static base_status_t create_rig(rig_t *r, comm_group_t *group, base_device_t *dev,
                                const as_attention_config_t *config)
{
    r->ctx = base_device_ctx(dev);
    BASE_TRY(base_stream_create(dev, BASE_STREAM_COMPUTE, "compute", &r->compute));
    BASE_TRY(base_arena_create(dev, BASE_MEMORY_DEVICE, "rig", &r->arena));
    BASE_TRY(base_arena_declare(r->arena, "test", "tensor", ROWS * HEADS * DIM * 4,
                                BASE_LIFETIME_RUN, &r->tensor));
    const int ranks = comm_group_size(group); /* a trainer; of two ranks the second only serves */
    BASE_TRY(as_topology_create(r->ctx, ranks == 1 ? AS_IN_PLACE : AS_POOL, ranks, NULL, ranks - 1,
                                &r->topology));
    BASE_TRY(data_batch_create(r->ctx, 4, 8, 1, &r->batch));
    BASE_TRY(as_plan_create(r->ctx, 64, &r->plan));
    BASE_TRY(as_attention_create(r->ctx, config, r->topology, group, r->arena, r->compute,
                                 &r->attention));
    BASE_TRY(base_arena_commit(r->arena));
    return make_batch(r);
}

static void destroy_rig(rig_t *r)
{
    as_attention_destroy(r->attention);
    as_plan_destroy(r->plan);
    data_batch_destroy(r->batch);
    as_topology_destroy(r->topology);
    base_arena_destroy(r->arena);
    base_stream_destroy(r->compute);
}

/* All tensors in one place: these tests look at errors, not at values. */
static as_tensors_t tensors(const rig_t *r)
{
    const base_mem_t m = base_arena_mem(r->arena, r->tensor);
    return (as_tensors_t){
        .q = m, .k = m, .v = m, .o = m, .lse = m, .d_o = m, .dq = m, .dk = m, .dv = m};
}

/* The call fails with this status and a text that holds this piece; the error is cleared for the
 * next. */
#define EXPECT(call, status, piece)                                                                \
    do {                                                                                           \
        base_error_t error;                                                                        \
        if ((call) != (status))                                                                    \
            return BASE_FAIL(r.ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,                            \
                             #call " gave another status");                                        \
        if (!base_ctx_error(r.ctx, &error) || strstr(error.text, (piece)) == NULL)                 \
            return BASE_FAIL(r.ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,                            \
                             "text of " #call " lacks '%s'", (piece));                             \
        base_ctx_clear_error(r.ctx);                                                               \
    } while (0)

static base_status_t order_of_calls(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                    void *user)
{
    rig_t r = {.ctx = ctx};
    const as_attention_config_t config = small_config();
    (void)user;
    BASE_TRY(create_rig(&r, group, dev, &config));
    as_attention_t *at = r.attention;
    as_tensors_t t = tensors(&r);

    EXPECT(as_attention_begin(at, DATA_PING, 0, AS_FORWARD, &t), BASE_ERR_ARG,
           "0 microbatches installed");
    const as_plan_t *plans[] = {r.plan};
    BASE_TRY(as_attention_microbatch(at, r.batch, plans));
    EXPECT(as_attention_begin(at, DATA_PING, LAYERS, AS_FORWARD, &t), BASE_ERR_ARG, "layer 2 of 2");
    EXPECT(as_attention_begin(at, DATA_PING, 0, AS_FORWARD, NULL), BASE_ERR_ARG, "gave no tensors");
    EXPECT(as_attention_serve(at, DATA_PING, 0, AS_FORWARD), BASE_ERR_STATE, "without its begin");
    EXPECT(as_attention_finish(at, DATA_PING), BASE_ERR_STATE, "was not begun");
    BASE_TRY(as_attention_begin(at, DATA_PING, 0, AS_FORWARD, &t));
    EXPECT(as_attention_begin(at, DATA_PING, 1, AS_FORWARD, &t), BASE_ERR_STATE,
           "while layer 0 is open");
    EXPECT(as_attention_finish(at, DATA_PING), BASE_ERR_STATE, "was not served");
    EXPECT(as_attention_serve(at, DATA_PING, 1, AS_FORWARD), BASE_ERR_STATE, "without its begin");
    EXPECT(as_attention_drain(at), BASE_ERR_STATE, "ping of layer 0 was not finished");
    BASE_TRY(as_attention_begin(at, DATA_PONG, 0, AS_FORWARD, &t));
    EXPECT(as_attention_serve(at, DATA_PONG, 0, AS_FORWARD), BASE_ERR_STATE,
           "before ping was served");
    BASE_TRY(as_attention_serve(at, DATA_PING, 0, AS_FORWARD));
    EXPECT(as_attention_finish(at, DATA_PING), BASE_ERR_STATE, "before pong was served");
    BASE_TRY(as_attention_serve(at, DATA_PONG, 0, AS_FORWARD));
    BASE_TRY(as_attention_finish(at, DATA_PING));
    BASE_TRY(as_attention_finish(at, DATA_PONG));

    BASE_TRY(as_attention_begin(at, DATA_PONG, 0, AS_BACKWARD, &t));
    EXPECT(as_attention_serve(at, DATA_PONG, 0, AS_BACKWARD), BASE_ERR_STATE, "before ping began");
    BASE_TRY(as_attention_begin(at, DATA_PING, 0, AS_BACKWARD, &t));
    BASE_TRY(as_attention_serve(at, DATA_PONG, 0, AS_BACKWARD));
    BASE_TRY(as_attention_serve(at, DATA_PING, 0, AS_BACKWARD));
    EXPECT(as_attention_finish(at, DATA_PING), BASE_ERR_STATE, "finished before pong");
    BASE_TRY(as_attention_finish(at, DATA_PONG));
    BASE_TRY(as_attention_finish(at, DATA_PING));
    BASE_TRY(as_attention_drain(at));
    BASE_TRY(base_stream_sync(r.compute));
    destroy_rig(&r);
    return BASE_OK;
}

static base_status_t wrong_plans(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    rig_t r = {.ctx = ctx};
    const as_attention_config_t config = small_config();
    (void)user;
    BASE_TRY(create_rig(&r, group, dev, &config));
    const as_plan_options_t windowed = {.window = 64, .num_kv_heads = KV_HEADS};
    const as_plan_t *plans[] = {r.plan};
    BASE_TRY(as_plan_token(ctx, &windowed, r.batch, r.topology, r.plan));
    EXPECT(as_attention_microbatch(r.attention, r.batch, plans), BASE_ERR_ARG, "has window 64");
    destroy_rig(&r);

    as_attention_config_t tight = small_config();
    tight.scratch_bytes = 4096; /* the partial sums alone need more; MEM-01 */
    r = (rig_t){.ctx = ctx};
    BASE_TRY(create_rig(&r, group, dev, &tight));
    plans[0] = r.plan;
    EXPECT(as_attention_microbatch(r.attention, r.batch, plans), BASE_ERR_NOMEM,
           "bytes of staging");
    destroy_rig(&r);

    as_attention_config_t bad = small_config();
    bad.o_pitch = 3;
    r = (rig_t){.ctx = ctx};
    EXPECT(create_rig(&r, group, dev, &bad), BASE_ERR_ARG, "o_pitch 3");
    destroy_rig(&r);
    return BASE_OK;
}

/* Of everything but threads: the runner may count a rank's own thread a little later than it begins,
 * also between two readings, so that taking threads from the total would not do. */
static int64_t live_objects(base_memory_t *memory)
{
    int64_t sum = 0;

    for (int r = 0; r < BASE_RESOURCE_COUNT; r++)
        if (r != BASE_RESOURCE_THREAD) sum += base_memory_live(memory, (base_resource_t)r);
    return sum;
}

/* Every allocation of creation and first installation fails in turn: an error each time, and
 * nothing is left. */
static base_status_t failing_allocations(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                         void *user)
{
    const as_attention_config_t config = small_config();
    base_memory_t *memory = base_ctx_memory(ctx);
    const int64_t live = live_objects(memory);
    (void)user;
    for (int64_t n = 1;; n++) {
        rig_t r = {.ctx = ctx};
        base_memory_fail_at(memory, n);
        base_status_t st = create_rig(&r, group, dev, &config);
        const as_plan_t *plans[] = {r.plan};
        if (st >= 0) st = as_attention_microbatch(r.attention, r.batch, plans);
        base_memory_fail_at(memory, 0);
        destroy_rig(&r);
        base_ctx_clear_error(ctx);
        if (live_objects(memory) != live)
            return BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                             "allocation %lld: something is left", (long long)n);
        if (st >= 0)
            return n > 20 ? BASE_OK
                          : BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                                      "only %lld allocations", (long long)n);
        if (st != BASE_ERR_NOMEM)
            return BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, "allocation %lld: status %d",
                             (long long)n, (int)st);
    }
}

/* What base_stream_settle waits for: a trainer that has begun is held until the server, which takes its
 * time, has begun too and fetched. */
#define LATE_NS 30000000
static base_status_t settle(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    atomic_int *begun = user;
    rig_t r = {.ctx = ctx};
    const as_attention_config_t config = small_config();
    const int trains = comm_group_rank(group) == 0;

    BASE_TRY(create_rig(&r, group, dev, &config));
    const as_plan_t *plans[] = {r.plan};
    const as_tensors_t t = tensors(&r);
    BASE_TRY(as_attention_microbatch(r.attention, r.batch, plans));
    if (!trains) {
        base_clock_sleep_ns(LATE_NS);
        atomic_store(begun, 1);
    }
    BASE_TRY(as_attention_begin(r.attention, DATA_PING, 0, AS_FORWARD, trains ? &t : NULL));
    if (trains) BASE_TRY(base_stream_settle(r.compute));
    const int in_time = atomic_load(begun);
    BASE_TRY(as_attention_serve(r.attention, DATA_PING, 0, AS_FORWARD));
    BASE_TRY(as_attention_finish(r.attention, DATA_PING));
    BASE_TRY(as_attention_drain(r.attention));
    BASE_TRY(base_stream_sync(r.compute));
    destroy_rig(&r);
    return in_time ? BASE_OK
                   : BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                               "settled before the server had begun");
}

/* The host waits for the microbatch before the last, and not for ever: here its stream hangs. */
static base_status_t hanging_device(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                    void *user)
{
    rig_t r = {.ctx = ctx};
    const as_attention_config_t config = small_config();
    base_counter_t *never;
    (void)user;
    BASE_TRY(create_rig(&r, group, dev, &config));
    BASE_TRY(base_counter_create(dev, &never));
    const as_plan_t *plans[] = {r.plan};
    BASE_TRY(as_attention_microbatch(r.attention, r.batch, plans));
    BASE_TRY(base_stream_wait_counter(r.compute, never, 1));
    BASE_TRY(as_attention_microbatch(r.attention, r.batch, plans));
    const base_status_t st = as_attention_microbatch(r.attention, r.batch, plans);
    (void)(base_stream_sync(r.compute) < 0);
    destroy_rig(&r);
    base_counter_destroy(never);
    base_ctx_clear_error(ctx);
    return st == BASE_ERR_TIMEOUT ? BASE_OK
                                  : BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                                              "status %d, want a timeout", (int)st);
}

static void run_ranks(const comm_threads_options_t *options, comm_rank_fn fn, void *user)
{
    base_error_t error = {0};
    const base_status_t st = comm_threads_run(options, fn, user, &error);
    if (st < 0) fail_msg("%s: %s", base_status_name(st), error.text);
}

static void run_one_rank_on(base_device_kind_t device, int64_t deadline_ms, comm_rank_fn fn)
{
    run_ranks(
        &(comm_threads_options_t){.num_ranks = 1, .device = device, .deadline_ms = deadline_ms}, fn,
        NULL);
}

static void run_one_rank(comm_rank_fn fn)
{
    run_one_rank_on(BASE_DEVICE_CPU, 10000, fn);
}

static void test_settle(void **state)
{
    atomic_int begun = 0;

    (void)state;
    run_ranks(
        &(comm_threads_options_t){.num_ranks = 2, .device = BASE_DEVICE_CPU, .deadline_ms = 10000},
        settle, &begun);
}

static void test_order_of_calls(void **state)
{
    (void)state;
    run_one_rank(order_of_calls);
}

static void test_wrong_plans(void **state)
{
    (void)state;
    run_one_rank(wrong_plans);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    run_one_rank(failing_allocations);
}

static void test_hanging_device(void **state)
{
    (void)state;
    run_one_rank_on(BASE_DEVICE_STRICT, 300, hanging_device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_calls),
        cmocka_unit_test(test_wrong_plans),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_hanging_device),
        cmocka_unit_test(test_settle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
