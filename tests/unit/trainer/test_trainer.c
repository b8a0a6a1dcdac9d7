/* Making a rank's trainer: every allocation that can fail does, once, and nothing is left
 * behind. */
#include "tests/support/ctx_fixture.h"

#include "comm/threads.h"
#include "trainer/loop/gradients.h"
#include "trainer/loop/microbatch.h"

typedef struct torture {
    as_placement_t placement;
    int64_t failures;
} torture_t;

static tr_trainer_config_t small_config(void)
{
    return (tr_trainer_config_t){.model = {.num_layers = 1,
                                           .hidden = 4,
                                           .intermediate = 6,
                                           .vocab = 5,
                                           .num_q_heads = 2,
                                           .num_kv_heads = 1,
                                           .head_dim = 4,
                                           .max_positions = 16,
                                           .rms_eps = 1e-5,
                                           .rope_theta = 1e4,
                                           .dtype = KERN_F32},
                                 .weight_seed = 1,
                                 .num_adapters = 1,
                                 .max_rows = 128,
                                 .scratch_bytes = 4096,
                                 .retain_bytes = 4096,
                                 .max_tasks = 4};
}

/* Threads are left out: the harness counts the rank's own when it is already running. */
static int64_t live_objects(const base_memory_t *memory)
{
    int64_t live = 0;

    for (int r = 0; r < BASE_RESOURCE_COUNT; r++) {
        if (r != BASE_RESOURCE_THREAD) live += base_memory_live(memory, (base_resource_t)r);
    }
    return live;
}

/* Fails the n-th request for memory, for n = 1, 2, ... until creation succeeds. */
static base_status_t torture_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    torture_t *torture = user;
    base_memory_t *memory = base_ctx_memory(ctx);
    const tr_trainer_config_t config = small_config();
    as_topology_t *topology;
    tr_trainer_t *trainer = NULL;

    BASE_TRY(
        as_topology_create(ctx, torture->placement, comm_group_size(group), NULL, 1, &topology));
    const int64_t live = live_objects(memory);
    base_status_t st = BASE_ERR_NOMEM;
    for (int64_t n = 1; st == BASE_ERR_NOMEM && n < 1000; n++) {
        base_memory_fail_at(memory, n);
        st = tr_trainer_create(ctx, dev, group, topology, &config, &trainer);
        base_memory_fail_at(memory, 0);
        if (st == BASE_ERR_NOMEM) {
            if (live_objects(memory) != live) st = BASE_ERR_INTERNAL;
            base_ctx_clear_error(ctx);
            if (comm_group_rank(group) == 0) torture->failures++;
        }
    }
    tr_trainer_destroy(trainer);
    if (st >= 0 && live_objects(memory) != live) st = BASE_ERR_INTERNAL;
    as_topology_destroy(topology);
    return st;
}

static void test_no_memory(void **state)
{
    const comm_threads_options_t options = {.num_ranks = 2, .device = BASE_DEVICE_CPU};
    torture_t torture = {.placement = AS_POOL};
    base_error_t error = {0};

    (void)state;
    const base_status_t st = comm_threads_run(&options, torture_rank, &torture, &error);
    if (st < 0) fail_msg("%s: %s", base_status_name(st), error.text);
    assert_true(torture.failures > 20);
}

/* What a pool rank does not have, and a half that is no multiple of 128 rows. */
static base_status_t pool_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    tr_trainer_config_t config = small_config();
    as_topology_t *topology;
    tr_trainer_t *trainer;
    double values[64];

    (void)user;
    BASE_TRY(as_topology_create(ctx, AS_POOL, comm_group_size(group), NULL, 1, &topology));
    config.max_rows = 100;
    if (tr_trainer_create(ctx, dev, group, topology, &config, &trainer) != BASE_ERR_ARG)
        return BASE_ERR_INTERNAL;
    base_ctx_clear_error(ctx);
    config.max_rows = 128;
    BASE_TRY(tr_trainer_create(ctx, dev, group, topology, &config, &trainer));
    const int pool = trainer->index < 0;
    const base_status_t want = pool ? BASE_ERR_STATE : BASE_OK;
    base_status_t st = tr_gradients_zero(trainer);
    if (st >= 0 && (pool != (comm_group_rank(group) == 1) || pool != (trainer->weights == NULL)))
        st = BASE_ERR_INTERNAL;
    if (st >= 0 && (tr_gradients_read(trainer, 0, values) != want ||
                    tr_gradients_read_losses(trainer, values) != want))
        st = BASE_ERR_INTERNAL;
    if (pool && tr_trainer_read_hidden(trainer, DATA_PING, values) != BASE_ERR_STATE)
        st = BASE_ERR_INTERNAL;
    base_ctx_clear_error(ctx);
    tr_trainer_destroy(trainer);
    as_topology_destroy(topology);
    return st;
}

static void test_pool_rank(void **state)
{
    const comm_threads_options_t options = {.num_ranks = 2, .device = BASE_DEVICE_STRICT};
    base_error_t error = {0};

    (void)state;
    const base_status_t st = comm_threads_run(&options, pool_rank, NULL, &error);
    if (st < 0) fail_msg("%s: %s", base_status_name(st), error.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_pool_rank),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
