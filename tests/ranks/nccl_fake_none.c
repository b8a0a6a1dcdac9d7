/* With preset cuda: NCCL's own part is linked. */
#include "tests/support/nccl_fake.h"

void nccl_fake_link(void)
{
}

void nccl_fake_moves(nccl_fake_moves_t how)
{
    (void)how;
}

void nccl_fake_meets(nccl_fake_meets_t how)
{
    (void)how;
}

int nccl_fake_alive(void)
{
    return 0;
}
