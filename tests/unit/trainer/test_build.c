/* Trainers of the right size: every microbatch that such documents can make runs in the memory that
 * was set aside, and what cannot be is refused before anything is allocated. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/train_case.h"
#include "trainer/model/product_search.h"

#include <stdlib.h>

static data_model_spec_t make_spec(void)
{
    return (data_model_spec_t){.family = DATA_MODEL_MISTRAL,
                               .num_layers = 2,
                               .hidden = 16,
                               .intermediate = 20,
                               .vocab = 40,
                               .num_q_heads = 4,
                               .num_kv_heads = 2,
                               .head_dim = 4,
                               .max_positions = 8192,
                               .rms_eps = 1e-5,
                               .softmax_scale = 0.5,
                               .rope = {.kind = DATA_ROPE_PLAIN, .theta = 10000.0},
                               .layer_window = {0, 90}};
}

static const lora_adapter_options_t options[] = {
    {.name = "a", .rank = 3, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "b", .rank = 5, .scale = 1, .dropout = 0.1, .targets = BASE_CONFIG_TARGET_Q}};

/* ==== random microbatches ==== */

#define LONGEST 900

/* Lots of random documents up to the longest, from many small ones to few long ones. */
static base_status_t random_body(train_rank_t *rank, void *user)
{
    model_documents_t docs;
    tr_lot_t *lots[2] = {NULL, NULL};
    base_status_t st = BASE_OK;

    (void)user;
    model_documents_random(&(model_documents_options_t){.seed = 4,
                                                        .count = 60,
                                                        .vocab = 40,
                                                        .adapters = 2,
                                                        .min_rows = LONGEST,
                                                        .max_rows = LONGEST},
                           &docs);
    for (int i = 0; i < 2 && st >= 0; i++)
        st = tr_lot_create(rank->ctx, &rank->lots, lots[0], &lots[i]);
    uint64_t random = 9;
    for (int64_t n = 0; n < 24 && st >= 0; n++) {
        tr_lot_t *lot = lots[n % 2];
        const int64_t most = n % 4 == 0 ? 30 : n % 4 == 1 ? LONGEST : LONGEST / (n % 4);

        tr_lot_begin(lot, n);
        for (int32_t d = 0; d < docs.count; d++) {
            data_document_t document = docs.list[d];

            random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
            document.rows = n % 4 == 1 ? LONGEST : 1 + (int64_t)(random >> 33) % most;
            if (tr_lot_fits(lot, document.rows)) train_lot_add(lot, &document);
        }
        st = train_lot_run(rank, lot, n % 5 == 0);
    }
    if (st >= 0) st = tr_trainer_sync(rank->trainer);
    for (int i = 0; i < 2; i++)
        tr_lot_destroy(lots[i]);
    model_documents_free(&docs);
    return st;
}

static void check_random(int num_ranks, as_placement_t placement)
{
    const data_model_spec_t spec = make_spec();
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 1,
                            .dtype = KERN_F32,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = 2,
                            .adapters = options,
                            .tokens_per_trainer = 1100,
                            .longest = LONGEST,
                            .num_ranks = num_ranks,
                            .placement = placement,
                            .body = random_body};

    train_case_run(&c);
}

static void test_random_microbatches_fit(void **state)
{
    (void)state;
    check_random(1, AS_IN_PLACE);
    check_random(2, AS_IN_PLACE);
    check_random(3, AS_POOL);
}

/* ==== products before the first microbatch ==== */

static base_status_t losses_of(train_rank_t *rank, const model_documents_t *docs, double losses[2])
{
    tr_lot_t *lot = NULL;

    BASE_TRY(tr_gradients_zero(rank->trainer));
    BASE_TRY(tr_lot_create(rank->ctx, &rank->lots, NULL, &lot));
    tr_lot_begin(lot, 0);
    for (int32_t d = 0; d < docs->count; d++)
        train_lot_add(lot, &docs->list[d]);
    base_status_t st = train_lot_run(rank, lot, 0);
    if (st >= 0) st = tr_gradients_read_losses(rank->trainer, losses);
    tr_lot_destroy(lot);
    return st;
}

/* The search names its operands and leaves nothing that a microbatch could read. */
static base_status_t search_body(train_rank_t *rank, void *user)
{
    double before[2], after[2];
    model_documents_t docs;

    (void)user;
    model_documents_random(
        &(model_documents_options_t){
            .seed = 5, .count = 3, .vocab = 40, .adapters = 2, .min_rows = 50, .max_rows = 200},
        &docs);
    base_status_t st = losses_of(rank, &docs, before);
    if (st >= 0) st = tr_product_search(&rank->trainer->graph);
    if (st >= 0) st = losses_of(rank, &docs, after);
    model_documents_free(&docs);
    if (st >= 0 && (before[0] != after[0] || before[1] != after[1] || !(before[0] > 0.0)))
        fail_msg("losses %g, %g before and %g, %g behind the search", before[0], before[1],
                 after[0], after[1]);
    return st;
}

static void test_product_search(void **state)
{
    const data_model_spec_t spec = make_spec();
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 1,
                            .dtype = KERN_BF16,
                            .device = BASE_DEVICE_STRICT,
                            .num_adapters = 2,
                            .adapters = options,
                            .tokens_per_trainer = 1024,
                            .longest = 200,
                            .body = search_body};

    (void)state;
    train_case_run(&c);
}

/* ==== creation ==== */

typedef struct creation {
    int64_t longest, tokens, memory_bytes;
    int full, layout_only, torture;
    tr_recompute_t recompute; /* what was chosen, then */
    /* out */
    int64_t arena_bytes, failures, lots_tokens;
    base_status_t status;
    base_error_t error;
} creation_t;

