/* Complaint 28: an adapter trained with its documents spread over ranks does not reproduce where it
 * is served. Here documents are longer than a trainer's rows: adapters are trained on them in a pool
 * and in place, exported as PEFT folders and loaded again; on one rank, which holds such a document
 * whole, they then have the logits that the training had. */
#include "tests/support/ctx_fixture.h"

#include "lora/export_peft.h"
#include "lora/peft_import.h"
#include "tests/golden/golden_case.h"
#include "tests/support/model_case.h"
#include "tests/support/train_case.h"

#include <stdlib.h>

#define NUM_DOCUMENTS 4
#define LONGEST       740 /* rows; a trainer has TOKENS, three have 768 */
#define SHORTEST      300
#define TOKENS        256
#define TRAINERS      3
#define VOCAB         97 /* of the golden models */
#define STEPS         8
#define DATASET       "long_documents.h5"

/* One rank and three add up in another order: single precision, as tests/golden allows it. */
#define BOUND 1e-5
/* What the adapter changes is far more than that. */
#define CHANGE 1e-2

static const lora_adapter_options_t adapter = {
    .name = "long", .rank = 8, .scale = 2, .targets = BASE_CONFIG_TARGET_ALL};

typedef struct long_case {
    const char *folder;
    model_documents_t docs;
    int64_t first_row[NUM_DOCUMENTS + 1]; /* of each document in logits */
    lora_layout_t *layout;
    double *values;   /* of the adapter in what runs next */
    train_log_t log;  /* .final: what was trained */
    double *logits;   /* where the next run puts them: rows x VOCAB */
    int64_t rows_set; /* atomic: rows that it has set */
} long_case_t;

static void *must(void *p)
{
    assert_non_null(p);
    return p;
}

static long_case_t open_case(base_ctx_t *ctx, const char *family, char *path)
{
    const model_documents_options_t o = {.seed = 28,
                                         .count = NUM_DOCUMENTS,
                                         .vocab = VOCAB,
                                         .adapters = 1,
                                         .min_rows = SHORTEST,
                                         .max_rows = LONGEST};
    long_case_t c = {.folder = path};
    data_hf_folder_t *folder;
    char name[64];

    (void)snprintf(name, sizeof name, "%s/model", family);
    (void)golden_path(name, path, 1024);
    model_documents_random(&o, &c.docs);
    for (int32_t d = 0; d < NUM_DOCUMENTS; d++) {
        assert_true(c.docs.list[d].rows > TOKENS);
        c.first_row[d + 1] = c.first_row[d] + c.docs.list[d].rows;
    }
    assert_int_equal(train_write_dataset(ctx, DATASET, c.docs.list, NUM_DOCUMENTS, VOCAB), BASE_OK);
    assert_int_equal(data_hf_folder_open(ctx, path, NULL, &folder), BASE_OK);
    assert_int_equal(lora_layout_create(ctx, data_hf_folder_spec(folder), adapter.rank,
                                        adapter.targets, &c.layout),
                     BASE_OK);
    data_hf_folder_close(folder);
    c.values = must(calloc((size_t)c.layout->count, sizeof *c.values));
    c.log.final = must(calloc((size_t)c.layout->count, sizeof *c.log.final));
    return c;
}

static void close_case(long_case_t *c)
{
    free(c->log.final);
    free(c->values);
    lora_layout_destroy(c->layout);
    model_documents_free(&c->docs);
}

static void run(long_case_t *c, int trainers, as_placement_t placement, train_body_fn body)
{
    const double *const values[] = {c->values};
    const train_case_t t = {.folder = c->folder,
                            .dtype = KERN_F32,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = 1,
                            .adapters = &adapter,
                            .values = values,
                            .tokens_per_trainer = trainers == 1 ? 4 * TOKENS : TOKENS,
                            .longest = LONGEST,
                            .num_ranks = trainers + (placement == AS_POOL),
                            .placement = placement,
                            .body = body,
                            .user = c};

    train_case_run(&t);
}

/* ==== training ==== */

static base_status_t train_body(train_rank_t *rank, void *user)
{
    long_case_t *c = user;
    base_config_adapter_t config = train_config(adapter.name, DATASET, STEPS, 2, 1e-2);

    config.rank = adapter.rank;
    return train_run_jobs(rank, &config, 1, &c->log);
}

/* What a user has of it: a PEFT folder, read again. */
static void export_and_import(base_ctx_t *ctx, long_case_t *c)
{
    float *values = must(calloc((size_t)c->layout->count, sizeof *values));
    data_hf_folder_t *base;

    for (int64_t i = 0; i < c->layout->count; i++)
        values[i] = (float)c->log.final[i];
    assert_int_equal(data_hf_folder_open(ctx, c->folder, NULL, &base), BASE_OK);
    const lora_export_t e = {.name = adapter.name,
                             .layout = c->layout,
                             .values = values,
                             .alpha = adapter.scale * adapter.rank,
                             .base_model = c->folder,
                             .base = base};
    assert_int_equal(lora_export_peft(ctx, "long_documents_export", &e), BASE_OK);
    memset(values, 0, (size_t)c->layout->count * sizeof *values);
    assert_int_equal(lora_peft_import(ctx, "long_documents_export", data_hf_folder_spec(base),
                                      c->layout, adapter.scale, values),
                     BASE_OK);
    for (int64_t i = 0; i < c->layout->count; i++)
        c->values[i] = (double)values[i];
    data_hf_folder_close(base);
    free(values);
}

