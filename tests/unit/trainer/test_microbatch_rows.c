#include "tests/support/ctx_fixture.h"

#include "trainer/model/rows.h"

#define MAX_ROWS 256

/* A device, a stream, a tiny model and rows, committed. */
typedef struct fixture {
    base_ctx_t *ctx;
    base_device_t *dev;
    base_stream_t *stream;
    base_arena_t *arena;
    tr_model_t *model;
    tr_rows_t *rows;
    data_batch_t *batch;
} fixture_t;

static void set_up(fixture_t *f, base_device_kind_t device)
{
    const tr_model_config_t config = {.num_layers = 1,
                                      .hidden = 4,
                                      .intermediate = 4,
                                      .vocab = 1000,
                                      .num_q_heads = 1,
                                      .num_kv_heads = 1,
                                      .head_dim = 4,
                                      .max_positions = 300,
                                      .rms_eps = 1e-5,
                                      .rope_theta = 1e4,
                                      .dtype = KERN_F32};

    f->ctx = fixture_ctx();
    assert_int_equal(base_device_open(f->ctx, device, 0, &f->dev), BASE_OK);
    assert_int_equal(base_stream_create(f->dev, BASE_STREAM_COMPUTE, "compute", &f->stream),
                     BASE_OK);
    assert_int_equal(base_arena_create(f->dev, BASE_MEMORY_DEVICE, "device", &f->arena), BASE_OK);
    assert_int_equal(tr_model_create(f->ctx, &config, &f->model), BASE_OK);
    assert_int_equal(tr_rows_create(f->model, f->arena, f->stream, MAX_ROWS, 2, &f->rows), BASE_OK);
    assert_int_equal(base_arena_commit(f->arena), BASE_OK);
    assert_int_equal(data_batch_create(f->ctx, 4, 8, 2, &f->batch), BASE_OK);
}

static void tear_down(fixture_t *f)
{
    (void)!base_stream_sync(f->stream);
    data_batch_destroy(f->batch);
    tr_rows_destroy(f->rows);
    tr_model_destroy(f->model);
    base_stream_destroy(f->stream);
    base_arena_destroy(f->arena);
    base_device_close(f->dev);
    fixture_ctx_end(f->ctx);
}

/* Document 0 (adapter 1, 200 rows): rows 0-127 end trainer 0, rows 128-199 begin trainer 1, behind
 * document 1 there (adapter 0, 5 rows). All in ping; pong is empty. */
typedef struct documents {
    int32_t tokens[300];
    uint8_t mask[300];
    data_document_t list[2];
} documents_t;

static void make_documents(documents_t *d, int32_t shift)
{
    memset(d, 0, sizeof *d);
    for (int32_t i = 0; i < 300; i++)
        d->tokens[i] = 100 + shift + i;
    d->mask[128] = d->mask[129] = d->mask[199] = 1; /* targets of rows 127, 128, 198 */
    d->list[0] = (data_document_t){.rows = 200,
                                   .adapter = 1,
                                   .index = 7,
                                   .row_weight = 0.5,
                                   .tokens = d->tokens,
                                   .loss_mask = d->mask};
    d->mask[200] = 1; /* document 1: its first token is nobody's target */
    d->mask[204] = 1; /* target of its row 3 */
    d->list[1] = (data_document_t){.rows = 5,
                                   .adapter = 0,
                                   .index = 3,
                                   .row_weight = 0.25,
                                   .tokens = d->tokens + 200,
                                   .loss_mask = d->mask + 200};
}

