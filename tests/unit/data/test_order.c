#include "tests/support/ctx_fixture.h"

#include "data/order.h"

#include <stdlib.h>

static data_order_t *make(base_ctx_t *ctx, uint64_t seed, int64_t documents, int64_t eval,
                          bool shuffle)
{
    const data_order_options_t options = {.source = "a.h5",
                                          .seed = seed,
                                          .num_documents = documents,
                                          .eval_documents = eval,
                                          .shuffle = shuffle};
    data_order_t *order = NULL;

    assert_int_equal(data_order_create(ctx, &options, &order), BASE_OK);
    return order;
}

/* Bits are pinned: a change of the order would give another result after a resume. The values come
 * from a second implementation, in Python, of what data/order.h says. */
static void pinned_orders(void **state)
{
    static const int64_t want[2][10] = {{5, 6, 8, 7, 4, 2, 1, 9, 0, 3},
                                        {8, 0, 9, 2, 7, 6, 4, 1, 3, 5}};
    static const int64_t held[3] = {2, 5, 6}, trained[7] = {8, 9, 0, 4, 7, 3, 1};
    base_ctx_t *ctx = fixture_ctx();
    data_order_t *order = make(ctx, 7, 10, 0, true);

    (void)state;
    for (int epoch = 0; epoch < 2; epoch++)
        for (int i = 0; i < 10; i++)
            assert_int_equal(data_order_next(order), want[epoch][i]);
    data_order_destroy(order);
    order = make(ctx, 7, 10, 3, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(data_order_eval(order, i), held[i]);
    for (int i = 0; i < 7; i++)
        assert_int_equal(data_order_next(order), trained[i]);
    data_order_destroy(order);
    fixture_ctx_end(ctx);
}

/* Every epoch has every training document once and no held-out one, which are the same always. */
static void every_document_once_per_epoch(void **state)
{
    static const int64_t sizes[][2] = {{1, 0}, {2, 0}, {2, 1}, {97, 0}, {97, 13}, {500, 499}};
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t documents = sizes[s][0], eval = sizes[s][1];

        for (int shuffle = 0; shuffle < 2; shuffle++) {
            data_order_t *order = make(ctx, 3, documents, eval, shuffle != 0);

            assert_int_equal(data_order_num_train(order), documents - eval);
            assert_int_equal(data_order_num_eval(order), eval);
            for (int64_t epoch = 0; epoch < 4; epoch++) {
                int seen[500] = {0};
                int64_t before = -1;

                assert_int_equal(data_order_position(order), 0);
                for (int64_t i = 0; i < documents - eval; i++) {
                    assert_int_equal(data_order_epoch(order), epoch);
                    const int64_t document = data_order_next(order);

                    assert_true(document >= 0 && document < documents);
                    assert_true(shuffle || document > before);
                    before = document;
                    seen[document]++;
                }
                for (int64_t i = 0; i < eval; i++) {
                    assert_true(i == 0 ||
                                data_order_eval(order, i) > data_order_eval(order, i - 1));
                    seen[data_order_eval(order, i)]++;
                }
                for (int64_t i = 0; i < documents; i++)
                    assert_int_equal(seen[i], 1);
            }
            data_order_destroy(order);
        }
    }
    fixture_ctx_end(ctx);
}

/* Each document stands in each place equally often. 4000 epochs of 8 documents: 500 expected in
 * each of 64 cells, with a standard deviation of sqrt(4000 / 8 * 7 / 8) = 21; five of them, which a
 * right order with these seeds either always or never keeps. The classic mistake of drawing below n
 * in every step shifts cells by up to 28 % (140). */
static void places_are_uniform(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_order_t *order = make(ctx, 1, 8, 0, true);
    int cell[8][8] = {{0}}, held[8] = {0};

    (void)state;
    for (int epoch = 0; epoch < 4000; epoch++)
        for (int i = 0; i < 8; i++)
            cell[i][data_order_next(order)]++;
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 8; k++)
            assert_true(abs(cell[i][k] - 500) < 105);
    data_order_destroy(order);
    /* Held out: 2 of 8 by 4000 seeds, 1000 each, deviation sqrt(4000 / 4 * 3 / 4) = 27. */
    for (uint64_t seed = 0; seed < 4000; seed++) {
        order = make(ctx, seed, 8, 2, true);
        held[data_order_eval(order, 0)]++;
        held[data_order_eval(order, 1)]++;
        data_order_destroy(order);
    }
    for (int i = 0; i < 8; i++)
        assert_true(abs(held[i] - 1000) < 135);
    fixture_ctx_end(ctx);
}

