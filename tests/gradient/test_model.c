/* The whole model's backward against finite differences of its loss, in double: for every weight
 * tensor, the derivative along a random direction. The difference quotients of steps h and h/2 are
 * combined (Richardson), so that the error is of order h^4 and the agreement is limited by
 * rounding. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/model_case.h"

#include "base/philox.h"

#include <math.h>
#include <stdio.h>

#define SEED      20u
#define STEP      1e-3
#define TOLERANCE 1e-6

typedef struct mover {
    int32_t weight; /* number in the list of weights */
    double step;
    const model_result_t *names;
} mover_t;

/* Component i of the direction of weight `index`: a tenth of what most weights are. */
static double direction(int32_t index, int64_t i)
{
    double normal[2];

    base_philox_normal2(base_philox(base_philox_key(SEED), (uint32_t)i, (uint32_t)index, 0, 0),
                        normal);
    return 0.1 * normal[0];
}

static int move(void *user, const tr_weight_spec_t *spec, double *values)
{
    const mover_t *mover = user;

    if (strcmp(spec->name, mover->names->names[mover->weight]) != 0) return 0;
    for (int64_t i = 0; i < spec->rows * spec->cols; i++)
        values[i] += mover->step * direction(mover->weight, i);
    return 1;
}

static void run_or_fail(const model_case_t *c, model_result_t *r)
{
    const base_status_t st = model_case_run(c, r);

    if (st < 0)
        fail_msg("%s: %s:%d: %s", base_status_name(st), r->error.file, r->error.line,
                 r->error.text);
}

static double loss_at(model_case_t *c, mover_t *mover, double step)
{
    model_result_t r;

    mover->step = step;
    run_or_fail(c, &r);
    const double loss = r.loss;
    model_result_free(&r);
    return loss;
}

static double quotient(model_case_t *c, mover_t *mover, double step)
{
    return (loss_at(c, mover, step) - loss_at(c, mover, -step)) / (2.0 * step);
}

static void check_weight(model_case_t *c, mover_t *mover, const model_result_t *r, const char *name)
{
    const int32_t w = mover->weight;
    const double *gradient = r->gradients + r->weight_at[w];
    double exact = 0.0;

    for (int64_t i = 0; i < r->weight_at[w + 1] - r->weight_at[w]; i++)
        exact += gradient[i] * direction(w, i);
    const double coarse = quotient(c, mover, STEP), fine = quotient(c, mover, STEP / 2.0);
    const double numeric = (4.0 * fine - coarse) / 3.0;
    const double error = fabs(numeric - exact) / fabs(exact);
    if (!(error <= TOLERANCE))
        fail_msg("%s: %s: gradient %.12g, difference %.12g: off by %.3g", name, r->names[w], exact,
                 numeric, error);
}

/* Runs the case once for the gradients and four times for each weight. */
static void check_all_weights(model_case_t *c, const char *name)
{
    model_result_t r;
    mover_t mover = {.names = &r};

    run_or_fail(c, &r);
    assert_true(isfinite(r.loss) && r.loss > 0.0);
    c->change = move;
    c->user = &mover;
    for (mover.weight = 0; mover.weight < r.num_weights; mover.weight++)
        check_weight(c, &mover, &r, name);
    model_result_free(&r);
}

static void random_documents(int32_t count, int64_t max_rows, int32_t vocab,
                             model_documents_t *docs)
{
    model_documents_random(&(model_documents_options_t){.seed = SEED,
                                                        .count = count,
                                                        .vocab = vocab,
                                                        .adapters = 2,
                                                        .min_rows = 2,
                                                        .max_rows = max_rows},
                           docs);
}

static void test_one_layer(void **state)
{
    static const int64_t windows[] = {0};
    model_documents_t docs;

    (void)state;
    random_documents(3, 60, 61, &docs);
    model_case_t c = model_case_default(&docs);
    c.model.num_layers = 1;
    c.model.layer_window = windows;
    c.model.extra_columns = 0;
    check_all_weights(&c, "one layer");
    model_documents_free(&docs);
}

/* Sizes that are no multiple of anything, and a window in the middle. */
static void make_odd(model_case_t *c)
{
    static const int64_t windows[] = {0, 40, 0};

    c->model.num_layers = 3;
    c->model.layer_window = windows;
    c->model.hidden = 27;
    c->model.intermediate = 37;
    c->model.head_dim = 10;
    c->model.extra_columns = 64;
}

static void test_three_layers(void **state)
{
    model_documents_t docs;

    (void)state;
    random_documents(3, 150, 53, &docs);
    model_case_t c = model_case_default(&docs);
    make_odd(&c);
    check_all_weights(&c, "three layers");
    model_documents_free(&docs);
}

/* One document is longer than a trainer's stream: rows, targets and keys on both trainers, in both
 * halves. */
static void test_two_trainers(void **state)
{
    model_documents_t docs;

    (void)state;
    random_documents(2, 300, 53, &docs);
    model_case_t c = model_case_default(&docs);
    make_odd(&c);
    c.num_ranks = 2;
    check_all_weights(&c, "two trainers");
    model_documents_free(&docs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_layer),
        cmocka_unit_test(test_three_layers),
        cmocka_unit_test(test_two_trainers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