static void lay_out(fixture_t *f, const documents_t *d)
{
    const data_piece_t pieces[] = {
        {.document = 0, .trainer = 0, .doc_row = 0, .rows = 128, .local_row = 0},
        {.document = 0, .trainer = 1, .doc_row = 128, .rows = 72, .local_row = 5},
        {.document = 1, .trainer = 1, .doc_row = 0, .rows = 5, .local_row = 0},
    };
    int32_t index;

    assert_int_equal(data_batch_begin(f->batch, 1, 2), BASE_OK);
    f->batch->trainer_rows[0] = f->batch->trainer_rows[1] = 128;
    for (int i = 0; i < 2; i++)
        assert_int_equal(data_batch_add_document(f->batch, &d->list[i], &index), BASE_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(data_batch_add_piece(f->batch, &pieces[i]), BASE_OK);
    assert_int_equal(data_batch_finish(f->batch), BASE_OK);
}

static void expect_i32(fixture_t *f, kern_mat_t mat, const int32_t *want, int64_t count)
{
    int32_t got[MAX_ROWS];

    assert_int_equal(mat.cols, count);
    assert_int_equal(base_download(f->stream, got, mat.mem, count * 4), BASE_OK);
    assert_int_equal(base_stream_sync(f->stream), BASE_OK);
    assert_memory_equal(got, want, (size_t)count * sizeof *want);
}

static void expect_weights(fixture_t *f, kern_mat_t mat, const float *want, int64_t count)
{
    float got[MAX_ROWS];

    assert_int_equal(mat.cols, count);
    assert_int_equal(base_download(f->stream, got, mat.mem, count * 4), BASE_OK);
    assert_int_equal(base_stream_sync(f->stream), BASE_OK);
    assert_memory_equal(got, want, (size_t)count * sizeof *want);
}

static void expect_trainer_1(fixture_t *f, int32_t shift)
{
    int32_t tokens[128] = {0}, positions[128] = {0};

    for (int32_t i = 0; i < 5; i++) {
        tokens[i] = 300 + shift + i;
        positions[i] = i;
    }
    for (int32_t i = 0; i < 72; i++) {
        tokens[5 + i] = 228 + shift + i;
        positions[5 + i] = 128 + i;
    }
    expect_i32(f, tr_rows_tokens(f->rows, DATA_PING), tokens, 128);
    expect_i32(f, tr_rows_positions(f->rows, DATA_PING), positions, 128);
    expect_i32(f, tr_rows_supervised(f->rows, DATA_PING), (const int32_t[]){3, 5, 75}, 3);
    expect_i32(f, tr_rows_targets(f->rows, DATA_PING),
               (const int32_t[]){304 + shift, 229 + shift, 299 + shift}, 3);
    expect_i32(f, tr_rows_adapters(f->rows, DATA_PING), (const int32_t[]){0, 1, 1}, 3);
    expect_weights(f, tr_rows_weights(f->rows, DATA_PING), (const float[]){0.25f, 0.5f, 0.5f}, 3);
}

static void test_rows_of_a_trainer(void **state)
{
    fixture_t f;
    documents_t d;
    const int32_t zeros[128] = {0};

    set_up(&f, *(const base_device_kind_t *)*state);
    make_documents(&d, 0);
    lay_out(&f, &d);
    assert_int_equal(tr_rows_install(f.rows, f.batch, 1), BASE_OK);
    expect_trainer_1(&f, 0);
    /* Pong holds pad rows alone. */
    expect_i32(&f, tr_rows_tokens(f.rows, DATA_PONG), zeros, 128);
    assert_int_equal(tr_rows_supervised(f.rows, DATA_PONG).cols, 0);
    tear_down(&f);
}

/* The last row of trainer 0 is supervised by a token that lies on trainer 1. */
static void test_target_on_another_trainer(void **state)
{
    fixture_t f;
    documents_t d;

    set_up(&f, *(const base_device_kind_t *)*state);
    make_documents(&d, 0);
    lay_out(&f, &d);
    assert_int_equal(tr_rows_install(f.rows, f.batch, 0), BASE_OK);
    expect_i32(&f, tr_rows_supervised(f.rows, DATA_PING), (const int32_t[]){127}, 1);
    expect_i32(&f, tr_rows_targets(f.rows, DATA_PING), (const int32_t[]){228}, 1);
    tear_down(&f);
}

/* Without a wait in between: staging is used again only when its upload has passed. Nothing is
 * allocated. */
static void test_many_installs(void **state)
{
    fixture_t f;
    documents_t d[6];

    set_up(&f, *(const base_device_kind_t *)*state);
    const int64_t calls = base_memory_calls(base_ctx_memory(f.ctx));
    for (int32_t i = 0; i < 6; i++) {
        make_documents(&d[i], i);
        lay_out(&f, &d[i]);
        assert_int_equal(tr_rows_install(f.rows, f.batch, 1), BASE_OK);
    }
    assert_int_equal(base_memory_calls(base_ctx_memory(f.ctx)), calls);
    expect_trainer_1(&f, 5);
    tear_down(&f);
}

static void expect_refused(fixture_t *f, const documents_t *d, const char *piece)
{
    lay_out(f, d);
    assert_int_equal(tr_rows_install(f->rows, f->batch, 1), BASE_ERR_ARG);
    fixture_expect_error(f->ctx, BASE_ERR_ARG, "INT-01", piece);
}

static void test_refusals(void **state)
{
    fixture_t f;
    documents_t d;

    set_up(&f, *(const base_device_kind_t *)*state);
    make_documents(&d, 0);
    d.tokens[130] = 1000;
    expect_refused(&f, &d, "document 7 of adapter 1, row 130: token 1000, want 0 to 999");
    make_documents(&d, 0);
    d.tokens[130] = -1;
    expect_refused(&f, &d, "token -1, want 0 to 999");
    make_documents(&d, 0);
    d.list[1].adapter = 2;
    expect_refused(&f, &d,
                   "document 3 of adapter 2 has 5 rows, want at most 300 and adapters below 2");

    make_documents(&d, 0);
    lay_out(&f, &d);
    f.batch->trainer_rows[1] = 384;
    assert_int_equal(tr_rows_install(f.rows, f.batch, 1), BASE_ERR_ARG);
    fixture_expect_error(f.ctx, BASE_ERR_ARG, "INT-01",
                         "trainer 1 has 384 rows in a half, want at most 256");
    tear_down(&f);
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
        ON_BOTH(test_rows_of_a_trainer),
        ON_BOTH(test_target_on_another_trainer),
        ON_BOTH(test_many_installs),
        ON_BOTH(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
