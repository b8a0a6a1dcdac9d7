#include "tests/support/ctx_fixture.h"

#include "data/batch.h"

#define MAX_PIECES 16

typedef struct layout {
    int64_t trainer_rows[2];
    data_document_t documents[4];
    int32_t num_pieces;
    data_piece_t pieces[MAX_PIECES];
} layout_t;

/* Two trainers of 256 rows. Document 1 is cut off the grid at trainer 0's edge, document 2 spans
 * both halves, document 3 follows it in pong. The pieces come in no order. */
static layout_t good_layout(void)
{
    return (layout_t){
        .trainer_rows = {256, 256},
        .documents = {{.rows = 60, .adapter = 0, .index = 9, .row_weight = 1.0},
                      {.rows = 300, .adapter = 0, .index = 2, .row_weight = 1.0},
                      {.rows = 500, .adapter = 1, .index = 5, .row_weight = 1.0},
                      {.rows = 100, .adapter = 2, .index = 0, .row_weight = 0.0}},
        .num_pieces = 7,
        .pieces = {{3, DATA_PONG, 1, 0, 100, 116},
                   {2, DATA_PONG, 1, 384, 116, 0},
                   {2, DATA_PING, 1, 0, 128, 104},
                   {1, DATA_PING, 1, 196, 104, 0},
                   {0, DATA_PING, 0, 0, 60, 0},
                   {2, DATA_PONG, 0, 128, 256, 0},
                   {1, DATA_PING, 0, 0, 196, 60}},
    };
}

static base_status_t lay(data_batch_t *batch, const layout_t *layout)
{
    BASE_TRY(data_batch_begin(batch, 7, 2));
    batch->trainer_rows[0] = layout->trainer_rows[0];
    batch->trainer_rows[1] = layout->trainer_rows[1];
    for (int32_t d = 0; d < 4; d++) {
        int32_t index = -1;

        BASE_TRY(data_batch_add_document(batch, &layout->documents[d], &index));
        assert_int_equal(index, d);
    }
    for (int32_t i = 0; i < layout->num_pieces; i++)
        BASE_TRY(data_batch_add_piece(batch, &layout->pieces[i]));
    return data_batch_finish(batch);
}

static data_batch_t *new_batch(base_ctx_t *ctx)
{
    data_batch_t *batch = NULL;

    assert_int_equal(data_batch_create(ctx, 4, MAX_PIECES, 2, &batch), BASE_OK);
    return batch;
}

