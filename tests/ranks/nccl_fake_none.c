/* With preset cuda: NCCL's own part is linked. */
#include "tests/support/nccl_fake.h"

void nccl_fake_link(void)
{
}

void nccl_fake_moves(nccl_fake_moves_t how)
{
    (void)how;
}
