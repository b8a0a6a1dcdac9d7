/* The gradients of adapters in the whole model against central differences of the loss, in double:
 * sampled elements of every A and B. Two adapters of other rank, other targets and other scale
 * share the microbatch; one of them has dropout, whose mask is a pure function and so stands still.
 * The model has all switches on: q and k norm, biases everywhere, a tied head, a layer with a
 * window, yarn's factor on cos and sin, a head dim that is not hidden / heads. A document spans
 * ping and pong.
 *
 * The quotients of steps h and h/2 are combined (Richardson): what is left is of order h^4, 1e-12
 * of a gradient of order 1, and rounding of the loss, 1e-15 / h. Elements are compared within 1e-7
 * of the adapter's largest gradient of that matrix. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include <math.h>
#include <stdlib.h>

#define NUM       2
#define STEP      1e-3
#define TOLERANCE 1e-7
#define LONGEST   200
#define SAMPLES   2 /* of each matrix */

typedef struct result {
    lora_layout_t *layout[NUM];
    double *values[NUM], *gradient[NUM];
    double loss[NUM];
    model_documents_t documents;
    const char *fault; /* first */
    char text[256];
    int64_t checked, spans;
} result_t;

static data_model_spec_t make_spec(void)
{
    data_model_spec_t spec = {.family = DATA_MODEL_QWEN3,
                              .num_layers = 2,
                              .hidden = 22,
                              .intermediate = 30,
                              .vocab = 53,
                              .num_q_heads = 4,
                              .num_kv_heads = 2,
                              .head_dim = 6,
                              .max_positions = 4096,
                              .rms_eps = 1e-5,
                              .softmax_scale = 0.5,
                              .rope = {.kind = DATA_ROPE_YARN,
                                       .theta = 10000.0,
                                       .factor = 4.0,
                                       .original_max_positions = 64,
                                       .beta_fast = 32.0,
                                       .beta_slow = 1.0,
                                       .attention_factor = 1.138,
                                       .truncate = true},
                              .tied = true,
                              .qkv_bias = true,
                              .o_bias = true,
                              .mlp_bias = true,
                              .qk_norm = true,
                              .layer_window = {40, 0}};

    return spec;
}

/* Forward, loss and backward of the same microbatch with the adapters' present masters. The number
 * of the microbatch ascends; nothing depends on it. */
static base_status_t run(train_rank_t *rank, result_t *r, tr_lot_t *const lots[2],
                         int64_t *microbatch)
{
    tr_lot_t *lot = lots[*microbatch % 2];
    double losses[NUM];

    tr_lot_begin(lot, (*microbatch)++);
    for (int32_t d = 0; d < r->documents.count; d++)
        train_lot_add(lot, &r->documents.list[d]);
    BASE_TRY(tr_gradients_zero(rank->trainer));
    BASE_TRY(train_lot_run(rank, lot, 0));
    BASE_TRY(tr_gradients_reduce(rank->trainer));
    BASE_TRY(tr_gradients_read_losses(rank->trainer, losses));
    memcpy(r->loss, losses, sizeof losses);
    r->spans = 0;
    for (int32_t d = 0; d < lot->batch->num_documents; d++)
        r->spans += lot->batch->document_piece[d + 1] - lot->batch->document_piece[d] > 1;
    return BASE_OK;
}

static base_status_t loss_at(train_rank_t *rank, result_t *r, tr_lot_t *const lots[2],
                             int64_t *microbatch, int32_t a, int64_t i, double step, double *loss)
{
    const double kept = r->values[a][i];

    r->values[a][i] = kept + step;
    base_status_t st =
        lora_adapter_set_write(rank->trainer->adapters, a, rank->trainer->stream, r->values[a]);
    if (st >= 0) st = run(rank, r, lots, microbatch);
    r->values[a][i] = kept;
    *loss = r->loss[a];
    return st;
}

static base_status_t check_element(train_rank_t *rank, result_t *r, tr_lot_t *const lots[2],
                                   int64_t *microbatch, int32_t a, int64_t i, double largest)
{
    double at[4];
    static const double steps[4] = {STEP, -STEP, STEP / 2, -STEP / 2};

    for (int k = 0; k < 4; k++)
        BASE_TRY(loss_at(rank, r, lots, microbatch, a, i, steps[k], &at[k]));
    const double coarse = (at[0] - at[1]) / (2 * STEP), fine = (at[2] - at[3]) / STEP;
    const double numeric = (4 * fine - coarse) / 3, exact = r->gradient[a][i];

    r->checked++;
    if (!(fabs(numeric - exact) <= TOLERANCE * largest) && r->fault == NULL) {
        (void)snprintf(r->text, sizeof r->text,
                       "adapter %d element %lld: gradient %.12g, difference %.12g, largest %.3g", a,
                       (long long)i, exact, numeric, largest);
        r->fault = r->text;
    }
    return BASE_OK;
}

