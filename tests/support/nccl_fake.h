/* comm/nccl_link.h for the CPU: messages through shared memory of the processes of one host, so that all
 * of the NCCL transport but the calls of NCCL runs in tests. Linked in place of nccl_link.c. */
#ifndef CADRE_TESTS_SUPPORT_NCCL_FAKE_H
#define CADRE_TESTS_SUPPORT_NCCL_FAKE_H

/* Called by whoever wants the fake linked. */
void nccl_fake_link(void);

#endif