/* ==== logits ==== */

/* Of the rows that this trainer has in one half; other trainers set other rows. */
static base_status_t take_half(long_case_t *c, train_rank_t *rank, const data_batch_t *batch,
                               int half, const double *head)
{
    const int64_t width = rank->spec->hidden;
    tr_trainer_t *t = rank->trainer;
    double *hidden = calloc((size_t)(t->rows->half[half].rows * width) + 1, sizeof *hidden);

    if (hidden == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = tr_trainer_read_hidden(t, (data_half_t)half, hidden);
    for (int32_t p = 0; p < batch->num_pieces && st >= 0; p++) {
        const data_piece_t *piece = &batch->pieces[p];

        if (piece->half != half || piece->trainer != t->index) continue;
        const int64_t document = batch->documents[piece->document].index;
        const int64_t first = c->first_row[document] + piece->doc_row;

        for (int64_t row = 0; row < piece->rows; row++)
            for (int64_t v = 0; v < VOCAB; v++) {
                double sum = 0.0;
                for (int64_t h = 0; h < width; h++)
                    sum += hidden[(piece->local_row + row) * width + h] * head[v * width + h];
                c->logits[(first + row) * VOCAB + v] = sum;
            }
        (void)__atomic_add_fetch(&c->rows_set, piece->rows, __ATOMIC_RELAXED);
    }
    free(hidden);
    return st;
}

static base_status_t take_document(long_case_t *c, train_rank_t *rank, tr_lot_t *lot, int32_t d,
                                   const double *head)
{
    data_document_t document = c->docs.list[d];

    document.index = d;
    tr_lot_begin(lot, d);
    train_lot_add(lot, &document);
    BASE_TRY(train_lot_run(rank, lot, 1));
    for (int half = 0; half < DATA_NUM_HALVES && rank->trainer->index >= 0; half++)
        BASE_TRY(take_half(c, rank, lot->batch, half, head));
    return BASE_OK;
}

static base_status_t logits_body(train_rank_t *rank, void *user)
{
    long_case_t *c = user;
    tr_trainer_t *t = rank->trainer;
    double *head = calloc((size_t)(VOCAB * rank->spec->hidden), sizeof *head);
    tr_lot_t *lot = NULL;
    base_status_t st = head == NULL ? BASE_ERR_NOMEM : BASE_OK;

    if (st >= 0 && t->index >= 0)
        st = tr_weights_read(t->weights, tr_model_weight(t->model, TR_WEIGHT_LM_HEAD, -1),
                             t->stream, head);
    if (st >= 0) st = tr_lot_create(rank->ctx, &rank->lots, NULL, &lot);
    for (int32_t d = 0; d < NUM_DOCUMENTS && st >= 0; d++)
        st = take_document(c, rank, lot, d, head);
    if (st >= 0) st = tr_trainer_sync(t);
    tr_lot_destroy(lot);
    free(head);
    return st;
}

static double *logits_of(long_case_t *c, int trainers, as_placement_t placement)
{
    const int64_t rows = c->first_row[NUM_DOCUMENTS];

    c->logits = must(calloc((size_t)(rows * VOCAB), sizeof *c->logits));
    c->rows_set = 0;
    run(c, trainers, placement, logits_body);
    assert_int_equal(c->rows_set, rows);
    return c->logits;
}

/* ==== the test ==== */

static void check(base_ctx_t *ctx, const char *family, as_placement_t placement)
{
    char path[1024];
    long_case_t c = open_case(ctx, family, path);
    const int64_t elements = c.first_row[NUM_DOCUMENTS] * VOCAB;

    double *base = logits_of(&c, 1, AS_LOCAL); /* values are zero: nothing but the base */
    train_values(c.layout, 100, 0.1, c.values);
    run(&c, TRAINERS, placement, train_body);
    assert_int_equal(c.log.steps, STEPS);
    memcpy(c.values, c.log.final, (size_t)c.layout->count * sizeof *c.values);
    double *trained = logits_of(&c, TRAINERS, placement);
    export_and_import(ctx, &c);
    double *served = logits_of(&c, 1, AS_LOCAL);

    const double off = golden_distance(served, trained, elements);
    const double change = golden_distance(served, base, elements);
    print_message(
        "%s, %s: %.1e from the logits of the training; the adapter changes them by %.2g\n", family,
        placement == AS_POOL ? "pool" : "in place", off, change);
    assert_true(off <= BOUND);
    assert_true(change >= CHANGE);
    free(served);
    free(trained);
    free(base);
    close_case(&c);
}

static void an_adapter_of_long_documents_reproduces_on_one_rank_complaint_28(void **state)
{
    static const char *const families[] = {"llama", "mistral"}; /* full attention; a window */
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (int f = 0; f < 2; f++) {
        check(ctx, families[f], AS_POOL);
        check(ctx, families[f], AS_IN_PLACE);
    }
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_adapter_of_long_documents_reproduces_on_one_rank_complaint_28),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
