/* What comes next in a run: every document of every batch once, jobs side by side and none far ahead,
 * within the columns, evaluations in their places; as bytes and back; without those that ended. */
#include "tests/support/horizon_case.h"

static const horizon_options_t mixed = {.placement = AS_IN_PLACE,
                                        .ranks = 1,
                                        .tokens = 512,
                                        .rank_columns = 20,
                                        .epochs = {3, 9, 1, 2},
                                        .batches = {1, 3, 4, 16},
                                        .adapter_ranks = {8, 8, 8, 4},
                                        .eval = 1};

static void run(horizon_case_t *c, const horizon_options_t *o)
{
    horizon_begin(c, o);
    while (horizon_step(c, o->rank_columns)) {
    }
    horizon_check_all_given(c, o->epochs);
}

/* Jobs of very different lengths and batches. */
static void test_all_documents_once(void **state)
{
    horizon_case_t c;

    (void)state;
    run(&c, &mixed);
    horizon_end(&c);
}

/* Every so many steps and after the last one, and directly after the step: no other batch of the job
 * comes before. Held-out documents are never trained on. */
static void test_evaluations(void **state)
{
    int64_t at[HORIZON_JOBS] = {0};
    horizon_case_t c;

    (void)state;
    horizon_begin(&c, &mixed);
    while (horizon_step(&c, mixed.rank_columns)) {
        const int32_t j = c.entry.parts[0].job;

        if (c.entry.kind == TR_ENTRY_EVALUATE) {
            assert_true(j < 2);
            if (c.entry.parts[0].completes) at[j] = c.steps[j];
            assert_true(c.steps[j] % (2 + j) == 0 || c.steps[j] == c.jobs[j]->total_steps);
            continue;
        }
        for (int32_t i = 0; i < c.entry.num_parts; i++) {
            const int32_t k = c.entry.parts[i].job;
            const int64_t step = c.steps[k] - c.entry.parts[i].completes;

            if (k < 2 && step > 0 && step % (2 + k) == 0) assert_int_equal(at[k], step);
        }
    }
    for (int32_t j = 0; j < 2; j++) {
        const int64_t steps = c.jobs[j]->total_steps, every = 2 + j;

        assert_int_equal(c.evaluations[j], steps / every + (steps % every != 0));
        assert_int_equal(c.jobs[j]->training_documents, HORIZON_DOCUMENTS - 3);
    }
    horizon_check_all_given(&c, mixed.epochs);
    horizon_end(&c);
}

/* Only some adapters in one microbatch; batches that take several. */
static void test_nobody_is_left_behind(void **state)
{
    horizon_options_t o = {.placement = AS_IN_PLACE,
                           .ranks = 1,
                           .tokens = 512,
                           .rank_columns = 16,
                           .epochs = {4, 4, 4, 4},
                           .batches = {1, 3, 4, 16},
                           .adapter_ranks = {16, 4, 8, 2}};
    horizon_case_t c;

    (void)state;
    run(&c, &o);
    /* The largest batch is a quarter of its run, and then there is the microbatch that it waits
     * for. */
    assert_true(c.spread <= 0.5);
    horizon_end(&c);
    o.tokens = 256;
    o.rank_columns = 0;
    run(&c, &o);
    assert_true(c.spread <= 0.3);
    horizon_end(&c);
}

/* A job whose batch fills several microbatches beside jobs whose batches fit whole, and beside one
 * of few steps: without the rule of TR_HORIZON_AHEAD they are 0.45 of a run apart. */
static void test_large_batches_keep_up(void **state)
{
    const horizon_options_t o = {.placement = AS_IN_PLACE,
                                 .ranks = 1,
                                 .tokens = 512,
                                 .rank_columns = 64,
                                 .epochs = {30, 30, 30, 4},
                                 .batches = {16, 8, 8, 16},
                                 .adapter_ranks = {8, 8, 8, 8},
                                 .longest = {250, 30, 30, 60}};
    horizon_case_t c;

    (void)state;
    run(&c, &o);
    assert_true(c.spread <= 0.25 + 1.0 / TR_HORIZON_AHEAD); /* a step of the job with four */
    /* And as few microbatches as their rows need, but for the last ones. */
    assert_true(c.microbatches * (512 - 127) <= c.rows + c.rows / 10);
    horizon_end(&c);
}

/* Whole documents, each on one of three trainers: no more rows than one holds, and the trainers
 * nearly full of what they can hold. */
static void test_whole_documents(void **state)
{
    const horizon_options_t o = {.placement = AS_LOCAL,
                                 .ranks = 3,
                                 .tokens = 512,
                                 .rank_columns = 16,
                                 .epochs = {6, 6, 6, 6},
                                 .batches = {16, 8, 16, 16},
                                 .adapter_ranks = {4, 4, 4, 4},
                                 .longest = {400, 300, 200, 512}};
    horizon_case_t c;

    (void)state;
    horizon_begin(&c, &o);
    while (horizon_step(&c, o.rank_columns)) {
        int64_t rows[3] = {0};

        for (int32_t p = 0; p < c.lot->batch->num_pieces; p++)
            rows[c.lot->batch->pieces[p].trainer] += c.lot->batch->pieces[p].rows;
        for (int t = 0; t < 3; t++)
            assert_true(rows[t] <= 512);
    }
    horizon_check_all_given(&c, o.epochs);
    /* A trainer with several documents keeps 127 rows free (lora/pack.h). */
    assert_true(c.microbatches * 3 * (512 - 127) <= c.rows + c.rows / 20);
    horizon_end(&c);
}