static void pieces_are_sorted_and_found(void **state)
{
    static const int32_t first[] = {0, 1, 3, 6, 7};
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    const layout_t layout = good_layout();
    const int64_t calls = base_memory_calls(base_ctx_memory(ctx));

    (void)state;
    assert_int_equal(lay(batch, &layout), BASE_OK);
    for (int32_t d = 0; d <= 4; d++)
        assert_int_equal(batch->document_piece[d], first[d]);
    for (int32_t d = 0; d < 4; d++) {
        for (int64_t row = 0; row < batch->documents[d].rows; row++) {
            const data_piece_t *p = data_batch_piece_at(batch, d, row);

            assert_non_null(p);
            assert_int_equal(p->document, d);
            assert_true(p->doc_row <= row && row < p->doc_row + p->rows);
        }
        assert_null(data_batch_piece_at(batch, d, -1));
        assert_null(data_batch_piece_at(batch, d, batch->documents[d].rows));
    }
    assert_null(data_batch_piece_at(batch, -1, 0));
    assert_null(data_batch_piece_at(batch, 4, 0));
    assert_int_equal(data_batch_document_rows(batch), 960);
    assert_int_equal(data_batch_trainer_rows(batch), 1024);
    assert_int_equal(base_memory_calls(base_ctx_memory(ctx)), calls);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static void hash_sees_layout_only(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    layout_t layout = good_layout();

    (void)state;
    assert_int_equal(lay(batch, &layout), BASE_OK);
    const uint64_t hash = data_batch_hash(batch);

    /* Another order of adding, other weights: the same layout. */
    const data_piece_t piece = layout.pieces[0];
    layout.pieces[0] = layout.pieces[6];
    layout.pieces[6] = piece;
    layout.documents[0].row_weight = 0.5;
    assert_int_equal(lay(batch, &layout), BASE_OK);
    assert_true(data_batch_hash(batch) == hash);

    layout.pieces[6].local_row++;
    assert_int_equal(lay(batch, &layout), BASE_OK);
    assert_true(data_batch_hash(batch) != hash);
    layout.pieces[6].local_row--;
    layout.documents[2].index++;
    assert_int_equal(lay(batch, &layout), BASE_OK);
    assert_true(data_batch_hash(batch) != hash);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

/* ==== what finish finds ==== */

static void drop_document(layout_t *l)
{
    l->pieces[0] = l->pieces[--l->num_pieces];
}

static void drop_tail(layout_t *l)
{
    l->pieces[1] = l->pieces[--l->num_pieces];
}

static void drop_middle(layout_t *l)
{
    l->pieces[5] = l->pieces[--l->num_pieces];
}

static void overlap_in_document(layout_t *l)
{
    l->pieces[3] = (data_piece_t){1, DATA_PING, 1, 190, 104, 0};
}

static void piece_twice(layout_t *l)
{
    l->pieces[l->num_pieces++] = l->pieces[4];
}

static void two_on_one_trainer(layout_t *l)
{
    l->pieces[5].rows = 128;
    l->pieces[l->num_pieces++] = (data_piece_t){2, DATA_PONG, 0, 256, 128, 128};
}

static void overlap_on_trainer(layout_t *l)
{
    l->pieces[0].local_row = 115;
}

static void beyond_trainer(layout_t *l)
{
    l->pieces[0].local_row = 160;
}

static void head_off_grid(layout_t *l)
{
    l->pieces[2].rows = 100;
    l->pieces[5].doc_row = 100;
    l->pieces[1] = (data_piece_t){2, DATA_PONG, 1, 356, 144, 0};
}

static void cut_off_grid(layout_t *l)
{
    l->pieces[6].rows = 190;
    l->pieces[3] = (data_piece_t){1, DATA_PING, 1, 190, 110, 0};
}

static void pong_first(layout_t *l)
{
    l->pieces[2].half = DATA_PONG;
    l->pieces[1].half = DATA_PING;
    l->pieces[5].half = DATA_PING;
}

static void odd_trainer(layout_t *l)
{
    l->trainer_rows[1] = 300;
}

static void negative_trainer(layout_t *l)
{
    l->trainer_rows[0] = -128;
}

static const struct {
    void (*edit)(layout_t *);
    const char *text;
} wrong_layouts[] = {
    {drop_document, "microbatch 7: document 3: row 0 of 100 is in no piece"},
    {drop_tail, "document 2: row 384 of 500 is in no piece"},
    {drop_middle, "document 2: row 128 of 500 is in no piece"},
    {overlap_in_document, "document 1: rows [190, 196) are in two pieces"},
    {piece_twice, "document 0: rows [0, 60) are in two pieces"},
    {two_on_one_trainer, "document 2: two pieces in pong on trainer 0, from rows 128 and 256"},
    {overlap_on_trainer, "documents 2 and 3 share row 115 of trainer 1 in pong"},
    {beyond_trainer, "document 3: piece lies at rows [160, 260) of trainer 1, which has 256"},
    {head_off_grid, "document 2: its head in ping has 100 rows, want a multiple of 128"},
    {cut_off_grid,
     "document 1: cut at row 190, neither a multiple of 128 nor at the end of trainer 0's rows"},
    {pong_first, "document 2: row 0 lies in pong, later rows in ping"},
    {odd_trainer, "trainer 1 has 300 rows, want a multiple of 128"},
    {negative_trainer, "trainer 0 has -128 rows"},
};

static void wrong_layouts_are_named(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);

    (void)state;
    for (size_t i = 0; i < sizeof wrong_layouts / sizeof wrong_layouts[0]; i++) {
        layout_t layout = good_layout();

        wrong_layouts[i].edit(&layout);
        assert_int_equal(lay(batch, &layout), BASE_ERR_INTERNAL);
        fixture_expect_error(ctx, BASE_ERR_INTERNAL, "INT-01", wrong_layouts[i].text);
    }
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

/* ==== what begin and add refuse ==== */

static void malformed_pieces_are_refused(void **state)
{
    static const data_piece_t wrong[] = {
        {-1, DATA_PING, 0, 0, 10, 0},
        {1, DATA_PING, 0, 0, 10, 0},
        {0, DATA_PING, -1, 0, 10, 0},
        {0, DATA_PING, 1, 0, 10, 0},
        {0, -1, 0, 0, 10, 0},
        {0, DATA_NUM_HALVES, 0, 0, 10, 0},
        {0, DATA_PING, 0, 0, 0, 0},
        {0, DATA_PING, 0, -1, 10, 0},
        {0, DATA_PING, 0, 91, 10, 0},
        {0, DATA_PING, 0, 0, 101, 0},
        {0, DATA_PING, 0, 0, 10, -1},
        {0, DATA_PING, 0, 0, 10, INT64_MAX},
        {0, DATA_PING, 0, INT64_MAX, 10, 0},
    };
    const data_document_t document = {.rows = 100};
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    int32_t index = -1;

    (void)state;
    assert_int_equal(data_batch_begin(batch, 1, 1), BASE_OK);
    assert_int_equal(data_batch_add_document(batch, &document, &index), BASE_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(data_batch_add_piece(batch, &wrong[i]), BASE_ERR_ARG);
        fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "microbatch 1: ");
    }
    assert_int_equal(batch->num_pieces, 0);
    for (int32_t i = 0; i < MAX_PIECES; i++) {
        const data_piece_t piece = {0, DATA_PING, 0, i, 1, i};

        assert_int_equal(data_batch_add_piece(batch, &piece), BASE_OK);
    }
    assert_int_equal(data_batch_add_piece(batch, &(data_piece_t){.rows = 1}), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "full with 16 pieces");
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static void malformed_documents_are_refused(void **state)
{
    static const data_document_t wrong[] = {
        {.rows = 0},
        {.rows = -5},
        {.rows = DATA_MAX_ROWS + 1},
        {.rows = INT64_MAX},
        {.rows = 5, .adapter = -1},
        {.rows = 5, .index = -1},
    };
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    int32_t index = -1;

    (void)state;
    assert_int_equal(data_batch_begin(batch, 1, 1), BASE_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(data_batch_add_document(batch, &wrong[i], &index), BASE_ERR_ARG);
        fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "microbatch 1: document 0: ");
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(data_batch_add_document(batch, &(data_document_t){.rows = 5}, &index),
                         BASE_OK);
    assert_int_equal(data_batch_add_document(batch, &(data_document_t){.rows = 5}, &index),
                     BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "full with 4 documents");
    assert_int_equal(index, 3);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static void rows_of_all_documents_are_limited(void **state)
{
    const data_document_t large = {.rows = DATA_MAX_ROWS - 3};
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    int32_t index = -1;

    (void)state;
    assert_int_equal(data_batch_begin(batch, 1, 1), BASE_OK);
    assert_int_equal(data_batch_add_document(batch, &large, &index), BASE_OK);
    assert_int_equal(data_batch_add_document(batch, &(data_document_t){.rows = 4}, &index),
                     BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "document 1: 4 rows, want 1 to 3");
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static void calls_in_the_wrong_order_are_refused(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    const layout_t layout = good_layout();
    int32_t index = -1;

    (void)state;
    assert_int_equal(data_batch_add_document(batch, &layout.documents[0], &index), BASE_ERR_STATE);
    fixture_expect_error(ctx, BASE_ERR_STATE, "INT-01", "data_batch_begin");
    assert_int_equal(lay(batch, &layout), BASE_OK);
    assert_int_equal(data_batch_add_document(batch, &layout.documents[0], &index), BASE_ERR_STATE);
    assert_int_equal(data_batch_add_piece(batch, &layout.pieces[0]), BASE_ERR_STATE);
    assert_int_equal(data_batch_finish(batch), BASE_ERR_STATE);
    base_ctx_clear_error(ctx);
    assert_int_equal(data_batch_begin(batch, 1, 0), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "0 trainers, want 1 to 2");
    assert_int_equal(data_batch_begin(batch, 1, 3), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "3 trainers, want 1 to 2");
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static void create_fails_cleanly(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = NULL;
    int64_t n = 0;
    base_status_t st;

    (void)state;
    do {
        base_memory_fail_at(base_ctx_memory(ctx), ++n);
        st = data_batch_create(ctx, 3, 2, 1, &batch);
        if (st == BASE_OK) break;
        assert_int_equal(st, BASE_ERR_NOMEM);
        assert_null(batch);
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "batch");
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    } while (n < 100);
    assert_int_equal(n, 10);
    base_memory_fail_at(base_ctx_memory(ctx), 0);
    data_batch_destroy(batch);
    data_batch_destroy(NULL);
    assert_int_equal(data_batch_create(ctx, 0, 1, 1, &batch), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "0 documents");
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_sorted_and_found),
        cmocka_unit_test(hash_sees_layout_only),
        cmocka_unit_test(wrong_layouts_are_named),
        cmocka_unit_test(malformed_pieces_are_refused),
        cmocka_unit_test(malformed_documents_are_refused),
        cmocka_unit_test(rows_of_all_documents_are_limited),
        cmocka_unit_test(calls_in_the_wrong_order_are_refused),
        cmocka_unit_test(create_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
