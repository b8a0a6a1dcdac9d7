/* The planning thread: what it plans ahead is what a horizon plans when it is asked, on every rank,
 * however far apart request and use are; errors and stops reach who waits. */
#include "tests/support/horizon_case.h"

#include "base/clock.h"
#include "trainer/loop/planning.h"

#define MAX_MICROBATCHES 400

static const horizon_options_t mixed = {.placement = AS_IN_PLACE,
                                        .ranks = 2,
                                        .tokens = 256,
                                        .rank_columns = 20,
                                        .epochs = {3, 6, 1, 2},
                                        .batches = {1, 3, 4, 16},
                                        .adapter_ranks = {8, 8, 8, 4},
                                        .eval = 1};

/* Ends that take effect before a microbatch. */
static const struct {
    int64_t before;
    tr_control_end_t end;
} ends[] = {{7, {0, TR_JOB_STOPPED}}, {30, {3, TR_JOB_QUARANTINED}}};
enum { NUM_ENDS = sizeof ends / sizeof ends[0] };

typedef struct sequence {
    int64_t count;
    uint64_t hash[MAX_MICROBATCHES];
    tr_entry_kind_t kind[MAX_MICROBATCHES];
    int32_t parts[MAX_MICROBATCHES];
} sequence_t;

static int note(sequence_t *s, const tr_lot_t *lot, const tr_entry_t *entry)
{
    if (entry->kind == TR_ENTRY_END) return 0;
    assert_true(s->count < MAX_MICROBATCHES);
    s->hash[s->count] = tr_lot_plans(lot)[0]->hash;
    s->kind[s->count] = entry->kind;
    s->parts[s->count++] = entry->num_parts;
    return 1;
}

static void expect_equal(const sequence_t *a, const sequence_t *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->hash, b->hash, sizeof a->hash);
    assert_memory_equal(a->kind, b->kind, sizeof a->kind);
    assert_memory_equal(a->parts, b->parts, sizeof a->parts);
}

static sequence_t synchronous(void)
{
    sequence_t s = {0};
    horizon_case_t c;
    int more = 1;

    horizon_begin(&c, &mixed);
    while (more) {
        for (int e = 0; e < NUM_ENDS; e++)
            if (ends[e].before == s.count)
                tr_horizon_apply(c.horizon, ends[e].end.job, (tr_job_state_t)ends[e].end.state);
        assert_int_equal(tr_horizon_next(c.horizon, c.lot, &c.entry), BASE_OK);
        more = note(&s, c.lot, &c.entry);
    }
    horizon_end(&c);
    return s;
}

static void request(tr_planning_t *planning, int64_t microbatch)
{
    tr_control_end_t now[NUM_ENDS];
    int32_t num = 0;

    for (int e = 0; e < NUM_ENDS; e++)
        if (ends[e].before == microbatch) now[num++] = ends[e].end;
    tr_planning_request(planning, now, num);
}

/* As tr_train_run does, with some time spent on each microbatch; from a state when `from` is not
 * NULL, whose microbatch is `first`. The state before microbatch `save_at` goes to `saved`. */
static void run_planning(horizon_case_t *c, sequence_t *s, int64_t first, const void *from,
                         int64_t save_at, void *saved)
{
    const int64_t bytes = tr_horizon_bytes(c->horizon);
    tr_planning_t *planning = NULL;
    tr_planned_t *planned;
    int64_t calls = 0;

    assert_int_equal(
        tr_planning_create(c->ctx, c->jobs, HORIZON_JOBS, mixed.rank_columns, &c->lots, &planning),
        BASE_OK);
    if (from != NULL)
        assert_int_equal(tr_horizon_load(tr_planning_horizon(planning), from, bytes), BASE_OK);
    assert_int_equal(tr_planning_start(planning), BASE_OK);
    tr_planning_request(planning, NULL, 0);
    for (int64_t n = first + 1; n < first + TR_PLANNING_AHEAD; n++)
        request(planning, n);
    for (int64_t n = first;; n++) {
        assert_int_equal(tr_planning_wait(planning, n, &planned), BASE_OK);
        if (saved != NULL && n == save_at) memcpy(saved, planned->before, (size_t)bytes);
        if (!note(s, planned->lot, &planned->entry)) break;
        if (n % 11 == 0) base_clock_sleep_ns(1000000);
        request(planning, n + TR_PLANNING_AHEAD);
        if (n == first + 2 * TR_PLANNING_LOTS) calls = base_memory_calls(base_ctx_memory(c->ctx));
    }
    if (calls > 0) assert_int_equal(base_memory_calls(base_ctx_memory(c->ctx)), calls);
    tr_planning_destroy(planning);
}

