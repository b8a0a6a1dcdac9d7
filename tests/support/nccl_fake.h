/* NCCL for the CPU: messages through shared memory of the processes of one host, so that all of the NCCL
 * transport but nccl_link.c, in whose place it is linked, runs in tests. Communicators (nccl_fake_api.h) behave as those of
 * NCCL 2.28: a non-blocking one is in progress until it was asked several times, and a split returns success at once,
 * but writes its handle at the end. CADRE_NCCL_FAKE_SPLIT_FAILS names a rank on which it fails. */
#ifndef CADRE_TESTS_SUPPORT_NCCL_FAKE_H
#define CADRE_TESTS_SUPPORT_NCCL_FAKE_H

/* Called by whoever wants the fake linked. */
void nccl_fake_link(void);

/* What moves of this process do from now on. */
typedef enum nccl_fake_moves {
    NCCL_FAKE_WORKS,
    NCCL_FAKE_REFUSES, /* the call fails */
    NCCL_FAKE_HANGS /* until it is aborted; NCCL's own thread knows of the failure, and says so when asked */
} nccl_fake_moves_t;
void nccl_fake_moves(nccl_fake_moves_t how);

/* What the next communicators of this process do that ranks meet in. */
typedef enum nccl_fake_meets {
    NCCL_FAKE_MEETS,
    NCCL_FAKE_REFUSES_TO, /* the call fails */
    NCCL_FAKE_BREAKS,     /* it fails while it is in progress */
    NCCL_FAKE_WAITS       /* it is in progress for ever: not all ranks have come */
} nccl_fake_meets_t;
void nccl_fake_meets(nccl_fake_meets_t how);
/* Communicators of this process that are alive. */
int nccl_fake_alive(void);

#endif