/* Cut at a power of two, as most long documents are: a batch that is as large as the trainers is one microbatch. */
static void test_documents_that_fill_the_rows(void **state)
{
    horizon_options_t o = {.placement = AS_IN_PLACE,
                           .ranks = 1,
                           .tokens = 512,
                           .rank_columns = 8,
                           .epochs = {1, 1, 1, 1},
                           .batches = {4, 4, 4, 4},
                           .adapter_ranks = {8, 8, 8, 8},
                           .longest = {128, 128, 127, 128},
                           .alike = 1};
    horizon_case_t c;

    (void)state;
    run(&c, &o);
    assert_int_equal(c.microbatches, 4 * HORIZON_DOCUMENTS / 4);
    horizon_end(&c);
    o.ranks = 2;
    for (int j = 0; j < HORIZON_JOBS; j++)
        o.batches[j] = 8;
    run(&c, &o);
    assert_int_equal(c.microbatches, 4 * HORIZON_DOCUMENTS / 8);
    horizon_end(&c);
    o.placement = AS_LOCAL;
    run(&c, &o);
    assert_int_equal(c.microbatches, 4 * HORIZON_DOCUMENTS / 8);
    horizon_end(&c);
}

/* At every microbatch the state is taken out and put into another horizon of the same jobs. */
static void test_goes_on_from_bytes(void **state)
{
    horizon_case_t whole, parts;
    int more = 1;

    (void)state;
    run(&whole, &mixed);
    const uint64_t want = whole.hash;
    horizon_end(&whole);
    horizon_begin(&parts, &mixed);
    const int64_t bytes = tr_horizon_bytes(parts.horizon);
    void *saved = malloc((size_t)bytes), *again = malloc((size_t)bytes);
    assert_true(saved != NULL && again != NULL);
    while (more) {
        tr_horizon_save(parts.horizon, saved);
        tr_horizon_destroy(parts.horizon);
        assert_int_equal(tr_horizon_create(parts.ctx, parts.jobs, HORIZON_JOBS, mixed.rank_columns,
                                           &parts.horizon),
                         BASE_OK);
        assert_int_equal(tr_horizon_load(parts.horizon, saved, bytes), BASE_OK);
        assert_int_equal(tr_horizon_microbatch(parts.horizon), parts.microbatches);
        tr_horizon_save(parts.horizon, again);
        assert_memory_equal(saved, again, (size_t)bytes);
        more = horizon_step(&parts, mixed.rank_columns);
    }
    assert_true(parts.hash == want);
    /* Bytes that are no state of these jobs. */
    assert_int_equal(tr_horizon_load(parts.horizon, saved, bytes - 1), BASE_ERR_ARG);
    fixture_expect_error(parts.ctx, BASE_ERR_ARG, "INT-01", "planning state");
    memset(saved, 0x7f, (size_t)bytes / 2);
    assert_int_equal(tr_horizon_load(parts.horizon, saved, bytes), BASE_ERR_ARG);
    fixture_expect_error(parts.ctx, BASE_ERR_ARG, "INT-01", "planning state");
    free(saved);
    free(again);
    horizon_end(&parts);
}

/* A job that ends in the middle of a batch, or of an evaluation, is in nothing that follows; the
 * others go on to their ends. */
static void test_ends(void **state)
{
    (void)state;
    for (int64_t at = 0; at < 12; at++) {
        horizon_case_t c;

        horizon_begin(&c, &mixed);
        for (int64_t n = 0; n < at; n++)
            assert_int_equal(horizon_step(&c, mixed.rank_columns), 1);
        tr_horizon_apply(c.horizon, 0, TR_JOB_STOPPED);
        tr_horizon_apply(c.horizon, 3, TR_JOB_QUARANTINED);
        while (horizon_step(&c, mixed.rank_columns))
            for (int32_t i = 0; i < c.entry.num_parts; i++)
                assert_true(c.entry.parts[i].job == 1 || c.entry.parts[i].job == 2);
        for (int32_t j = 1; j <= 2; j++)
            assert_int_equal(c.steps[j], c.jobs[j]->total_steps);
        assert_true(c.steps[0] < c.jobs[0]->total_steps);
        horizon_end(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_documents_once),
        cmocka_unit_test(test_evaluations),
        cmocka_unit_test(test_nobody_is_left_behind),
        cmocka_unit_test(test_large_batches_keep_up),
        cmocka_unit_test(test_whole_documents),
        cmocka_unit_test(test_documents_that_fill_the_rows),
        cmocka_unit_test(test_goes_on_from_bytes),
        cmocka_unit_test(test_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
