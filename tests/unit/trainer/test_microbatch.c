/* What a microbatch promises, on the whole model: pad rows do not count, gradients accumulate,
 * documents do not see each other, placement does not matter, nothing is allocated. All of it on
 * the cpu and on the strict device. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"

#include <stdio.h>

static base_device_kind_t device_of(void **state)
{
    return *(const base_device_kind_t *)*state;
}

static void run_or_fail(const model_case_t *c, model_result_t *r)
{
    const base_status_t st = model_case_run(c, r);

    if (st < 0)
        fail_msg("%s: %s:%d: %s", base_status_name(st), r->error.file, r->error.line,
                 r->error.text);
}

static void expect_same(const model_result_t *a, const model_result_t *b, const char *name)
{
    char what[160];

    if (!model_result_same(a, b, what, sizeof what)) fail_msg("%s: %s", name, what);
}

static void expect_close(const model_result_t *a, const model_result_t *b, double limit,
                         const char *name)
{
    char what[160];
    const double distance = model_result_distance(a, b, what, sizeof what);

    if (!(distance <= limit)) fail_msg("%s: %s, want at most %.3g", name, what, limit);
}

static void random_documents(uint64_t seed, int32_t count, int64_t max_rows,
                             model_documents_t *docs)
{
    model_documents_random(&(model_documents_options_t){.seed = seed,
                                                        .count = count,
                                                        .vocab = 61,
                                                        .adapters = 3,
                                                        .max_rows = max_rows,
                                                        .edges = 1},
                           docs);
}

/* ==== pad rows ==== */

typedef struct pad_layout {
    int64_t trainer_rows;
} pad_layout_t;

/* One trainer, one document after the other in ping from row 0, in halves of the rows that the test
 * says. */
static base_status_t lay_out(void *user, const model_documents_t *documents, int32_t first,
                             int32_t count, int32_t num_trainers, data_batch_t *batch)
{
    const pad_layout_t *layout = user;
    int64_t at = 0;

    BASE_TRY(data_batch_begin(batch, batch->microbatch, num_trainers));
    batch->trainer_rows[0] = layout->trainer_rows;
    for (int32_t d = first; d < first + count; d++) {
        data_piece_t piece = {.rows = documents->list[d].rows, .local_row = at};

        BASE_TRY(data_batch_add_document(batch, &documents->list[d], &piece.document));
        BASE_TRY(data_batch_add_piece(batch, &piece));
        at += piece.rows;
    }
    return data_batch_finish(batch);
}

/* Token 0 is the pad rows' own: whatever its embedding is must not matter, bit for bit. */
static int change_pad_embedding(void *user, const tr_weight_spec_t *spec, double *values)
{
    (void)user;
    if (spec->kind != TR_WEIGHT_EMBEDDING) return 0;
    for (int64_t i = 0; i < spec->cols; i++)
        values[i] = 1e6 + (double)i;
    return 1;
}

static void test_pads_do_not_count(void **state)
{
    model_documents_t docs;
    model_result_t few, many, changed;
    pad_layout_t layout = {.trainer_rows = 256};

    random_documents(3, 2, 100, &docs);
    model_case_t c = model_case_default(&docs);
    c.device = device_of(state);
    c.layout = lay_out;
    c.user = &layout;
    run_or_fail(&c, &few);
    c.change = change_pad_embedding;
    run_or_fail(&c, &changed);
    expect_same(&changed, &few, "another embedding of pad rows");
    c.change = NULL;
    layout.trainer_rows = 640; /* longer sums, of zeros: BLAS may cut them elsewhere */
    run_or_fail(&c, &many);
    assert_true(many.pad_rows == few.pad_rows + 2 * (640 - 256));
    expect_close(&many, &few, 1e-13, "more pad rows");

    /* The pads' own token has no gradient at all. */
    const int32_t embedding = few.num_weights - 3;
    assert_string_equal(few.names[embedding], "embedding");
    for (int64_t i = 0; i < few.hidden_cols; i++)
        assert_true(many.gradients[many.weight_at[embedding] + i] == 0.0);
    model_result_free(&few);
    model_result_free(&many);
    model_result_free(&changed);
    model_documents_free(&docs);
}

/* ==== accumulation ==== */

static void check_accumulation(base_device_kind_t device, kern_dtype_t dtype, double limit)
{
    model_documents_t docs;
    model_result_t together, alone;

    random_documents(11, 8, 260, &docs);
    model_case_t c = model_case_default(&docs);
    c.device = device;
    c.model.dtype = dtype;
    run_or_fail(&c, &together);
    c.documents_per_microbatch = 1;
    run_or_fail(&c, &alone);
    expect_close(&alone, &together, limit, kern_dtype_name(dtype));
    model_result_free(&together);
    model_result_free(&alone);
    model_documents_free(&docs);
}

