#include "tests/support/ctx_fixture.h"

#include "base/philox.h"
#include "data/batch.h"
#include "lora/pack.h"

#define MAX_DOCUMENTS 64
#define MAX_TRAINERS  5
#define MAX_PIECES    (MAX_DOCUMENTS + 2 * MAX_TRAINERS)

typedef struct rng {
    uint32_t round, next;
} rng_t;

static int64_t draw(rng_t *rng, int64_t low, int64_t high)
{
    const base_philox_t r = base_philox(base_philox_key(11), 0, 0, rng->round, rng->next++);

    return low + (int64_t)base_philox_below(r.word[0], r.word[1], (uint64_t)(high - low + 1));
}

/* Whose rows fill the room to the last when each one's are rounded up. */
static int32_t draw_aligned(rng_t *rng, int64_t room, data_document_t *documents)
{
    int32_t n = 0;

    for (; room > 0; n++) {
        const int64_t most = room / DATA_ROW_ALIGN;
        const int64_t units = n == MAX_DOCUMENTS - 1 ? most : draw(rng, 1, most);
        const int64_t less = draw(rng, 0, 1) == 0 ? 0 : draw(rng, 0, DATA_ROW_ALIGN - 1);

        documents[n] = (data_document_t){.rows = units * DATA_ROW_ALIGN - less, .index = n};
        documents[n].supervised = draw(rng, 1, documents[n].rows);
        room -= units * DATA_ROW_ALIGN;
    }
    return n;
}

/* Documents of together at most `room` rows, none longer than `longest`; at least one. Half of the
 * rounds begin with a document of most of the room. */
static int32_t draw_documents(rng_t *rng, int64_t room, int64_t longest, data_document_t *documents)
{
    static const int64_t edges[] = {1, 127, 128, 129, 256};
    const int32_t wanted = (int32_t)draw(rng, 1, MAX_DOCUMENTS);
    int32_t n = 0;

    while (n < wanted) {
        int64_t rows = draw(rng, 0, 3) == 0 ? edges[draw(rng, 0, 4)] : draw(rng, 1, 2000);

        if (n == 0 && rng->round % 2 == 0) rows = draw(rng, room / 2, room);
        if (rows > longest) rows = longest;
        if (rows > room) {
            if (n > 0) break;
            rows = room;
        }
        documents[n] = (data_document_t){.rows = rows,
                                         .adapter = (int32_t)draw(rng, 0, 3),
                                         .supervised = rng->round % 3 == 0 ? 0 : draw(rng, 1, rows),
                                         .index = draw(rng, 0, 1000),
                                         .row_weight = 1.0};
        room -= rows;
        n++;
    }
    return n;
}

static data_batch_t *new_batch(base_ctx_t *ctx)
{
    data_batch_t *batch = NULL;

    assert_int_equal(data_batch_create(ctx, MAX_DOCUMENTS, MAX_PIECES, MAX_TRAINERS, &batch),
                     BASE_OK);
    return batch;
}

static int64_t half_rows(const data_batch_t *batch, int32_t half, int32_t first, int32_t count)
{
    int64_t rows = 0;

    for (int32_t i = 0; i < batch->num_pieces; i++) {
        const data_piece_t *p = &batch->pieces[i];

        if (p->half == half && p->trainer >= first && p->trainer < first + count) rows += p->rows;
    }
    return rows;
}

/* Follows the stream of trainers [first, first + count) row by row: documents without gaps, in
 * ascending adapter (and order given, where nothing is known of supervised rows), pads at the end. Marks the rows it meets in seen[d]. */
static void walk_stream(const data_batch_t *batch, int32_t half, int32_t first, int32_t count,
                        int64_t *seen)
{
    const int64_t m = batch->trainer_rows[first];
    const int64_t used = half_rows(batch, half, first, count);
    const data_piece_t *last = NULL;

    for (int64_t row = 0; row < used;) {
        const data_piece_t *here = NULL;

        for (int32_t i = 0; i < batch->num_pieces; i++) {
            const data_piece_t *p = &batch->pieces[i];

            if (p->half == half && (p->trainer - first) * m + p->local_row == row &&
                p->trainer >= first && p->trainer < first + count)
                here = p;
        }
        assert_non_null(here);
        if (last != NULL && last->document != here->document) {
            const int32_t a = batch->documents[last->document].adapter;
            const int32_t b = batch->documents[here->document].adapter;

            const int known = batch->documents[0].supervised > 0; /* then in another order */

            assert_true(a < b || (a == b && (known || last->document < here->document)));
        }
        assert_int_equal(here->doc_row, seen[here->document]);
        seen[here->document] += here->rows;
        row += here->rows;
        last = here;
    }
}