static void test_ahead_is_as_asked(void **state)
{
    const sequence_t want = synchronous();

    (void)state;
    assert_true(want.count > 40);
    for (int rank = 0; rank < 3; rank++) { /* a rank that only serves has no tokens */
        sequence_t s = {0};
        horizon_case_t c;

        horizon_begin(&c, &mixed);
        c.lots.tokens = rank < 2;
        run_planning(&c, &s, 0, NULL, -1, NULL);
        expect_equal(&s, &want);
        horizon_end(&c);
    }
}

/* The state before a microbatch gives the same microbatches from there on, ends that have not taken
 * effect among them. */
static void test_goes_on(void **state)
{
    static const int64_t at[] = {1, 5, 6, 7, 8, 29, 30, 31};
    const sequence_t want = synchronous();

    (void)state;
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        sequence_t s = {0}, rest = {0};
        horizon_case_t c;

        horizon_begin(&c, &mixed);
        void *saved = malloc((size_t)tr_horizon_bytes(c.horizon));
        assert_non_null(saved);
        run_planning(&c, &s, 0, NULL, at[i], saved);
        run_planning(&c, &rest, at[i], saved, -1, NULL);
        assert_int_equal(rest.count, want.count - at[i]);
        assert_memory_equal(rest.hash, want.hash + at[i], (size_t)rest.count * sizeof *rest.hash);
        free(saved);
        horizon_end(&c);
    }
}

/* A document that no microbatch holds: who waits for that microbatch gets the planner's words. */
static void test_errors_are_forwarded(void **state)
{
    horizon_case_t c;
    tr_planning_t *planning = NULL;
    tr_planned_t *planned;
    int64_t n = 0;

    (void)state;
    horizon_begin(&c, &(horizon_options_t){.placement = AS_IN_PLACE,
                                           .ranks = 1,
                                           .tokens = 256,
                                           .epochs = {1, 1, 1, 1},
                                           .batches = {4, 4, 4, 4},
                                           .adapter_ranks = {1, 1, 1, 1},
                                           .longest = {0, 0, 600, 0}});
    assert_int_equal(tr_planning_create(c.ctx, c.jobs, HORIZON_JOBS, 0, &c.lots, &planning),
                     BASE_OK);
    assert_int_equal(tr_planning_start(planning), BASE_OK);
    tr_planning_request(planning, NULL, 0);
    tr_planning_request(planning, NULL, 0);
    while (tr_planning_wait(planning, n, &planned) >= 0) {
        assert_true(++n < 100);
        tr_planning_request(planning, NULL, 0);
    }
    fixture_expect_error(c.ctx, BASE_ERR_ARG, "PLAN-01", "rows");
    assert_int_equal(tr_planning_wait(planning, n + 1, &planned), BASE_ERR_ARG);
    base_ctx_clear_error(c.ctx);
    tr_planning_destroy(planning);
    horizon_end(&c);
}

/* Nobody plans what was not asked for; who waits for it ends when the rank is to stop. */
static void test_stop(void **state)
{
    horizon_case_t c;
    tr_planning_t *planning = NULL;
    tr_planned_t *planned;
    int32_t stop = 1;

    (void)state;
    horizon_begin(&c, &mixed);
    assert_int_equal(tr_planning_create(c.ctx, c.jobs, HORIZON_JOBS, 0, &c.lots, &planning),
                     BASE_OK);
    assert_int_equal(tr_planning_start(planning), BASE_OK);
    base_ctx_set_stop_flag(c.ctx, &stop);
    assert_int_equal(tr_planning_wait(planning, 0, &planned), BASE_ERR_PEER);
    fixture_expect_error(c.ctx, BASE_ERR_PEER, "COMM-01", "asked to stop");
    tr_planning_destroy(planning);
    horizon_end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ahead_is_as_asked),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_errors_are_forwarded),
        cmocka_unit_test(test_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
