/* Lots: what fits is packed and planned, to the last row. */
#include "tests/support/job_fixture.h"

#include "tests/support/op_fixture.h"

#include "base/log.h"

typedef struct lot_case {
    base_ctx_t *ctx;
    as_topology_t *topology;
    tr_lot_options_t options;
    tr_lot_t *lot;
} lot_case_t;

static lot_case_t begin_for(as_placement_t placement, int32_t ranks, int64_t tokens,
                            int64_t longest, base_log_t *log)
{
    lot_case_t c = {0};

    assert_int_equal(base_ctx_create(0, 1, log, &c.ctx), BASE_OK);
    assert_int_equal(as_topology_create(c.ctx, placement, ranks, NULL, 1, &c.topology), BASE_OK);
    c.options = (tr_lot_options_t){.plans = {.topology = c.topology,
                                             .dtype = KERN_F32,
                                             .group = 2,
                                             .head_dim = 16,
                                             .num_kv_heads = 2,
                                             .num_layers = 2,
                                             .num_kinds = 2,
                                             .window = {0, 100},
                                             .dense_flop = {100000, 100000},
                                             .tokens_per_trainer = tokens,
                                             .retain_bytes = 1 << 20,
                                             .longest = longest},
                                   .tokens = 1};
    assert_int_equal(tr_lot_create(c.ctx, &c.options, NULL, &c.lot), BASE_OK);
    return c;
}

static lot_case_t begin(as_placement_t placement, int32_t ranks, int64_t tokens)
{
    return begin_for(placement, ranks, tokens, 0, NULL);
}

static void end(lot_case_t *c)
{
    tr_lot_destroy(c->lot);
    as_topology_destroy(c->topology);
    fixture_ctx_end(c->ctx);
}

/* Documents from a dataset: tokens and masks of each, weight, number, adapter. */
static void test_documents(void **state)
{
    static const int64_t rows[] = {200, 30, 129};
    lot_case_t c = begin(AS_IN_PLACE, 1, 512);
    data_dataset_t *ds;

    (void)state;
    job_dataset(c.ctx, "lot_test.h5", rows, 3);
    assert_int_equal(data_dataset_open(c.ctx, "lot_test.h5", NULL, &ds), BASE_OK);
    tr_lot_begin(c.lot, 7);
    for (int32_t d = 0; d < 3; d++) {
        assert_true(tr_lot_fits(c.lot, rows[d]));
        assert_int_equal(tr_lot_add(c.lot, ds, d, d % 2, d == 1 ? 0.25 : 0.5), BASE_OK);
    }
    assert_false(tr_lot_fits(c.lot, 27)); /* 359 + 27 > 512 - 127 */
    assert_true(tr_lot_fits(c.lot, 26));
    assert_int_equal(tr_lot_add(c.lot, ds, 0, 0, 0.5), BASE_ERR_ARG);
    fixture_expect_error(c.ctx, BASE_ERR_ARG, "INT-01", "200 rows more do not fit");
    assert_int_equal(tr_lot_finish(c.lot), BASE_OK);
    assert_int_equal(c.lot->batch->microbatch, 7);
    assert_int_equal(c.lot->batch->num_documents, 3);
    for (int32_t d = 0; d < 3; d++) {
        const data_document_t *doc = &c.lot->batch->documents[d];

        assert_int_equal(doc->rows, rows[doc->index]);
        assert_true(doc->row_weight == (doc->index == 1 ? 0.25 : 0.5));
        for (int64_t i = 0; i < doc->rows; i++) {
            assert_int_equal(doc->tokens[i], 3 + i % (JOB_VOCAB - 3));
            assert_int_equal(doc->loss_mask[i], i > 0);
        }
    }
    for (int32_t k = 0; k < 2; k++)
        assert_int_equal(tr_lot_plans(c.lot)[k]->window, k == 0 ? 0 : 100);
    data_dataset_close(ds);
    end(&c);
}

/* Documents that fill the rows when each one's are rounded up; what is taken back makes room again. */
static void test_aligned_rows(void **state)
{
    lot_case_t c = begin(AS_IN_PLACE, 1, 512);

    (void)state;
    tr_lot_begin(c.lot, 0);
    assert_int_equal(tr_lot_add_rows(c.lot, 256), BASE_OK);
    assert_int_equal(tr_lot_add_rows(c.lot, 127), BASE_OK);
    for (int again = 0; again < 2; again++) {
        assert_false(tr_lot_fits(c.lot, 129)); /* 512 rows, and 127 would have to be free */
        assert_int_equal(tr_lot_add_rows(c.lot, 128), BASE_OK);
        assert_false(tr_lot_fits(c.lot, 1));
        assert_int_equal(tr_lot_finish(c.lot), BASE_OK);
        assert_int_equal(data_batch_trainer_rows(c.lot->batch), 512);
        tr_lot_drop(c.lot);
    }
    end(&c);
}

