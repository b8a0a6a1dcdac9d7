/* A run waits for no product between microbatches: the search before the first one has had every key that a
 * microbatch's products can have. The CPU has no choice of algorithms; an observer waits in its place where
 * kern_cuda_gemm would, at the first launch of a key. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include "kernels/gemm_key.h"
#include "trainer/model/product_search.h"

#include <string.h>

#define NUM      3
#define VOCAB    40
#define MAX_KEYS 1024

static const data_model_spec_t spec = {.family = DATA_MODEL_LLAMA,
                                       .num_layers = 1,
                                       .hidden = 128,
                                       .intermediate = 184,
                                       .vocab = VOCAB,
                                       .num_q_heads = 4,
                                       .num_kv_heads = 2,
                                       .head_dim = 32,
                                       .max_positions = 512,
                                       .rms_eps = 1e-5,
                                       .softmax_scale = 0.2,
                                       .rope = {.kind = DATA_ROPE_PLAIN, .theta = 10000.0}};

typedef struct products {
    base_observer_t observer;
    base_stream_t *stream;
    const tr_graph_t *graph;
    int searches; /* the search, not the run */
    base_status_t status;
    int count, unknown;
    int bare; /* products of the run that took no adapter along */
    kern_gemm_key_t keys[MAX_KEYS];
} products_t;

static int is_known(const products_t *p, const kern_gemm_key_t *key)
{
    for (int i = 0; i < p->count; i++)
        if (memcmp(&p->keys[i], key, sizeof *key) == 0) return 1;
    return 0;
}

static void launch(products_t *p, const kern_gemm_t *gemm)
{
    const kern_gemm_key_t key = kern_gemm_key_of(gemm);

    if (gemm->c.rows == 0 || is_known(p, &key)) return;
    if (p->count < MAX_KEYS) p->keys[p->count++] = key;
    if (p->searches) return;
    p->unknown++;
    const base_status_t st = base_stream_settle(p->stream);
    if (p->status >= 0) p->status = st;
}

/* The loss makes its products by itself, chunk by chunk. */
static void launch_head(products_t *p, int64_t rows)
{
    const int64_t chunk = p->graph->head->chunk_rows;

    for (int64_t at = 0; at < rows; at += chunk) {
        tr_head_products_t products;

        tr_head_products(p->graph->head, p->graph->weights, rows - at < chunk ? rows - at : chunk,
                         &products);
        launch(p, &products.logits);
        launch(p, &products.dx);
    }
}

static void begin(void *user, const char *work, const void *args)
{
    products_t *p = user;

    if (strcmp(work, "gemm") == 0) {
        const kern_gemm_t *gemm = args;

        p->bare += !p->searches && !gemm->transpose_b &&
                   (gemm->a.cols == spec.hidden || gemm->a.cols == 2 * spec.intermediate);
        launch(p, gemm);
    }
    if (strcmp(work, "loss_linear_ce") == 0)
        launch_head(p, ((const kern_loss_linear_ce_t *)args)->rows.cols);
}

static void end(void *user, const char *work, const void *args)
{
    (void)user;
    (void)work;
    (void)args;
}

/* ==== runs ==== */

typedef struct run {
    int search, num_jobs;
    base_config_adapter_t configs[NUM];
    train_log_t logs[NUM];
    products_t products;
} run_t;

static base_status_t begin_run(train_rank_t *rank, products_t *p, int search)
{
    *p = (products_t){.observer = {.begin = begin, .end = end, .user = p},
                      .stream = rank->trainer->stream,
                      .graph = &rank->trainer->graph,
                      .searches = 1};
    base_ctx_set_observer(rank->ctx, &p->observer);
    const base_status_t st = search ? tr_product_search(p->graph) : BASE_OK;
    p->searches = 0;
    return st;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    run_t *r = user;
    base_status_t st = begin_run(rank, &r->products, r->search);

    if (st >= 0) st = train_run_jobs(rank, r->configs, r->num_jobs, r->logs);
    base_ctx_set_observer(rank->ctx, NULL);
    return st < 0 ? st : r->products.status;
}

