/* What NCCL takes of a GPU for the buffers of its communicators, by rule: for plans of memory, on any machine.
 *
 * From NCCL 2.28 (src/channel.cc, src/transport/p2p.cc, devCommSetup in src/init.cc). Every allocation is a piece of its own
 * of whole 2 MiB, the granularity of cuMemCreate. A communicator between GPUs of one host that NVLink joins has
 * 32 channels for sends and receives (ncclTopoComputeP2pChannels), all of which are connected when two ranks first exchange
 * anything. So it takes
 *
 *   2 pieces of its own, and 3 for each channel (peers, addresses of peers, ring):                 196 MiB
 *   for each other rank and channel what that one writes into, 10 MiB (LL 0.5, LL128 4.7, Simple 4 MiB and a page: NCCL gives
 *   room to all three protocols, whichever is used), and a piece for what it says as a sender, 2 MiB:   384 MiB
 *
 * and the transport has COMM_NUM_CHANNELS communicators: 1160 MiB on two GPUs, 2696 on four. The communicators in which ranks
 * meet (nccl_meet.c) are gone by then. Not in it: the code and the stacks of NCCL's kernels (trainer/run/driver_memory.h);
 * the transport's own staging, which is counted like any buffer, when it is there; and ranks of other hosts, whose messages
 * go through at most 64 MiB a communicator and direction, in host memory without GPUDirect.
 *
 * NCCL_BUFFSIZE, NCCL_LL128_BUFFSIZE, NCCL_MAX_P2P_NCHANNELS and what else changes these numbers is not looked at. */
#ifndef CADRE_COMM_NCCL_MEMORY_H
#define CADRE_COMM_NCCL_MEMORY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes on each rank's GPU. num_ranks: of its host; one rank alone has no communicator. */
int64_t comm_nccl_buffer_bytes(int num_ranks);

#ifdef __cplusplus
}
#endif
#endif