static base_status_t check_matrix(train_rank_t *rank, result_t *r, tr_lot_t *const lots[2],
                                  int64_t *microbatch, int32_t a, int64_t first, int64_t count)
{
    double largest = 0.0;

    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(r->gradient[a][first + i]));
    if (!(largest > 1e-6) && r->fault == NULL) r->fault = "a gradient is zero";
    for (int64_t k = 0; k < SAMPLES; k++) {
        const int64_t i = first + (k * 2654435761 + 7 * first + 3) % count;
        BASE_TRY(check_element(rank, r, lots, microbatch, a, i, largest));
    }
    return lora_adapter_set_write(rank->trainer->adapters, a, rank->trainer->stream, r->values[a]);
}

static base_status_t check_all(train_rank_t *rank, result_t *r, tr_lot_t *const lots[2])
{
    int64_t microbatch = 0;

    BASE_TRY(run(rank, r, lots, &microbatch));
    for (int32_t a = 0; a < NUM; a++)
        BASE_TRY(tr_gradients_read_adapter(rank->trainer, a, r->gradient[a]));
    for (int32_t a = 0; a < NUM; a++) {
        const lora_layout_t *layout = r->layout[a];
        for (int64_t m = 0; m < layout->num_modules; m++) {
            const lora_module_t *module = &layout->modules[m];
            BASE_TRY(
                check_matrix(rank, r, lots, &microbatch, a, module->a, layout->rank * module->in));
            BASE_TRY(
                check_matrix(rank, r, lots, &microbatch, a, module->b, layout->rank * module->out));
        }
    }
    return BASE_OK;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    tr_lot_t *lots[2] = {NULL, NULL};
    base_status_t st = BASE_OK;

    for (int i = 0; i < 2 && st >= 0; i++)
        st = tr_lot_create(rank->ctx, &rank->lots, lots[0], &lots[i]);
    if (st >= 0) st = check_all(rank, user, lots);
    if (st >= 0) st = tr_trainer_sync(rank->trainer);
    for (int i = 0; i < 2; i++)
        tr_lot_destroy(lots[i]);
    return st;
}

static void make_adapters(base_ctx_t *ctx, const data_model_spec_t *spec,
                          const lora_adapter_options_t *options, result_t *r)
{
    for (int32_t a = 0; a < NUM; a++) {
        assert_int_equal(
            lora_layout_create(ctx, spec, options[a].rank, options[a].targets, &r->layout[a]),
            BASE_OK);
        r->values[a] = calloc((size_t)r->layout[a]->count, sizeof *r->values[a]);
        r->gradient[a] = calloc((size_t)r->layout[a]->count, sizeof *r->gradient[a]);
        assert_true(r->values[a] != NULL && r->gradient[a] != NULL);
        train_values(r->layout[a], 40 + (uint64_t)a, 0.3, r->values[a]);
    }
}

/* The first one is longer than the others together: it spans both halves, with its tail first in
 * pong or behind the other adapter's. */
static void make_documents(int64_t vocab, int32_t spanning, model_documents_t *documents)
{
    static const int64_t rows[] = {LONGEST, 30, 25, 60};

    model_documents_random(&(model_documents_options_t){.seed = 5,
                                                        .count = 4,
                                                        .vocab = (int32_t)vocab,
                                                        .adapters = NUM,
                                                        .min_rows = LONGEST,
                                                        .max_rows = LONGEST},
                           documents);
    for (int32_t d = 0; d < documents->count; d++) {
        documents->list[d].rows = rows[d];
        documents->list[d].adapter = d % 2 == 0 ? spanning : !spanning;
        documents->list[d].row_weight = 1.0 / 100;
    }
}

static void check_case(int32_t spanning)
{
    static const lora_adapter_options_t options[NUM] = {
        {.name = "plain",
         .rank = 3,
         .scale = 1.7,
         .targets = BASE_CONFIG_TARGET_ALL & ~(uint32_t)BASE_CONFIG_TARGET_K,
         .seed = 1},
        {.name = "masked",
         .rank = 5,
         .scale = 0.6,
         .dropout = 0.3,
         .targets = BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_K | BASE_CONFIG_TARGET_V |
                    BASE_CONFIG_TARGET_UP | BASE_CONFIG_TARGET_DOWN,
         .seed = 2}};
    const data_model_spec_t spec = make_spec();
    base_ctx_t *ctx = fixture_ctx();
    result_t r = {0};

    make_adapters(ctx, &spec, options, &r);
    make_documents(spec.vocab, spanning, &r.documents);
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 3,
                            .dtype = KERN_F64,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = NUM,
                            .adapters = options,
                            .values = (const double *const *)r.values,
                            .tokens_per_trainer = 1024,
                            .longest = LONGEST,
                            .body = body,
                            .user = &r};
    train_case_run(&c);
    if (r.fault != NULL) fail_msg("%s", r.fault);
    assert_true(r.spans > 0);
    /* 2 layers, A and B of 6 and of 5 modules */
    assert_int_equal(r.checked, SAMPLES * 2 * 2 * (6 + 5));
    for (int32_t a = 0; a < NUM; a++) {
        free(r.values[a]);
        free(r.gradient[a]);
        lora_layout_destroy(r.layout[a]);
    }
    model_documents_free(&r.documents);
    fixture_ctx_end(ctx);
}

static void test_plain_spans(void **state)
{
    (void)state;
    check_case(0);
}

static void test_masked_spans(void **state)
{
    (void)state;
    check_case(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plain_spans),
                                       cmocka_unit_test(test_masked_spans)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