/* Documents of 3 to 90 rows: halves of a few rows and of many. */
static void make_datasets(void)
{
    static const char *const paths[NUM] = {"products_0.h5", "products_1.h5", "products_2.h5"};
    base_ctx_t *ctx = fixture_ctx();

    for (int f = 0; f < NUM; f++) {
        model_documents_t docs;
        model_documents_random(&(model_documents_options_t){.seed = 11 + (uint64_t)f,
                                                            .count = 9,
                                                            .vocab = VOCAB,
                                                            .adapters = 1,
                                                            .min_rows = 3,
                                                            .max_rows = 90},
                               &docs);
        assert_int_equal(train_write_dataset(ctx, paths[f], docs.list, docs.count, VOCAB), BASE_OK);
        model_documents_free(&docs);
    }
    fixture_ctx_end(ctx);
}

/* Each adapter makes another number of steps, so that they meet in several ways. */
static void execute(run_t *r, const lora_adapter_options_t *options, int32_t columns,
                    const int steps[NUM])
{
    static const char *const paths[NUM] = {"products_0.h5", "products_1.h5", "products_2.h5"};
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 2,
                            .dtype = KERN_BF16,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = NUM,
                            .adapters = options,
                            .rank_columns = columns,
                            .tokens_per_trainer = 600,
                            .longest = 90,
                            .body = body,
                            .user = r};

    r->num_jobs = NUM;
    for (int j = 0; j < NUM; j++) {
        r->configs[j] = train_config(options[j].name, paths[j], steps[j], 2, 1e-3);
        r->configs[j].rank = options[j].rank;
    }
    /* On its own last documents: evaluations too, without dropout. */
    r->configs[0].eval = (char *)(uintptr_t)paths[1];
    r->configs[0].eval_every_steps = 3;
    train_case_run(&c);
}

static const lora_adapter_options_t mixed[NUM] = {
    {.name = "a", .rank = 16, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "b", .rank = 8, .scale = 1, .dropout = 0.1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "c", .rank = 4, .scale = 1, .targets = BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V}};

static const lora_adapter_options_t without[NUM] = {
    {.name = "a", .rank = 32, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "b", .rank = 16, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "c", .rank = 32, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL}};

/* The last microbatches are of one adapter: with dropout the input gradient takes nothing along then. */
static void test_no_waits(void **state)
{
    static const int orders[][NUM] = {{2, 9, 4}, {9, 2, 4}, {3, 5, 12}};
    static run_t r;

    (void)state;
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        r = (run_t){.search = 1};
        execute(&r, mixed, 0, orders[i]);
        assert_int_equal(r.products.unknown, 0);
        assert_int_equal(r.logs[0].waits.all, 0);
        if (i == 0) assert_true(r.products.bare > 0);
        r = (run_t){.search = 1};
        execute(&r, without, 64, orders[i]); /* adapters take each other's columns */
        assert_int_equal(r.products.unknown, 0);
        assert_int_equal(r.logs[0].waits.all, 0);
    }
}

/* The same run, not searched, has some. */
static void test_waits_are_counted(void **state)
{
    static const int steps[NUM] = {2, 9, 4};
    static run_t r;

    (void)state;
    execute(&r, mixed, 0, steps);
    assert_true(r.products.unknown > 8);
    assert_true(r.logs[0].waits.all > 8 && r.logs[0].waits.all <= r.products.unknown);
}

/* ==== evictions ==== */

/* x and y, without dropout, have 32 columns together. But x, d and e hold all 48 when y comes, and it gets the place of d,
 * which was used longest ago: the highest 16. */
enum { X, WITH_DROPOUT, ALSO_WITH, Y, NUM_EVICTING, EVICTING_COLUMNS = 48 };

