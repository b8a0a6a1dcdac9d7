#include "comm/nccl_memory.h"

#include "comm/comm.h"

#define PIECE    (INT64_C(2) << 20)
#define CHANNELS 32

/* Of a receiver: what a step of each protocol takes, as src/init.cc and src/include/device.h have it. */
#define STEPS  8
#define LL     (INT64_C(8) * 512 * STEPS * 16)  /* lines a thread, threads, bytes of a line */
#define LL128  (INT64_C(120) * 640 * STEPS * 8) /* words a thread, threads, bytes of a word */
#define SIMPLE (INT64_C(4) << 20)
#define PAGE   INT64_C(4096) /* ncclSendMem, ncclRecvMem */

static int64_t pieces(int64_t bytes)
{
    return (bytes + PIECE - 1) / PIECE * PIECE;
}

int64_t comm_nccl_buffer_bytes(int num_ranks)
{
    const int64_t own = 2 * PIECE + CHANNELS * 3 * PIECE;
    const int64_t peer = CHANNELS * (pieces(PAGE + LL + LL128 + SIMPLE) + pieces(PAGE));

    if (num_ranks < 2) return 0;
    return COMM_NUM_CHANNELS * (own + (num_ranks - 1) * peer);
}
