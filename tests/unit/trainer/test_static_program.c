#include "tests/support/ctx_fixture.h"

#include "trainer/loop/static_program.h"

#include <stdio.h>

/* ==== the order, written out ==== */

/* "D0 pi" is dense of layer 0 on ping; F finish, B begin, S serve, W settle; backward after the bar.
 */
static void print_program(const tr_static_program_t *p, char *text, size_t bytes)
{
    size_t at = 0;

    text[0] = '\0';
    for (int32_t i = 0; i < p->num_steps; i++) {
        const tr_step_t *s = &p->steps[i];
        const char letter = "FDBSW"[s->kind];
        const int turn =
            i > 0 && s->direction == AS_BACKWARD && p->steps[i - 1].direction == AS_FORWARD;
        const int n = snprintf(text + at, bytes - at, "%s%c%d%s", turn ? "| " : "", letter,
                               s->layer, s->half == DATA_PING ? "pi " : "po ");
        assert_true(n > 0 && (size_t)n < bytes - at);
        at += (size_t)n;
    }
}

static void expect_program(int32_t layers, int serial, const char *want)
{
    base_ctx_t *ctx = fixture_ctx();
    tr_static_program_t *p;
    char text[2048];

    assert_int_equal(tr_static_program_create(ctx, layers, serial, &p), BASE_OK);
    print_program(p, text, sizeof text);
    assert_string_equal(text, want);
    tr_static_program_destroy(p);
    fixture_ctx_end(ctx);
}

static void test_order_of_one_layer(void **state)
{
    (void)state;
    expect_program(1, 0,
                   "D0pi B0pi D0po B0po S0pi S0po "
                   "F0pi D1pi F0po D1po "
                   "| D0po B0po D0pi B0pi S0po S0pi "
                   "F0po D-1po F0pi D-1pi ");
}

static void test_order_of_three_layers(void **state)
{
    (void)state;
    expect_program(3, 0,
                   "D0pi B0pi D0po B0po S0pi S0po "
                   "F0pi D1pi B1pi F0po D1po B1po S1pi S1po "
                   "F1pi D2pi B2pi F1po D2po B2po S2pi S2po "
                   "F2pi D3pi F2po D3po "
                   "| D2po B2po D2pi B2pi S2po S2pi "
                   "F2po D1po B1po F2pi D1pi B1pi S1po S1pi "
                   "F1po D0po B0po F1pi D0pi B0pi S0po S0pi "
                   "F0po D-1po F0pi D-1pi ");
}

/* Without ping-pong each exchange is waited for where it begins. */
static void test_order_without_ping_pong(void **state)
{
    (void)state;
    expect_program(2, 1,
                   "D0pi B0pi W0pi D0po B0po W0po S0pi W0pi S0po W0po "
                   "F0pi D1pi B1pi W1pi F0po D1po B1po W1po S1pi W1pi S1po W1po "
                   "F1pi D2pi F1po D2po "
                   "| D1po B1po W1po D1pi B1pi W1pi S1po W1po S1pi W1pi "
                   "F1po D0po B0po W0po F1pi D0pi B0pi W0pi S0po W0po S0pi W0pi "
                   "F0po D-1po F0pi D-1pi ");
}

/* ==== what the seam demands ==== */