/* One document may take all that the trainers hold; one more row is too long. */
static void test_longest(void **state)
{
    (void)state;
    lot_case_t c = begin(AS_IN_PLACE, 3, 512);
    assert_int_equal(tr_lot_longest(&c.options), 3 * 512);
    tr_lot_begin(c.lot, 0);
    assert_true(tr_lot_fits(c.lot, 3 * 512));
    assert_false(tr_lot_fits(c.lot, 3 * 512 + 1));
    assert_int_equal(tr_lot_add_rows(c.lot, 3 * 512), BASE_OK);
    assert_int_equal(tr_lot_finish(c.lot), BASE_OK);
    end(&c);
    c = begin(AS_LOCAL, 3, 512);
    assert_int_equal(tr_lot_longest(&c.options), 512);
    end(&c);
}

/* Whatever is let in can be packed and planned, within the pieces and tasks that were promised. */
static void check_random(as_placement_t placement, int32_t ranks, int64_t tokens, uint64_t seed)
{
    lot_case_t c = begin(placement, ranks, tokens);
    const int64_t longest = tr_lot_longest(&c.options);

    for (int n = 0; n < 60; n++) {
        /* From many small documents to few long ones. */
        const int64_t most = 1 + op_random_below(&seed, n % 3 == 0 ? 20 : longest);

        tr_lot_begin(c.lot, n);
        for (int misses = 0; misses < 3;) {
            const int64_t rows = 1 + op_random_below(&seed, most);
            if (!tr_lot_fits(c.lot, rows))
                misses++;
            else
                assert_int_equal(tr_lot_add_rows(c.lot, rows), BASE_OK);
        }
        base_status_t st = tr_lot_finish(c.lot);
        while (placement == AS_LOCAL && st == BASE_ERR_ARG && c.lot->num_documents > 1) {
            base_ctx_clear_error(c.ctx);
            tr_lot_drop(c.lot);
            st = tr_lot_finish(c.lot);
        }
        assert_int_equal(st, BASE_OK);
        assert_int_equal(data_batch_document_rows(c.lot->batch), c.lot->rows);
        assert_true(c.lot->batch->num_pieces <= tr_lot_max_pieces(&c.options));
        for (int32_t k = 0; k < 2; k++)
            assert_true(tr_lot_plans(c.lot)[k]->num_tasks <= tr_lot_max_tasks(&c.options));
    }
    end(&c);
}

static void test_random(void **state)
{
    (void)state;
    check_random(AS_IN_PLACE, 1, 2048, 1);
    check_random(AS_IN_PLACE, 4, 1024, 2);
    check_random(AS_IN_PLACE, 2, 16384, 3);
    check_random(AS_POOL, 3, 4096, 4);
    check_random(AS_LOCAL, 3, 1024, 5);
}

/* With less and less staging, as for shorter and shorter documents: at first the plan is balanced,
 * then it is one of last resort, which is said. */
static void test_plan_of_last_resort(void **state)
{
    enum { ROWS = 1 << 16 };
    int balanced = 0, at_home = 0;
    base_log_t *log;

    (void)state;
    assert_int_equal(base_log_create(BASE_LOG_WARNING, &log), BASE_OK);
    for (int64_t longest = ROWS; longest > 0; longest -= ROWS / 16) {
        lot_case_t c = begin_for(AS_IN_PLACE, 4, ROWS / 4, longest, log);

        tr_lot_begin(c.lot, 0);
        assert_int_equal(tr_lot_add_rows(c.lot, ROWS), BASE_OK);
        assert_int_equal(tr_lot_finish(c.lot), BASE_OK);
        const int here = c.lot->scores[0].at_home || c.lot->scores[1].at_home;

        assert_int_equal(base_log_warnings(log, "plan-at-home") > 0, here);
        balanced += !here;
        at_home += here;
        base_log_summary(log); /* counts begin again */
        end(&c);
    }
    base_log_destroy(log);
    assert_true(balanced > 0 && at_home > 0);
}

/* PLAN-01: a whole document for each trainer, and one more. */
static void test_whole_documents_do_not_fit(void **state)
{
    lot_case_t c = begin(AS_LOCAL, 2, 512);

    (void)state;
    tr_lot_begin(c.lot, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tr_lot_add_rows(c.lot, 290), BASE_OK);
    assert_int_equal(tr_lot_finish(c.lot), BASE_ERR_ARG);
    fixture_expect_error(c.ctx, BASE_ERR_ARG, "PLAN-01", "");
    tr_lot_drop(c.lot);
    assert_int_equal(c.lot->rows, 580);
    assert_int_equal(tr_lot_finish(c.lot), BASE_OK);
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_aligned_rows),
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_plan_of_last_resort),
        cmocka_unit_test(test_whole_documents_do_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
