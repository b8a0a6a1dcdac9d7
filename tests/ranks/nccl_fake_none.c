/* With preset cuda: NCCL's own part is linked. */
#include "tests/support/nccl_fake.h"

void nccl_fake_link(void)
{
}
