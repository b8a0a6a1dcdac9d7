/* Documents of a microbatch do not see each other (users' complaint 3), and the positions of each
 * begin at 0 wherever it lies (complaint 4), with adapters, on a real (golden) model. */
#include "tests/support/ctx_fixture.h"

#include "tests/golden/golden_case.h"
#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include <stdlib.h>

#define NUM     3
#define VOCAB   97
#define LONGEST 300

/* Different ranks, targets and seeds; the last has dropout. */
static const lora_adapter_options_t all_options[NUM] = {
    {.name = "a", .rank = 4, .scale = 1.5, .targets = BASE_CONFIG_TARGET_ALL, .seed = 1},
    {.name = "b",
     .rank = 8,
     .scale = 2.0,
     .targets = BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V | BASE_CONFIG_TARGET_DOWN,
     .seed = 2},
    {.name = "c",
     .rank = 3,
     .scale = 1.0,
     .dropout = 0.2,
     .targets = BASE_CONFIG_TARGET_ALL & ~(uint32_t)BASE_CONFIG_TARGET_O,
     .seed = 3}};

static const char *model_path(char path[1024])
{
    return golden_path("llama/model", path, 1024);
}

static int64_t parameters(int32_t adapter)
{
    base_ctx_t *ctx = fixture_ctx();
    data_hf_folder_t *folder;
    lora_layout_t *layout;
    char path[1024];

    assert_int_equal(data_hf_folder_open(ctx, model_path(path), NULL, &folder), BASE_OK);
    assert_int_equal(lora_layout_create(ctx, data_hf_folder_spec(folder), all_options[adapter].rank,
                                        all_options[adapter].targets, &layout),
                     BASE_OK);
    const int64_t count = layout->count;
    lora_layout_destroy(layout);
    data_hf_folder_close(folder);
    fixture_ctx_end(ctx);
    return count;
}

typedef struct isolation {
    model_documents_t documents, changed;
    double *hidden[3]; /* all rows, in document order, of three runs */
    double *gradient[3][NUM];
    double losses[3][NUM];
    int64_t at[16];
    int wrong_positions, pieces_not_at_0;
} isolation_t;

static base_status_t read_run(train_rank_t *rank, isolation_t *r, const data_batch_t *batch,
                              int run)
{
    const int64_t width = rank->spec->hidden;
    tr_trainer_t *t = rank->trainer;

    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        const int64_t rows = t->rows->half[half].rows;
        double *hidden = calloc((size_t)(rows * width) + 1, sizeof *hidden);
        int32_t *positions = calloc((size_t)rows + 1, sizeof *positions);
        const kern_mat_t mat = tr_rows_positions(t->rows, (data_half_t)half);
        base_status_t st = tr_trainer_read_hidden(t, (data_half_t)half, hidden);

        if (st >= 0)
            st = base_download(t->stream, positions, mat.mem, rows * (int64_t)sizeof *positions);
        if (st >= 0) st = base_stream_sync(t->stream);
        for (int32_t p = 0; p < batch->num_pieces && st >= 0; p++) {
            const data_piece_t *piece = &batch->pieces[p];

            if (piece->half != half) continue;
            memcpy(r->hidden[run] +
                       (r->at[batch->documents[piece->document].index] + piece->doc_row) * width,
                   hidden + piece->local_row * width,
                   (size_t)(piece->rows * width) * sizeof *hidden);
            r->pieces_not_at_0 += piece->doc_row == 0 && piece->local_row > 0;
            for (int64_t i = 0; i < piece->rows; i++)
                r->wrong_positions += positions[piece->local_row + i] != piece->doc_row + i;
        }
        free(positions);
        free(hidden);
        BASE_TRY(st);
    }
    BASE_TRY(tr_gradients_read_losses(t, r->losses[run]));
    for (int32_t a = 0; a < NUM; a++)
        BASE_TRY(tr_gradients_read_adapter(t, a, r->gradient[run][a]));
    return BASE_OK;
}

static base_status_t run_documents(train_rank_t *rank, isolation_t *r, tr_lot_t *lot, int run,
                                   const model_documents_t *documents, int32_t first, int32_t count)
{
    BASE_TRY(tr_gradients_zero(rank->trainer));
    tr_lot_begin(lot, 10 * run + first);
    for (int32_t d = first; d < first + count; d++)
        train_lot_add(lot, &documents->list[d]);
    BASE_TRY(train_lot_run(rank, lot, 0));
    return read_run(rank, r, lot->batch, run);
}