static const lora_adapter_options_t evicting[NUM_EVICTING] = {
    [X] = {.name = "x", .rank = 16, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    [WITH_DROPOUT] =
        {.name = "d", .rank = 16, .scale = 1, .dropout = 0.1, .targets = BASE_CONFIG_TARGET_ALL},
    [ALSO_WITH] =
        {.name = "e", .rank = 16, .scale = 1, .dropout = 0.1, .targets = BASE_CONFIG_TARGET_ALL},
    [Y] = {.name = "y", .rank = 16, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL}};

typedef struct eviction {
    model_documents_t documents; /* two */
    products_t products;
    int32_t column; /* of y, at the end */
} eviction_t;

static base_status_t run_microbatch(train_rank_t *rank, const eviction_t *e, tr_lot_t *lot,
                                    int64_t number, int32_t other)
{
    const int32_t adapters[2] = {X, other};

    tr_lot_begin(lot, number);
    for (int d = 0; d < 2; d++) {
        data_document_t document = e->documents.list[d];
        document.adapter = adapters[d];
        train_lot_add(lot, &document);
    }
    return train_lot_run(rank, lot, 0);
}

static base_status_t evict(train_rank_t *rank, void *user)
{
    static const int32_t others[] = {WITH_DROPOUT, ALSO_WITH, Y};
    eviction_t *e = user;
    tr_lot_t *lots[2] = {NULL, NULL};
    base_status_t st = begin_run(rank, &e->products, 1);

    for (int i = 0; i < 2 && st >= 0; i++)
        st = tr_lot_create(rank->ctx, &rank->lots, lots[0], &lots[i]);
    for (int i = 0; i < 3 && st >= 0; i++)
        st = run_microbatch(rank, e, lots[i % 2], i, others[i]);
    const base_status_t synced = base_stream_sync(rank->trainer->stream);
    if (st >= 0) st = synced;
    e->column = rank->trainer->adapters->adapters[Y].column;
    base_ctx_set_observer(rank->ctx, NULL);
    for (int i = 1; i >= 0; i--)
        tr_lot_destroy(lots[i]);
    return st < 0 ? st : e->products.status;
}

/* An adapter without dropout in the place of one with it: the input gradient takes along all columns, more than those
 * without dropout have together. */
static void test_evictions(void **state)
{
    static eviction_t e;
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 2,
                            .dtype = KERN_BF16,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = NUM_EVICTING,
                            .adapters = evicting,
                            .rank_columns = EVICTING_COLUMNS,
                            .tokens_per_trainer = 600,
                            .longest = 90,
                            .body = evict,
                            .user = &e};

    (void)state;
    model_documents_random(
        &(model_documents_options_t){
            .seed = 3, .count = 2, .vocab = VOCAB, .adapters = 1, .min_rows = 40, .max_rows = 90},
        &e.documents);
    train_case_run(&c);
    model_documents_free(&e.documents);
    assert_int_equal(e.column, EVICTING_COLUMNS - evicting[Y].rank);
    assert_int_equal(e.products.unknown, 0);
}

/* ==== steps of K ==== */

static void test_depths(void **state)
{
    (void)state;
    for (int64_t k = 1; k < 70000; k++) {
        const int64_t bound = kern_gemm_depth_bound(k), below = kern_gemm_depth_below(k);

        assert_true(bound >= k && kern_gemm_depth_bound(bound) == bound);
        assert_true(bound <= k + k / 8 || bound - k < 64);
        assert_true(below < k && kern_gemm_depth_bound(below + 1) == bound);
        if (below > 0) assert_true(kern_gemm_depth_bound(below) < bound);
    }
    assert_int_equal(kern_gemm_depth_bound(4096), 4096);
    assert_int_equal(kern_gemm_depth_bound(4096 + 16), kern_gemm_depth_bound(4096 + 192));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_waits),
        cmocka_unit_test(test_waits_are_counted),
        cmocka_unit_test(test_evictions),
        cmocka_unit_test(test_depths),
    };

    make_datasets();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