static void test_accumulation(void **state)
{
    check_accumulation(device_of(state), KERN_F64, 1e-12);
    check_accumulation(device_of(state), KERN_F32, 1e-6);
}

/* ==== isolation ==== */

static void test_isolation(void **state)
{
    model_documents_t docs, other;
    model_result_t before, after;

    random_documents(5, 3, 400, &docs);
    model_documents_copy(&docs, &other);
    for (int64_t i = 0; i < other.list[0].rows; i++)
        other.tokens[i] = 1 + (other.tokens[i] + (int32_t)i) % (other.vocab - 1);
    model_case_t c = model_case_default(&docs);
    c.device = device_of(state);
    c.num_ranks = 2;
    c.model.dtype = KERN_F32;
    run_or_fail(&c, &before);
    c.documents = &other;
    run_or_fail(&c, &after);

    const int64_t cols = before.hidden_cols, from = before.document_at[1] * cols;
    const int64_t to = before.document_at[docs.count] * cols;
    assert_true(model_distance(after.hidden, before.hidden, from) > 1e-3);
    assert_memory_equal(after.hidden + from, before.hidden + from,
                        (size_t)(to - from) * sizeof *before.hidden);
    model_result_free(&before);
    model_result_free(&after);
    model_documents_free(&docs);
    model_documents_free(&other);
}

/* ==== placement ==== */

static void test_placement(void **state)
{
    model_documents_t docs;
    model_result_t oracle, in_place, pool;

    random_documents(9, 4, 700, &docs);
    model_case_t c = model_case_default(&docs);
    c.device = device_of(state);
    c.device_seed = 4;
    run_or_fail(&c, &oracle);
    c.num_ranks = 2;
    run_or_fail(&c, &in_place);
    expect_close(&in_place, &oracle, 1e-11, "two trainers");
    c.placement = AS_POOL;
    c.num_ranks = 3;
    c.retain = 1;
    run_or_fail(&c, &pool);
    expect_same(&pool, &in_place, "a pool of one");
    model_result_free(&oracle);
    model_result_free(&in_place);
    model_result_free(&pool);
    model_documents_free(&docs);
}

/* Placement local: whole documents, unequal trainers, here one of them without any row. */
static void test_local(void **state)
{
    model_documents_t docs;
    model_result_t oracle, local;

    random_documents(9, 2, 300, &docs);
    model_case_t c = model_case_default(&docs);
    c.device = device_of(state);
    run_or_fail(&c, &oracle);
    c.placement = AS_LOCAL;
    c.num_ranks = 3;
    run_or_fail(&c, &local);
    expect_close(&local, &oracle, 1e-11, "local");
    model_result_free(&oracle);
    model_result_free(&local);
    model_documents_free(&docs);
}

/* ==== the rest ==== */

static void test_extra_columns_change_nothing(void **state)
{
    model_documents_t docs;
    model_result_t with, without;

    random_documents(17, 3, 300, &docs);
    model_case_t c = model_case_default(&docs);
    c.device = device_of(state);
    run_or_fail(&c, &with);
    c.model.extra_columns = 0;
    run_or_fail(&c, &without);
    expect_close(&with, &without, 1e-13, "extra columns");
    model_result_free(&with);
    model_result_free(&without);
    model_documents_free(&docs);
}

static void test_no_late_allocation(void **state)
{
    model_documents_t docs;
    model_result_t r;

    random_documents(13, 6, 300, &docs);
    model_case_t c = model_case_default(&docs);
    c.device = device_of(state);
    c.num_ranks = 2;
    c.documents_per_microbatch = 3;
    c.repeat = 4;
    run_or_fail(&c, &r);
    assert_int_equal(r.late_requests, 0);
    model_result_free(&r);
    model_documents_free(&docs);
}

static void test_bad_token(void **state)
{
    model_documents_t docs;
    model_result_t r;

    random_documents(13, 2, 300, &docs);
    model_case_t c = model_case_default(&docs);
    c.device = device_of(state);
    docs.tokens[0] = docs.vocab;
    assert_int_equal(model_case_run(&c, &r), BASE_ERR_ARG);
    assert_non_null(strstr(r.error.text, "row 0: token 61, want 0 to 60"));
    model_result_free(&r);
    model_documents_free(&docs);
}

#define ON_BOTH(test)                                                                              \
    {#test " (cpu)", test, NULL, NULL, &devices[0]},                                               \
    {                                                                                              \
#test " (strict)", test, NULL, NULL, &devices[1]                                           \
    }

int main(void)
{
    base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_pads_do_not_count),
        ON_BOTH(test_accumulation),
        ON_BOTH(test_isolation),
        ON_BOTH(test_placement),
        ON_BOTH(test_local),
        ON_BOTH(test_extra_columns_change_nothing),
        ON_BOTH(test_no_late_allocation),
        ON_BOTH(test_bad_token),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