static void test_rules_of_the_seam(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    tr_static_program_t *p;

    (void)state;
    assert_int_equal(tr_static_program_create(ctx, 7, 0, &p), BASE_OK);

    int32_t open[DATA_NUM_HALVES] = {-1, -1}, phase = 0;
    int served[DATA_NUM_HALVES] = {0, 0};
    for (int32_t i = 0; i < p->num_steps; i++) {
        const tr_step_t *s = &p->steps[i];

        assert_true(s->phase == phase || s->phase == phase + 1);
        phase = s->phase;
        switch (s->kind) {
        case TR_STEP_BEGIN:
            assert_int_equal(open[s->half], -1);
            open[s->half] = s->layer;
            served[s->half] = 0;
            break;
        case TR_STEP_SERVE: /* both halves are begun: a tail's task reads the head's keys */
            assert_int_equal(open[DATA_PING], s->layer);
            assert_int_equal(open[DATA_PONG], s->layer);
            served[s->half]++;
            break;
        case TR_STEP_FINISH:
            assert_int_equal(open[s->half], s->layer);
            assert_int_equal(served[s->half], 1);
            open[s->half] = -1;
            break;
        case TR_STEP_DENSE:
            assert_int_equal(open[s->half], -1);
            break;
        case TR_STEP_SETTLE:
            fail_msg("a settle with ping-pong");
            break;
        }
    }
    assert_int_equal(open[DATA_PING], -1);
    assert_int_equal(open[DATA_PONG], -1);
    assert_int_equal(phase, 2 * 7 + 1);
    tr_static_program_destroy(p);
    fixture_ctx_end(ctx);
}

/* ==== running it ==== */

typedef struct recorder {
    const tr_static_program_t *program;
    int32_t next; /* step that must come */
    int32_t calls, fail_at;
    int skip_dense;
} recorder_t;

static base_status_t record(recorder_t *r, const tr_step_t *step, tr_step_kind_t kind)
{
    while (r->skip_dense && r->program->steps[r->next].kind == TR_STEP_DENSE)
        r->next++;
    assert_ptr_equal(step, &r->program->steps[r->next]);
    assert_int_equal(step->kind, kind);
    r->next++;
    return ++r->calls == r->fail_at ? BASE_ERR_PEER : BASE_OK;
}

static base_status_t record_dense(void *user, const tr_step_t *step)
{
    return record(user, step, TR_STEP_DENSE);
}

static base_status_t record_begin(void *user, const tr_step_t *step)
{
    return record(user, step, TR_STEP_BEGIN);
}

static base_status_t record_serve(void *user, const tr_step_t *step)
{
    return record(user, step, TR_STEP_SERVE);
}

static base_status_t record_finish(void *user, const tr_step_t *step)
{
    return record(user, step, TR_STEP_FINISH);
}

static void test_run(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    tr_static_program_t *p;
    tr_static_program_ops_t ops = {.dense = record_dense,
                                   .begin = record_begin,
                                   .serve = record_serve,
                                   .finish = record_finish};

    (void)state;
    assert_int_equal(tr_static_program_create(ctx, 2, 0, &p), BASE_OK);
    recorder_t trainer = {.program = p};
    assert_int_equal(tr_static_program_run(p, p->num_steps, &ops, &trainer), BASE_OK);
    assert_int_equal(trainer.calls, p->num_steps);

    /* The first failure ends it. */
    recorder_t failing = {.program = p, .fail_at = 5};
    assert_int_equal(tr_static_program_run(p, p->num_steps, &ops, &failing), BASE_ERR_PEER);
    assert_int_equal(failing.calls, 5);

    /* A pool rank: everything but the dense steps, of which there are two halves of L + 1 in either
     * direction. */
    recorder_t pool = {.program = p, .skip_dense = 1};
    ops.dense = NULL;
    assert_int_equal(tr_static_program_run(p, p->num_steps, &ops, &pool), BASE_OK);
    assert_int_equal(pool.calls, p->num_steps - 2 * 2 * 3);
    tr_static_program_destroy(p);
    fixture_ctx_end(ctx);
}

static void test_no_memory(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    tr_static_program_t *p;

    (void)state;
    for (int n = 1; n <= 2; n++) {
        base_memory_fail_at(base_ctx_memory(ctx), n);
        assert_int_equal(tr_static_program_create(ctx, 2, 0, &p), BASE_ERR_NOMEM);
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "static program");
    }
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_one_layer),
        cmocka_unit_test(test_order_of_three_layers),
        cmocka_unit_test(test_order_without_ping_pong),
        cmocka_unit_test(test_rules_of_the_seam),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
