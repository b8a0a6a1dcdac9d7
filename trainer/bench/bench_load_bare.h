/* What loading cannot do without, each by itself: copies out of the page cache into staging memory, and
 * copies from there to the device. For trainer/bench/bench_load.c.
 *
 * Both go round a pool of TR_BARE_POOL_BYTES (less for a folder that is smaller), pinned on a GPU: more than
 * the caches of a processor's cores hold, so that what is timed is memory to memory. Taking the pool is not
 * timed. */
#ifndef CADRE_TRAINER_BENCH_BENCH_LOAD_BARE_H
#define CADRE_TRAINER_BENCH_BENCH_LOAD_BARE_H

#include "base/device/staging.h"
#include "data/hf_folder.h"

#define TR_BARE_POOL_BYTES (INT64_C(256) << 20) /* most, unless rows are longer than that */
#define TR_BARE_THREADS    16                   /* most that read */
#define TR_BARE_STREAMS    2                    /* most that upload */

typedef struct tr_bare {
    base_ctx_t *ctx;
    const data_hf_folder_t *folder;
    base_staging_t pool;
    int64_t block_bytes, num_blocks; /* of the pool */
    base_buffer_t *target;           /* as large as the pool, on the device */
    base_stream_t *streams[TR_BARE_STREAMS];
} tr_bare_t;

/* piece_bytes: what is read in one call, at least a row. Borrows dev and folder; the caller ends *bare with
 * tr_bare_deinit, also after an error. */
base_status_t tr_bare_init(tr_bare_t *bare, base_device_t *dev, const data_hf_folder_t *folder,
                           int64_t piece_bytes) BASE_MUST_CHECK;
void tr_bare_deinit(tr_bare_t *bare);

/* All tensors once, by so many threads. */
base_status_t tr_bare_read(tr_bare_t *bare, int num_threads, int64_t *ns) BASE_MUST_CHECK;

/* What is uploaded. */
typedef struct tr_bare_copies {
    int num_streams;
    int64_t copy_bytes; /* of each; at most a stream's share of the pool */
    /* Rows so long, that lie apart on the device as weights do beside adapters' columns (there each copy goes to
     * the same place); 0: as they are. copy_bytes is then a multiple of it. */
    int64_t row_bytes;
    int64_t shift; /* below 64: copies begin so many bytes behind a multiple of 64 */
} tr_bare_copies_t;

/* Copies on the streams in turn, each stream round a part of the pool of its own, until at least `bytes` have
 * gone to the device; *sent is what has. */
base_status_t tr_bare_upload(tr_bare_t *bare, const tr_bare_copies_t *copies, int64_t bytes,
                             int64_t *sent, int64_t *ns) BASE_MUST_CHECK;

#endif
