/* loss_linear_ce on a case of kernels/cases: all operands with random values, and the result by the
 * definition. */
#ifndef CADRE_TESTS_SUPPORT_LOSS_RIG_H
#define CADRE_TESTS_SUPPORT_LOSS_RIG_H

#include "tests/support/op_fixture.h"

#include "kernels/cases/op_cases.h"

typedef struct loss_rig {
    op_fixture_t *fx;
    const kern_case_loss_t *c;
    kern_dtype_t dtype;
    int64_t T, N, H, V;
    double *x, *w, *rows, *targets, *weights; /* given */
    double *loss, *dx, *dw;                   /* results; dw begins at dw0 */
    double *dw0;
} loss_rig_t;

loss_rig_t loss_rig(op_fixture_t *fx, const kern_case_loss_t *c, kern_dtype_t dtype);
void loss_rig_end(loss_rig_t *rig);
base_status_t loss_rig_run(loss_rig_t *rig, int gradient); /* gradient 0: dx and dw are absent */
void loss_rig_reference(loss_rig_t *rig);

#endif