/* What holds for trainers that share their streams. Returns how many documents span. */
static int32_t check_group(const data_batch_t *batch, int32_t first, int32_t count,
                           int64_t tokens_per_trainer, int64_t *seen)
{
    const int64_t ping = half_rows(batch, DATA_PING, first, count);
    const int64_t pong = half_rows(batch, DATA_PONG, first, count);
    const int64_t fuller = ping > pong ? ping : pong;
    const int64_t m = fuller == 0 ? 128 : ((fuller + count - 1) / count + 127) / 128 * 128;
    int64_t longest = 0;
    int32_t spanning = 0;

    for (int32_t t = first; t < first + count; t++)
        assert_int_equal(batch->trainer_rows[t], m);
    assert_true(2 * m <= tokens_per_trainer);
    walk_stream(batch, DATA_PING, first, count, seen);
    for (int32_t d = 0; d < batch->num_documents; d++) {
        const data_piece_t *begin = &batch->pieces[batch->document_piece[d]];
        const data_piece_t *end = &batch->pieces[batch->document_piece[d + 1] - 1];

        if (begin->trainer < first || begin->trainer >= first + count) continue;
        if (batch->documents[d].rows > longest) longest = batch->documents[d].rows;
        if (begin->half == end->half) continue;
        assert_int_equal(seen[d] % DATA_ROW_ALIGN, 0);
        spanning++;
    }
    walk_stream(batch, DATA_PONG, first, count, seen);
    assert_true(spanning <= 1);

    /* A long document levels the halves to the grid; else the longest is the most they differ. */
    const int64_t differ = ping > pong ? ping - pong : pong - ping;
    assert_true(differ <= (2 * longest > ping + pong ? DATA_ROW_ALIGN : longest));
    assert_true(2 * count * m - ping - pong <= differ + 2 * DATA_ROW_ALIGN * (int64_t)count);
    return spanning;
}

static void check_layout(const lora_pack_t *pack, const data_batch_t *batch, int32_t *spanning)
{
    int64_t seen[MAX_DOCUMENTS] = {0};

    assert_int_equal(batch->microbatch, pack->microbatch);
    assert_int_equal(batch->num_documents, pack->num_documents);
    if (!pack->whole_documents) {
        *spanning += check_group(batch, 0, pack->num_trainers, pack->tokens_per_trainer, seen);
    } else {
        for (int32_t t = 0; t < pack->num_trainers; t++)
            *spanning += check_group(batch, t, 1, pack->tokens_per_trainer, seen);
        for (int32_t i = 1; i < batch->num_pieces; i++) {
            if (batch->pieces[i].document == batch->pieces[i - 1].document)
                assert_int_equal(batch->pieces[i].trainer, batch->pieces[i - 1].trainer);
        }
    }
    for (int32_t d = 0; d < batch->num_documents; d++) {
        assert_int_equal(seen[d], pack->documents[d].rows);
        assert_int_equal(batch->documents[d].index, pack->documents[d].index);
    }
}