static int64_t live_objects(const base_memory_t *memory)
{
    int64_t live = 0;

    for (int r = 0; r < BASE_RESOURCE_COUNT; r++) {
        if (r != BASE_RESOURCE_THREAD) live += base_memory_live(memory, (base_resource_t)r);
    }
    return live;
}

static base_status_t create(creation_t *t, base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                            const as_topology_t *topology)
{
    const data_model_spec_t spec = make_spec();
    const tr_build_t build = {.spec = &spec,
                              .dtype = KERN_F32,
                              .topology = topology,
                              .tokens_per_trainer = t->tokens,
                              .longest = t->longest,
                              .full = t->full,
                              .optimizer = 1,
                              .num_adapters = t->full ? 0 : 2,
                              .adapters = options,
                              .rank_columns = 8,
                              .recompute = t->recompute,
                              .memory_bytes = t->memory_bytes,
                              .layout_only = t->layout_only};
    tr_lot_options_t lots;
    tr_trainer_t *trainer = NULL;

    const base_status_t st = tr_build_trainer(ctx, dev, group, &build, &lots, &trainer);
    if (st >= 0) {
        t->arena_bytes = base_arena_bytes(trainer->arena);
        t->lots_tokens = lots.plans.tokens_per_trainer;
        t->recompute = trainer->activations->recompute;
    }
    tr_trainer_destroy(trainer);
    return st;
}

static base_status_t creation_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                   void *user)
{
    creation_t *t = user;
    base_memory_t *memory = base_ctx_memory(ctx);
    as_topology_t *topology;

    BASE_TRY(as_topology_create(ctx, AS_IN_PLACE, comm_group_size(group), NULL, 1, &topology));
    const int64_t live = live_objects(memory);
    t->status = BASE_ERR_NOMEM;
    for (int64_t n = 1; t->status == BASE_ERR_NOMEM && n < 2000; n++) {
        if (t->torture) base_memory_fail_at(memory, n);
        t->status = create(t, ctx, dev, group, topology);
        base_memory_fail_at(memory, 0);
        t->failures += t->status == BASE_ERR_NOMEM;
        if (live_objects(memory) != live) t->status = BASE_ERR_INTERNAL;
        (void)base_ctx_error(ctx, &t->error);
        base_ctx_clear_error(ctx);
    }
    as_topology_destroy(topology);
    return BASE_OK;
}

static void run_creation(creation_t *t)
{
    const comm_threads_options_t threads = {.num_ranks = 1, .device = BASE_DEVICE_CPU};
    base_error_t error = {0};

    if (comm_threads_run(&threads, creation_rank, t, &error) < 0) fail_msg("%s", error.text);
}

/* Every allocation that can fail does, once, and nothing is left behind. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int full = 0; full < 2; full++) {
        creation_t t = {.longest = 300, .tokens = 512, .full = full, .torture = 1};
        run_creation(&t);
        if (t.status != BASE_OK) fail_msg("%s: %s", base_status_name(t.status), t.error.text);
        assert_true(t.failures > 40);
    }
}

/* PLAN-01 says how many trainers it would take. */
static void test_too_long(void **state)
{
    creation_t t = {.longest = 1025, .tokens = 600};

    (void)state;
    run_creation(&t);
    assert_int_equal(t.status, BASE_ERR_ARG);
    assert_string_equal(base_message_id(t.error.message), "PLAN-01");
    assert_non_null(strstr(t.error.text, "1025 rows; 1 trainers of 512 rows hold 512; 3 would do"));
    t = (creation_t){.longest = 512, .tokens = 600};
    run_creation(&t);
    assert_int_equal(t.status, BASE_OK);
    assert_int_equal(t.lots_tokens, 512);
}
/* train.recompute: auto takes the least that fits, from the one given on, and the last one where none does. */
static void test_least_recompute(void **state)
{
    int64_t bytes[TR_NUM_RECOMPUTES];

    (void)state;
    for (int r = 0; r < TR_NUM_RECOMPUTES; r++) {
        creation_t t = {
            .longest = 500, .tokens = 1024, .layout_only = 1, .recompute = (tr_recompute_t)r};

        run_creation(&t);
        assert_int_equal(t.status, BASE_OK);
        assert_int_equal(t.recompute, r);
        bytes[r] = t.arena_bytes;
        if (r > 0) assert_true(bytes[r] < bytes[r - 1]);
    }
    for (int r = 0; r < TR_NUM_RECOMPUTES; r++)
        for (int from = 0; from <= r; from++)
            for (int64_t less = 0; less < 2; less++) {
                const int last = r + 1 == TR_NUM_RECOMPUTES;
                creation_t t = {.longest = 500,
                                .tokens = 1024,
                                .layout_only = (int)less,
                                .recompute = (tr_recompute_t)from,
                                .memory_bytes = bytes[r] - less};

                run_creation(&t);
                assert_int_equal(t.status, BASE_OK);
                assert_int_equal(t.recompute, last ? r : r + (int)less);
                assert_int_equal(t.arena_bytes, bytes[t.recompute]);
            }
}

/* The layout alone has the size of the real thing, and asks for no memory of that size. */
static void test_layout_only(void **state)
{
    (void)state;
    for (int full = 0; full < 2; full++) {
        creation_t real = {.longest = 500, .tokens = 1024, .full = full};
        creation_t layout = {.longest = 500, .tokens = 1024, .full = full, .layout_only = 1};

        run_creation(&real);
        run_creation(&layout);
        assert_int_equal(real.status, BASE_OK);
        assert_int_equal(layout.status, BASE_OK);
        assert_true(real.arena_bytes > 100000);
        assert_int_equal(layout.arena_bytes, real.arena_bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_microbatches_fit),
        cmocka_unit_test(test_product_search),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_least_recompute),
        cmocka_unit_test(test_layout_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
