#include "trainer/bench/bench_load_bare.h"

#include "base/clock.h"
#include "trainer/model/hf_load.h"

#include <pthread.h>

static int64_t row_bytes(const data_safetensors_entry_t *entry)
{
    return entry->bytes / entry->shape[0];
}

static int64_t num_tensors(const data_hf_folder_t *folder)
{
    return data_model_spec_num_tensors(data_hf_folder_spec(folder));
}

base_status_t tr_bare_init(tr_bare_t *bare, base_device_t *dev, const data_hf_folder_t *folder,
                           int64_t piece_bytes)
{
    int64_t bytes = 0;

    *bare = (tr_bare_t){.ctx = base_device_ctx(dev), .folder = folder, .block_bytes = piece_bytes};
    for (int64_t i = 0; i < num_tensors(folder); i++) {
        const data_safetensors_entry_t *entry = data_hf_folder_entry(folder, i);

        bytes += entry->bytes;
        if (row_bytes(entry) > bare->block_bytes) bare->block_bytes = row_bytes(entry);
    }
    bare->block_bytes =
        (bare->block_bytes + 2 * TR_HF_LOAD_ALIGN - 1) / TR_HF_LOAD_ALIGN * TR_HF_LOAD_ALIGN;
    if (bytes > TR_BARE_POOL_BYTES) bytes = TR_BARE_POOL_BYTES;
    bare->num_blocks = bytes / bare->block_bytes;
    if (bare->num_blocks < TR_BARE_THREADS) bare->num_blocks = TR_BARE_THREADS;
    bytes = bare->num_blocks * bare->block_bytes;
    BASE_TRY(base_staging_create(dev, bytes, "pool to read into", &bare->pool));
    BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, bytes, "uploads", &bare->target));
    for (int i = 0; i < TR_BARE_STREAMS; i++)
        BASE_TRY(base_stream_create(dev, BASE_STREAM_ASYNC, "bench.upload", &bare->streams[i]));
    return BASE_OK;
}

void tr_bare_deinit(tr_bare_t *bare)
{
    for (int i = 0; i < TR_BARE_STREAMS; i++)
        base_stream_destroy(bare->streams[i]);
    base_buffer_free(bare->target);
    base_staging_destroy(&bare->pool);
}

/* ==== out of the page cache ==== */

typedef struct reading {
    const tr_bare_t *bare;
    int num_threads;
    pthread_mutex_t mutex; /* of what follows */
    int64_t tensor, row;   /* where the next piece begins */
    int started;
    base_status_t status; /* the first error */
} reading_t;

typedef struct piece {
    int64_t tensor, row, rows;
} piece_t;

static int take_piece(reading_t *r, piece_t *piece)
{
    const data_hf_folder_t *folder = r->bare->folder;
    int found = 0;

    (void)pthread_mutex_lock(&r->mutex);
    if (r->status >= 0 && r->tensor < num_tensors(folder)) {
        const data_safetensors_entry_t *entry = data_hf_folder_entry(folder, r->tensor);
        const int64_t most = (r->bare->block_bytes - TR_HF_LOAD_ALIGN) / row_bytes(entry);
        const int64_t left = entry->shape[0] - r->row;

        *piece = (piece_t){r->tensor, r->row, left < most ? left : most};
        r->row += piece->rows;
        if (r->row == entry->shape[0]) {
            r->tensor++;
            r->row = 0;
        }
        found = 1;
    }
    (void)pthread_mutex_unlock(&r->mutex);
    return found;
}

/* Each thread goes round its share of the blocks. */
static void *read_main(void *arg)
{
    reading_t *r = arg;
    const tr_bare_t *b = r->bare;
    base_status_t st = BASE_OK;
    piece_t piece;

    (void)pthread_mutex_lock(&r->mutex);
    const int64_t first = r->started++;
    (void)pthread_mutex_unlock(&r->mutex);
    for (int64_t block = first; st >= 0 && take_piece(r, &piece);) {
        const data_safetensors_entry_t *entry = data_hf_folder_entry(b->folder, piece.tensor);
        const int64_t shift = (entry->offset + piece.row * row_bytes(entry)) % TR_HF_LOAD_ALIGN;
        char *to = (char *)b->pool.memory + block * b->block_bytes + shift;

        st = data_hf_folder_read_raw(b->folder, piece.tensor, piece.row, piece.rows, to);
        block = block + r->num_threads < b->num_blocks ? block + r->num_threads : first;
    }
    (void)pthread_mutex_lock(&r->mutex);
    if (st < 0 && r->status >= 0) r->status = st;
    (void)pthread_mutex_unlock(&r->mutex);
    return NULL;
}

base_status_t tr_bare_read(tr_bare_t *bare, int num_threads, int64_t *ns)
{
    reading_t r = {.bare = bare, .num_threads = num_threads};
    pthread_t ids[TR_BARE_THREADS];
    int started = 0;

    if (pthread_mutex_init(&r.mutex, NULL) != 0)
        return BASE_FAIL(bare->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "bench load: no mutex");
    const int64_t begin = base_clock_ns();
    while (started < num_threads && pthread_create(&ids[started], NULL, read_main, &r) == 0)
        started++;
    for (int i = 0; i < started; i++)
        (void)pthread_join(ids[i], NULL);
    *ns = base_clock_ns() - begin;
    (void)pthread_mutex_destroy(&r.mutex);
    if (started < num_threads)
        return BASE_FAIL(bare->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "bench load: no thread");
    return r.status;
}

/* ==== to the device ==== */

#define APART 128 /* bytes between rows, at most */

/* Of the pool from byte `at` on. */
static base_status_t upload_at(tr_bare_t *bare, const tr_bare_copies_t *c, int stream,
                               int64_t bytes, int64_t at)
{
    const int64_t row = c->row_bytes;
    base_range_t dst = {.mem = base_mem(bare->target, at), .row_bytes = bytes, .rows = 1};

    if (row > 0)
        dst = (base_range_t){.mem = base_mem(bare->target, 0),
                             .row_bytes = row,
                             .rows = bytes / row,
                             .pitch = row + (row < APART ? row : APART)};
    return base_staging_upload(bare->streams[stream], &dst, &bare->pool, at);
}

base_status_t tr_bare_upload(tr_bare_t *bare, const tr_bare_copies_t *copies, int64_t bytes,
                             int64_t *sent, int64_t *ns)
{
    const int num_streams = copies->num_streams;
    /* Of a stream. */
    const int64_t share = bare->num_blocks / num_streams * bare->block_bytes - TR_HF_LOAD_ALIGN;
    /* Rows apart take up to twice their room. */
    const int64_t most =
        copies->row_bytes > 0 ? share / 2 / copies->row_bytes * copies->row_bytes : share;
    const int64_t each = copies->copy_bytes < most ? copies->copy_bytes : most;
    int64_t at = 0;

    *sent = 0;
    const int64_t begin = base_clock_ns();
    while (*sent < bytes) {
        for (int i = 0; i < num_streams; i++) {
            BASE_TRY(upload_at(bare, copies, i, each, i * share + at + copies->shift));
            *sent += each;
        }
        at = at + 2 * each <= share ? at + each : 0;
    }
    for (int i = 0; i < num_streams; i++)
        BASE_TRY(base_stream_sync(bare->streams[i]));
    *ns = base_clock_ns() - begin;
    return BASE_OK;
}