static void random_documents_are_packed(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    const int64_t calls = base_memory_calls(base_ctx_memory(ctx));
    int32_t spanning[2] = {0, 0};

    (void)state;
    for (uint32_t round = 0; round < 600; round++) {
        data_document_t documents[MAX_DOCUMENTS];
        rng_t rng = {.round = round};
        lora_pack_t pack = {.microbatch = round,
                            .num_trainers = (int32_t)draw(&rng, 1, MAX_TRAINERS),
                            .tokens_per_trainer = 256 * draw(&rng, 2, 12),
                            .whole_documents = round % 3 == 0,
                            .documents = documents};
        const int64_t rows = pack.num_trainers * pack.tokens_per_trainer;

        /* The promises of lora/pack.h, filled to the last row; whole documents need more air. */
        if (pack.whole_documents)
            pack.num_documents = draw_documents(&rng, rows / 2 - 128 * (int64_t)pack.num_trainers,
                                                pack.tokens_per_trainer / 2, documents);
        else if (round % 3 == 1)
            pack.num_documents = draw_documents(&rng, rows - DATA_ROW_ALIGN + 1, rows, documents);
        else
            pack.num_documents = draw_aligned(&rng, rows, documents);
        assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
        check_layout(&pack, batch, &spanning[pack.whole_documents]);

        const uint64_t hash = data_batch_hash(batch);
        assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
        assert_true(data_batch_hash(batch) == hash);
    }
    /* The cases that matter were met. */
    assert_true(spanning[0] > 100);
    assert_true(spanning[1] > 100);
    assert_int_equal(base_memory_calls(base_ctx_memory(ctx)), calls);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static lora_pack_t pack_of(int32_t num_trainers, int64_t tokens_per_trainer, int32_t num_documents,
                           const data_document_t *documents)
{
    return (lora_pack_t){.microbatch = 5,
                         .num_trainers = num_trainers,
                         .tokens_per_trainer = tokens_per_trainer,
                         .num_documents = num_documents,
                         .documents = documents};
}

static void one_document_may_fill_everything(void **state)
{
    const data_document_t document = {.rows = 3 * 512};
    const lora_pack_t pack = pack_of(3, 512, 1, &document);
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    int32_t spanning = 0;

    (void)state;
    assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
    check_layout(&pack, batch, &spanning);
    assert_int_equal(spanning, 1);
    assert_int_equal(data_batch_trainer_rows(batch), 3 * 512);
    assert_int_equal(batch->num_pieces, 6);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

/* Three documents of which no two fit into a half: the one left over spans. */
static void document_that_fits_no_half_spans(void **state)
{
    const data_document_t documents[] = {{.rows = 600}, {.rows = 601}, {.rows = 602}};
    lora_pack_t pack = pack_of(1, 2048, 3, documents);
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);

    (void)state;
    for (pack.whole_documents = 0; pack.whole_documents < 2; pack.whole_documents++) {
        int32_t spanning = 0;

        assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
        check_layout(&pack, batch, &spanning);
        assert_int_equal(spanning, 1);
        assert_int_equal(batch->document_piece[1], 2);
    }
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

/* Two trainers of unequal rows and one without documents. */
static void whole_documents_lie_on_one_trainer(void **state)
{
    const data_document_t documents[] = {{.rows = 300, .adapter = 1}, {.rows = 1000}};
    lora_pack_t pack = pack_of(3, 1024, 2, documents);
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    int32_t spanning = 0;

    (void)state;
    pack.whole_documents = 1;
    assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
    check_layout(&pack, batch, &spanning);
    assert_int_equal(spanning, 2);
    assert_int_equal(batch->trainer_rows[0], 512);
    assert_int_equal(batch->trainer_rows[1], 256);
    assert_int_equal(batch->trainer_rows[2], 128);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static void expect_plan_01(const lora_pack_t *pack, const char *text)
{
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);

    assert_int_equal(lora_pack_fast(ctx, pack, batch), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "PLAN-01", text);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

static void what_does_not_fit_is_named(void **state)
{
    const data_document_t longer[] = {{.rows = 5, .index = 2, .adapter = 0},
                                      {.rows = 70000, .index = 3, .adapter = 1}};
    const data_document_t many[] = {{.rows = 900}, {.rows = 900}, {.rows = 900}};
    const data_document_t tight[] = {{.rows = 1}, {.rows = 256}};
    lora_pack_t pack = pack_of(2, 16384, 2, longer);

    (void)state;
    expect_plan_01(&pack, "document 3 of adapter 1 has 70000 rows, 2 trainers of 16384 rows hold "
                          "32768: needs 5 trainers");
    pack.num_trainers = 1;
    expect_plan_01(&pack, "70000 rows, 1 trainer of 16384 rows holds 16384: needs 5 trainers");
    pack.num_trainers = 4;
    expect_plan_01(&pack, "hold 65536: needs 5 trainers");
    pack.whole_documents = 1;
    expect_plan_01(&pack, "document 3 of adapter 1 has 70000 rows, a trainer holds 16384: "
                          "placement local cuts no document, no number of trainers fits it");

    pack = pack_of(2, 1280, 3, many);
    expect_plan_01(&pack, "microbatch 5: 3 documents of 2700 rows do not fit 2 trainers of 1280");
    pack.tokens_per_trainer = 1536;
    pack.whole_documents = 1;
    expect_plan_01(&pack, "1536 rows, each document whole on one of them");
    pack = pack_of(1, 256, 2, tight);
    expect_plan_01(&pack, "2 documents of 257 rows do not fit 1 trainer of 256 rows");
}

static void malformed_packs_are_refused(void **state)
{
    const data_document_t document = {.rows = 10};
    const data_document_t empty = {.rows = 0};
    const lora_pack_t wrong[] = {pack_of(0, 256, 1, &document),
                                 pack_of(1, 0, 1, &document),
                                 pack_of(1, 128, 1, &document),
                                 pack_of(1, 300, 1, &document),
                                 pack_of(1, -256, 1, &document),
                                 pack_of(1, 256, 0, &document),
                                 pack_of(1, 256, 1, &empty),
                                 pack_of(6, 256, 1, &document),
                                 pack_of(1, INT64_C(1) << 40, 1, &document)};
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(lora_pack_fast(ctx, &wrong[i], batch), BASE_ERR_ARG);
        fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "microbatch 5: ");
    }
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

/* Longest first to the emptiest trainer ends with 442 rows on one, more than is sure to fit; the
 * trainers that come with the documents have 385 each. */
static void given_trainers_are_taken_when_spreading_fails(void **state)
{
    static const int64_t rows[] = {200, 185, 130, 128, 127};
    static const int32_t trainers[] = {0, 0, 1, 1, 1};
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    data_document_t documents[5];
    lora_pack_t pack = {.num_trainers = 2,
                        .tokens_per_trainer = 512,
                        .whole_documents = 1,
                        .num_documents = 5,
                        .documents = documents,
                        .trainers = trainers};

    (void)state;
    for (int d = 0; d < 5; d++)
        documents[d] = (data_document_t){.rows = rows[d], .index = d};
    assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
    for (int32_t p = 0; p < batch->num_pieces; p++)
        assert_int_equal(batch->pieces[p].trainer, trainers[batch->pieces[p].document]);
    pack.num_documents = 4; /* spread evenly they fit */
    assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
    assert_int_equal(data_batch_piece_at(batch, 3, 0)->trainer, 0);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

/* Supervised rows of the busiest trainer in a half, over the mean; of a piece in proportion. */
static double supervised_over_mean(const data_batch_t *batch, int32_t half)
{
    double of[MAX_TRAINERS] = {0}, sum = 0, most = 0;

    for (int32_t p = 0; p < batch->num_pieces; p++) {
        const data_piece_t *piece = &batch->pieces[p];
        const data_document_t *d = &batch->documents[piece->document];

        if (piece->half == half)
            of[piece->trainer] += (double)(piece->rows * d->supervised) / (double)d->rows;
    }
    for (int32_t t = 0; t < batch->num_trainers; t++) {
        sum += of[t];
        most = of[t] > most ? of[t] : most;
    }
    return most * batch->num_trainers / sum;
}

/* Two adapters, the first half of each one's documents nearly all prompt, the other nearly all
 * answer. In the order given one of four trainers has 1.7 times the mean. */
static void supervised_rows_are_spread(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_batch_t *batch = new_batch(ctx);
    data_document_t documents[48];
    const lora_pack_t pack = {
        .num_trainers = 4, .tokens_per_trainer = 1536, .num_documents = 48, .documents = documents};

    (void)state;
    for (int d = 0; d < 48; d++) {
        const int64_t rows = 100 + d % 7;

        documents[d] = (data_document_t){.rows = rows,
                                         .adapter = d / 24,
                                         .index = d,
                                         .supervised = d % 24 < 12 ? rows / 10 : rows * 9 / 10};
    }
    assert_int_equal(lora_pack_fast(ctx, &pack, batch), BASE_OK);
    for (int32_t half = 0; half < DATA_NUM_HALVES; half++)
        assert_true(supervised_over_mean(batch, half) < 1.15);
    data_batch_destroy(batch);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_documents_are_packed),
        cmocka_unit_test(one_document_may_fill_everything),
        cmocka_unit_test(document_that_fits_no_half_spans),
        cmocka_unit_test(whole_documents_lie_on_one_trainer),
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(malformed_packs_are_refused),
        cmocka_unit_test(given_trainers_are_taken_when_spreading_fails),
        cmocka_unit_test(supervised_rows_are_spread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
