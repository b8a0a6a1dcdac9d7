#include "trainer/bench/bench_load.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/json_write.h"
#include "base/memory.h"
#include "base/version.h"
#include "trainer/model/hf_load.h"
#include "trainer/model/hf_weights.h"

#include <inttypes.h>
#include <pthread.h>

typedef struct bench {
    tr_bench_load_t *args;
    base_ctx_t *ctx;
    data_hf_folder_t *folder;
    tr_model_t *model;
    base_arena_t *arena;
    tr_weights_t *weights;
    base_stream_t *stream;
    int64_t bytes; /* of the tensors, in the files */
    int64_t load_ns, read_ns;
    int read_threads;
} bench_t;

/* ==== what the page cache gives ==== */

/* Pieces of tensors, handed out to threads. */
typedef struct reading {
    const bench_t *bench;
    pthread_mutex_t mutex; /* of what follows */
    int64_t tensor, row;
    base_status_t status;
} reading_t;

typedef struct piece {
    int64_t tensor, row, rows;
} piece_t;

static int64_t row_bytes(const data_safetensors_entry_t *entry)
{
    return entry->bytes / entry->shape[0];
}

static int take_piece(reading_t *r, piece_t *piece)
{
    const data_hf_folder_t *folder = r->bench->folder;
    int found = 0;

    (void)pthread_mutex_lock(&r->mutex);
    if (r->status >= 0 && r->tensor < data_model_spec_num_tensors(data_hf_folder_spec(folder))) {
        const data_safetensors_entry_t *entry = data_hf_folder_entry(folder, r->tensor);
        const int64_t fit = TR_HF_LOAD_SLOT_BYTES / row_bytes(entry);
        const int64_t left = entry->shape[0] - r->row, most = fit > 0 ? fit : 1;

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

static void *read_main(void *arg)
{
    reading_t *r = arg;
    const data_hf_folder_t *folder = r->bench->folder;
    int64_t bytes = TR_HF_LOAD_SLOT_BYTES;
    piece_t piece;

    for (int64_t i = 0; i < data_model_spec_num_tensors(data_hf_folder_spec(folder)); i++)
        if (row_bytes(data_hf_folder_entry(folder, i)) > bytes)
            bytes = row_bytes(data_hf_folder_entry(folder, i));
    void *to = base_alloc(r->bench->ctx, (size_t)bytes, "weights to read");
    base_status_t st = to == NULL ? BASE_ERR_NOMEM : BASE_OK;
    while (st >= 0 && take_piece(r, &piece))
        st = data_hf_folder_read_raw(folder, piece.tensor, piece.row, piece.rows, to);
    base_free(r->bench->ctx, to);
    (void)pthread_mutex_lock(&r->mutex);
    if (st < 0) r->status = st;
    (void)pthread_mutex_unlock(&r->mutex);
    return NULL;
}

static base_status_t read_all(const bench_t *b, int threads, int64_t *ns)
{
    reading_t r = {.bench = b};
    pthread_t ids[TR_BENCH_LOAD_THREADS];
    int started = 0;

    if (pthread_mutex_init(&r.mutex, NULL) != 0)
        return BASE_FAIL(b->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "bench load: no mutex");
    const int64_t begin = base_clock_ns();
    while (started < threads && pthread_create(&ids[started], NULL, read_main, &r) == 0)
        started++;
    for (int i = 0; i < started; i++)
        (void)pthread_join(ids[i], NULL);
    *ns = base_clock_ns() - begin;
    (void)pthread_mutex_destroy(&r.mutex);
    if (started < threads)
        return BASE_FAIL(b->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "bench load: no thread");
    return r.status;
}

/* ==== loading ==== */

static base_status_t open_all(bench_t *b, base_device_t *dev)
{
    double inv_freq[DATA_MODEL_MAX_HEAD_DIM / 2];
    tr_model_config_t config;

    BASE_TRY(data_hf_folder_open(b->ctx, b->args->model, NULL, &b->folder));
    const data_model_spec_t *spec = data_hf_folder_spec(b->folder);
    for (int64_t i = 0; i < data_model_spec_num_tensors(spec); i++)
        b->bytes += data_hf_folder_entry(b->folder, i)->bytes;
    tr_hf_model_config(spec, b->args->dtype, 1, inv_freq, &config);
    config.frozen = 1;
    BASE_TRY(tr_model_create(b->ctx, &config, &b->model));
    BASE_TRY(base_arena_create(dev, BASE_MEMORY_DEVICE, "device", &b->arena));
    BASE_TRY(tr_weights_create(b->model, b->arena, &b->weights));
    BASE_TRY(base_arena_commit(b->arena));
    return base_stream_create(dev, BASE_STREAM_COMPUTE, "compute", &b->stream);
}

static void close_all(bench_t *b)
{
    base_stream_destroy(b->stream);
    tr_weights_destroy(b->weights);
    base_arena_destroy(b->arena);
    tr_model_destroy(b->model);
    data_hf_folder_close(b->folder);
}

static base_status_t measure(bench_t *b)
{
    int64_t ns;

    BASE_TRY(read_all(b, TR_HF_LOAD_THREADS, &ns));
    for (int64_t i = 0; i < b->args->repeat; i++) {
        const int64_t begin = base_clock_ns();

        BASE_TRY(tr_hf_load(b->weights, b->folder, b->stream));
        ns = base_clock_ns() - begin;
        if (b->load_ns == 0 || ns < b->load_ns) b->load_ns = ns;
        for (int threads = 1; threads <= TR_BENCH_LOAD_THREADS; threads *= 2) {
            BASE_TRY(read_all(b, threads, &ns));
            if (b->read_ns != 0 && ns >= b->read_ns) continue;
            b->read_ns = ns;
            b->read_threads = threads;
        }
    }
    return BASE_OK;
}

/* ==== report ==== */

static void put(base_json_t *j, const char *key, double value)
{
    base_json_put_double(j, key, value);
}

static base_status_t report(const bench_t *b, const base_device_t *dev, double share)
{
    const double gb = (double)b->bytes * 1e-9;
    const double load_s = (double)b->load_ns * 1e-9, read_s = (double)b->read_ns * 1e-9;
    base_json_t j;

    if (!b->args->json) {
        (void)fprintf(b->args->out,
                      "%s: %s, %.2f GB\n"
                      "load  %8.3f s, %7.2f GB/s, with %d threads\n"
                      "read  %8.3f s, %7.2f GB/s, with %d threads, from the page cache\n"
                      "share %8.2f\n",
                      base_device_name(dev), b->args->model, gb, load_s, gb / load_s,
                      TR_HF_LOAD_THREADS, read_s, gb / read_s, b->read_threads, share);
        return BASE_OK;
    }
    base_json_to_file(&j, b->args->out);
    base_json_begin_object(&j);
    base_json_put_string(&j, "commit", base_version_commit());
    base_json_put_string(&j, "device", base_device_name(dev));
    base_json_put_int(&j, "bytes", b->bytes);
    base_json_put_int(&j, "load_threads", TR_HF_LOAD_THREADS);
    base_json_put_int(&j, "read_threads", b->read_threads);
    put(&j, "load_s", load_s);
    put(&j, "read_s", read_s);
    put(&j, "load_gb_per_s", gb / load_s);
    put(&j, "read_gb_per_s", gb / read_s);
    put(&j, "share", share);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, b->ctx, "standard output");
}

base_status_t tr_bench_load_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    tr_bench_load_t *args = user;
    bench_t b = {.args = args, .ctx = ctx};

    (void)group;
    base_status_t st = open_all(&b, dev);
    if (st >= 0) st = measure(&b);
    if (st >= 0) {
        const double share = (double)b.read_ns / (double)b.load_ns;

        args->met = share * 100.0 >= args->want_share;
        st = report(&b, dev, share);
    }
    close_all(&b);
    return st;
}
