/* dx and dw of the loss against differences of sum(weights loss), in double. */
#include "tests/support/loss_rig.h"

#include <stdlib.h>

static double scalar(void *user)
{
    loss_rig_t *rig = user;

    assert_int_equal(loss_rig_run(rig, 0), BASE_OK);
    return op_dot(rig->loss, rig->weights, rig->N);
}

static void test_cases(void **state)
{
    for (int i = 0; i < num_kern_cases_loss; i++) {
        const kern_case_loss_t *c = &kern_cases_loss[i];
        loss_rig_t rig = loss_rig(*state, c, KERN_F64);
        double *dx = op_doubles(rig.T * rig.H), *dw = op_doubles(rig.V * rig.H);

        assert_int_equal(loss_rig_run(&rig, 1), BASE_OK);
        memcpy(dx, rig.dx, (size_t)(rig.T * rig.H) * sizeof *dx);
        for (int64_t j = 0; j < rig.V * rig.H; j++)
            dw[j] = rig.dw[j] - rig.dw0[j];
        op_assert_gradient(rig.x, rig.T * rig.H, dx, scalar, &rig, 40, c->seed);
        op_assert_gradient(rig.w, rig.V * rig.H, dw, scalar, &rig, 40, c->seed);
        free(dx);
        free(dw);
        loss_rig_end(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};

    return OP_FIXTURE_RUN(tests);
}