/* Run 0: all; run 1: all, one of them with other tokens; run 2: each alone. */
static base_status_t isolation_body(train_rank_t *rank, void *user)
{
    isolation_t *r = user;
    tr_lot_t *lot;
    base_status_t st;

    BASE_TRY(tr_lot_create(rank->ctx, &rank->lots, NULL, &lot));
    st = run_documents(rank, r, lot, 0, &r->documents, 0, r->documents.count);
    if (st >= 0) st = run_documents(rank, r, lot, 1, &r->changed, 0, r->changed.count);
    for (int32_t d = 0; d < r->documents.count && st >= 0; d++)
        st = run_documents(rank, r, lot, 2, &r->documents, d, 1);
    if (st >= 0) st = tr_trainer_sync(rank->trainer);
    tr_lot_destroy(lot);
    return st;
}

#define CHANGED 3 /* the document with other tokens */

static void make_isolation(isolation_t *r)
{
    int64_t rows = 0;

    memset(r, 0, sizeof *r);
    model_documents_random(&(model_documents_options_t){.seed = 12,
                                                        .count = 9,
                                                        .vocab = VOCAB,
                                                        .adapters = NUM,
                                                        .min_rows = 5,
                                                        .max_rows = 180},
                           &r->documents);
    for (int32_t d = 0; d < r->documents.count; d++) {
        r->documents.list[d].adapter = d % NUM;
        r->at[d] = rows;
        rows += r->documents.list[d].rows;
    }
    model_documents_copy(&r->documents, &r->changed);
    const data_document_t *doc = &r->changed.list[CHANGED];
    for (int64_t i = 0; i < doc->rows; i++) {
        int32_t *token = &r->changed.tokens[doc->tokens - r->changed.tokens + i];
        *token = 1 + (*token + 5) % (VOCAB - 1);
    }
    for (int run = 0; run < 3; run++) {
        r->hidden[run] = calloc((size_t)rows * 64, sizeof(double));
        for (int32_t a = 0; a < NUM; a++)
            r->gradient[run][a] = calloc((size_t)parameters(a), sizeof(double));
    }
}

static void run_isolation(isolation_t *r)
{
    char path[1024];
    const train_case_t c = {.folder = model_path(path),
                            .dtype = KERN_F32,
                            .num_adapters = NUM,
                            .adapters = all_options,
                            .tokens_per_trainer = 2048,
                            .longest = LONGEST,
                            .body = isolation_body,
                            .user = r};

    make_isolation(r);
    train_case_run(&c);
}

static void free_isolation(isolation_t *r)
{
    for (int run = 0; run < 3; run++) {
        free(r->hidden[run]);
        for (int32_t a = 0; a < NUM; a++)
            free(r->gradient[run][a]);
    }
    model_documents_free(&r->documents);
    model_documents_free(&r->changed);
}

/* Users' complaint 3: other tokens in one document change no bit of another's hidden states, nor of
 * the gradients and losses of the adapters that it does not belong to. */
static void test_documents_isolated_complaint_3(void **state)
{
    const int64_t width = 48;
    isolation_t r;

    (void)state;
    run_isolation(&r);
    for (int32_t d = 0; d < r.documents.count; d++) {
        const double *a = r.hidden[0] + r.at[d] * width, *b = r.hidden[1] + r.at[d] * width;
        const size_t bytes = (size_t)(r.documents.list[d].rows * width) * sizeof *a;

        assert_int_equal(memcmp(a, b, bytes) == 0, d != CHANGED);
        /* Alone the products have other shapes, and so other roundings. */
        assert_true(model_distance(r.hidden[2] + r.at[d] * width, a,
                                   r.documents.list[d].rows * width) <= 2e-6);
    }
    for (int32_t a = 0; a < NUM; a++) {
        const int same = a != r.documents.list[CHANGED].adapter;
        const size_t bytes = (size_t)parameters(a) * sizeof(double);

        assert_int_equal(memcmp(r.gradient[0][a], r.gradient[1][a], bytes) == 0, same);
        assert_int_equal(r.losses[0][a] == r.losses[1][a], same);
    }
    free_isolation(&r);
}

/* Users' complaint 4, apart from isolation: the index into the table of cos and sin of a document's
 * row is its number in the document, wherever the document lies. */
static void test_positions_restart_complaint_4(void **state)
{
    isolation_t r;

    (void)state;
    run_isolation(&r);
    assert_true(r.pieces_not_at_0 > 4);
    assert_int_equal(r.wrong_positions, 0);
    free_isolation(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents_isolated_complaint_3),
        cmocka_unit_test(test_positions_restart_complaint_4),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
