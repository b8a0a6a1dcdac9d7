/* The backward of a linear layer with LoRA against differences of sum(y g) in double: dx, dA and dB
 * of every adapter, with and without dropout, whose mask does not move. */
#include "tests/unit/kernels/lora_rig.h"

#include <stdlib.h>

#define SAMPLES 12
#define CASES   3 /* the small ones */

static double scalar(void *user)
{
    lora_rig_t *rig = user;

    lora_rig_forward(rig);
    return op_dot(rig->y, rig->g, rig->T * rig->N);
}

static void test_linear(void **state)
{
    for (int i = 0; i < CASES; i++) {
        const kern_case_lora_t *c = &kern_cases_lora[i];
        lora_rig_t rig = lora_rig(*state, c, KERN_F64);

        (void)scalar(&rig);
        lora_rig_backward(&rig, 0);
        op_assert_gradient(rig.x, rig.T * rig.K, rig.dx, scalar, &rig, 2 * SAMPLES, c->seed);
        for (int32_t n = 0; n < rig.num_blocks; n++) {
            const int64_t rank = rig.blocks[n].rank;

            op_assert_gradient(rig.a[n], rank * rig.K, rig.da[n], scalar, &rig, SAMPLES, c->seed);
            op_assert_gradient(rig.b[n], rank * rig.out[n], rig.db[n], scalar, &rig, SAMPLES,
                               c->seed);
        }
        lora_rig_end(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear)};

    return OP_FIXTURE_RUN(tests);
}
