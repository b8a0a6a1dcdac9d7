/* The copy engine transport: data between the ranks of one host, MPI for everything else.
 *
 * The ranks are those of the MPI transport (comm/mpi.h), which goes on to carry collectives, stops and
 * ends, and the data of peers on other hosts (cpu and strict; on cuda that is an error, and nccl the
 * transport to choose). What moves between ranks of one host is copied once, from the sender's buffer to
 * its final place, by a copy of the receiver's device: memcpy from memory that the processes share, or
 * a GPU's copy engines through CUDA IPC, without a multiprocessor.
 *
 * The receiver pulls. It alone knows when its place is free and where that is; so nothing but the
 * sender's list has to be told, "data is here" needs no message, and no rank's memory is written by
 * another one. Over NVLink reads are as fast as writes.
 *
 * Every rank has a *desk*, host memory that the ranks of its host read: what it lists for whom in its
 * open exchanges, with its buffers as exports; and a bank of counters (base/device/device.h): READY, of each slot
 * which exchange is ready, and for each peer CONSUMED, how far that peer has read them. A thread, the
 * *pump*, looks for exchanges that a peer has ready and gives their copies to ASYNC streams, COMM_COPY_LANES a channel in
 * turn; behind them their stream raises the counters for which the two ranks' streams wait. The device thus waits for
 * counters only where the caller's streams do, never in front of a copy, so that a late peer holds up
 * nobody else's data; and every failure is found by the pump. */
#ifndef CADRE_COMM_COPY_ENGINE_H
#define CADRE_COMM_COPY_ENGINE_H

#include "comm/mpi_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Streams that the exchanges of a channel take in turn, short ones by fours (comm/share.h). Between a
 * copy and the counters behind it, and between those and the next copy, a GPU's stream goes from one
 * engine to another, 4 to 8 us in all (docs/kernels/links.md); meanwhile the other stream copies.
 * Divides COMM_MAX_OPEN_EXCHANGES. */
#define COMM_COPY_LANES 2

/* Has `g` carry data by copies from now on. Collective, before the first exchange; g's ranks have
 * opened their devices with base_device_share. Everything that is needed of devices is tried (copy_engine_check.c); when
 * a rank cannot do it, all fail with its error (COMM-05 when memory cannot be reached), and `g` is as before. */
base_status_t comm_copy_engine_open(comm_mpi_group_t *g) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