/* A cursor that is set gives what a cursor that went there gives, forwards and backwards; another
 * seed or epoch gives another order, and nothing is allocated on the way. */
static void the_cursor_can_be_set(void **state)
{
    enum { DOCUMENTS = 50, EVAL = 5, TRAIN = DOCUMENTS - EVAL, NUMBERS = 4 * TRAIN };
    base_ctx_t *ctx = fixture_ctx();
    data_order_t *order = make(ctx, 9, DOCUMENTS, EVAL, true);
    data_order_t *other = make(ctx, 10, DOCUMENTS, EVAL, true);
    int64_t document[NUMBERS], calls;
    int differ = 0, epochs_differ = 0;

    (void)state;
    calls = base_memory_calls(base_ctx_memory(ctx));
    for (int64_t n = 0; n < NUMBERS; n++) {
        assert_int_equal(data_order_number(order), n);
        assert_int_equal(data_order_epoch(order), n / TRAIN);
        assert_int_equal(data_order_position(order), n % TRAIN);
        document[n] = data_order_peek(order);
        assert_int_equal(data_order_next(order), document[n]);
        differ += data_order_next(other) != document[n];
        if (n >= TRAIN) epochs_differ += document[n] != document[n - TRAIN];
    }
    assert_true(differ > NUMBERS / 2 && epochs_differ > NUMBERS / 2);
    for (int64_t n = NUMBERS - 1; n >= 0; n -= 7) {
        assert_int_equal(data_order_seek(order, n), BASE_OK);
        assert_int_equal(data_order_number(order), n);
        assert_int_equal(data_order_next(order), document[n]);
    }
    assert_int_equal(base_memory_calls(base_ctx_memory(ctx)), calls);
    assert_int_equal(data_order_seek(order, TRAIN * ((INT64_C(1) << 32) - 1)), BASE_OK);
    (void)data_order_next(order);
    assert_int_equal(data_order_seek(order, TRAIN * (INT64_C(1) << 32)), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "of epochs of 45");
    assert_int_equal(data_order_seek(order, -1), BASE_ERR_ARG);
    base_ctx_clear_error(ctx);
    data_order_destroy(order);
    data_order_destroy(other);
    data_order_destroy(NULL);
    fixture_ctx_end(ctx);
}

static void what_cannot_be_ordered(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_order_options_t options = {
        .source = "legal.h5", .num_documents = 20, .eval_documents = 20, .shuffle = true};
    data_order_t *order = NULL;
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    assert_int_equal(data_order_create(ctx, &options, &order), BASE_ERR_CONFIG);
    fixture_expect_error(ctx, BASE_ERR_CONFIG, "DATA-15",
                         "legal.h5: eval_documents is 20, the dataset has 20 documents");
    options.num_documents = 0;
    assert_int_equal(data_order_create(ctx, &options, &order), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "legal.h5: 0 documents");
    options.num_documents = INT64_C(1) << 31;
    assert_int_equal(data_order_create(ctx, &options, &order), BASE_ERR_ARG);
    base_ctx_clear_error(ctx);
    options.num_documents = 21;
    for (int n = 1; st != BASE_OK; n++) {
        assert_true(n < 5);
        base_memory_fail_at(base_ctx_memory(ctx), n);
        st = data_order_create(ctx, &options, &order);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        base_ctx_clear_error(ctx);
    }
    data_order_destroy(order);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pinned_orders),          cmocka_unit_test(every_document_once_per_epoch),
        cmocka_unit_test(places_are_uniform),     cmocka_unit_test(the_cursor_can_be_set),
        cmocka_unit_test(what_cannot_be_ordered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
