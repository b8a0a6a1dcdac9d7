#include "trainer/model/hf_load.h"

#include "base/clock.h"
#include "base/memory.h"
#include "trainer/model/hf_load_feed.h"
#include "trainer/model/hf_load_way.h"
#include "trainer/model/hf_weights.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define SPIN_NS 200000 /* an upload takes 40 us */

static const char WHAT[] = "weights to load";

/* Rows [row, row + rows) of a tensor. */
typedef struct piece {
    data_model_tensor_t tensor;
    int64_t index, row, rows;
} piece_t;

typedef struct slot {
    const base_staging_t *staging; /* from byte `at` on */
    int64_t at, shift;             /* what was read begins `shift` bytes behind that */
    base_range_t rows;             /* where it goes to */
} slot_t;

/* Numbers of slots: who has one may read and write it. */
typedef struct ring {
    int slots[TR_HF_LOAD_SLOTS];
    int64_t num_put, num_taken;
} ring_t;

typedef struct loader {
    const tr_weights_t *weights;
    const data_hf_folder_t *folder;
    tr_hf_load_way_t way;
    float *single; /* [num_threads][elements of a slot]; NULL: nothing is converted by way of it */

    pthread_mutex_t mutex;        /* of what follows */
    pthread_cond_t freed, filled; /* readers wait for the one, the feeding thread for the other */
    int64_t tensor, row;          /* where the next piece begins */
    ring_t free, full;
    int started, ended;   /* threads that read */
    base_status_t status; /* the first error */

    atomic_int num_full; /* for a look without the mutex */
    slot_t slots[TR_HF_LOAD_SLOTS];
    tr_hf_feed_t feed; /* the feeding thread's */

    base_staging_t memory[TR_HF_LOAD_SLOTS]; /* each of at_once slots; the calling thread's */
    pthread_t threads[1 + TR_HF_LOAD_THREADS];
    int num_threads;
} loader_t;

static int64_t row_elements(const data_model_tensor_t *t)
{
    return t->rank == 1 ? 1 : t->shape[1];
}

static int64_t piece_rows(const data_model_tensor_t *t, kern_dtype_t dtype, int64_t bytes)
{
    return bytes / (row_elements(t) * kern_dtype_bytes(dtype));
}

/* ==== what threads have in common ==== */

static void fail(loader_t *l, base_status_t st)
{
    if (st >= 0) return;
    (void)pthread_mutex_lock(&l->mutex);
    if (l->status >= 0) l->status = st;
    (void)pthread_cond_broadcast(&l->freed);
    (void)pthread_cond_signal(&l->filled);
    (void)pthread_mutex_unlock(&l->mutex);
}

static base_status_t status(loader_t *l)
{
    (void)pthread_mutex_lock(&l->mutex);
    const base_status_t st = l->status;
    (void)pthread_mutex_unlock(&l->mutex);
    return st;
}

static int is_empty(const ring_t *ring)
{
    return ring->num_taken == ring->num_put;
}

static int take_from(ring_t *ring)
{
    return ring->slots[ring->num_taken++ % TR_HF_LOAD_SLOTS];
}

static void put(loader_t *l, ring_t *ring, int slot, pthread_cond_t *changed)
{
    (void)pthread_mutex_lock(&l->mutex);
    ring->slots[ring->num_put++ % TR_HF_LOAD_SLOTS] = slot;
    (void)pthread_mutex_unlock(&l->mutex);
    (void)pthread_cond_signal(changed); /* whoever wakes finds the mutex free */
}

static void set_free(loader_t *l, int slot)
{
    put(l, &l->free, slot, &l->freed);
}

static void set_full(loader_t *l, int slot)
{
    (void)atomic_fetch_add_explicit(&l->num_full, 1, memory_order_relaxed);
    put(l, &l->full, slot, &l->filled);
}

/* The mutex is held, and there is one. */
static void next_piece(loader_t *l, piece_t *piece)
{
    const kern_dtype_t dtype = l->weights->model->config.dtype;

    piece->index = l->tensor;
    piece->row = l->row;
    data_model_spec_tensor(data_hf_folder_spec(l->folder), l->tensor, &piece->tensor);
    const int64_t most = piece_rows(&piece->tensor, dtype, l->way.slot_bytes);
    const int64_t left = piece->tensor.shape[0] - l->row;

    piece->rows = left < most ? left : most;
    l->row += piece->rows;
    if (l->row < piece->tensor.shape[0]) return;
    l->tensor++;
    l->row = 0;
}

/* ==== threads that read ==== */

/* The next piece and a free slot for it; -1: no more pieces, or an error. */
static int take_piece(loader_t *l, piece_t *piece)
{
    const int64_t num_tensors = data_model_spec_num_tensors(data_hf_folder_spec(l->folder));
    int slot = -1;

    (void)pthread_mutex_lock(&l->mutex);
    while (l->status >= 0 && l->tensor < num_tensors && is_empty(&l->free))
        (void)pthread_cond_wait(&l->freed, &l->mutex);
    if (l->status >= 0 && l->tensor < num_tensors) {
        next_piece(l, piece);
        slot = take_from(&l->free);
    } else
        (void)pthread_cond_broadcast(&l->freed); /* others need not wait for a slot either */
    (void)pthread_mutex_unlock(&l->mutex);
    return slot;
}

static int is_raw(const loader_t *l, const piece_t *p)
{
    return data_hf_folder_entry(l->folder, p->index)->dtype ==
           tr_hf_load_dtype(l->weights->model->config.dtype);
}

/* Slots begin at a multiple. */
static int64_t shift_of(const loader_t *l, const piece_t *p)
{
    const data_safetensors_entry_t *entry = data_hf_folder_entry(l->folder, p->index);

    if (l->way.at_start || !is_raw(l, p)) return 0;
    return (entry->offset + entry->bytes / entry->shape[0] * p->row) % TR_HF_LOAD_ALIGN;
}

static base_status_t read_piece(const loader_t *l, const piece_t *p, void *to, float *single)
{
    const kern_dtype_t dtype = l->weights->model->config.dtype;

    if (is_raw(l, p)) return data_hf_folder_read_raw(l->folder, p->index, p->row, p->rows, to);
    if (dtype == KERN_F32)
        return data_hf_folder_read_float(l->folder, p->index, p->row, p->rows, to);
    if (dtype == KERN_F64)
        return data_hf_folder_read_double(l->folder, p->index, p->row, p->rows, to);
    BASE_TRY(data_hf_folder_read_float(l->folder, p->index, p->row, p->rows, single));
    data_dtype_from_float(DATA_BF16, single, to, p->rows * row_elements(&p->tensor));
    return BASE_OK;
}

/* Where it goes to. */
static base_range_t piece_place(const loader_t *l, const piece_t *p)
{
    const tr_model_t *model = l->weights->model;
    const tr_hf_place_t place = tr_hf_place(model, p->tensor.kind);
    const int32_t weight = tr_model_weight(model, place.kind, p->tensor.layer);
    const int64_t element = kern_dtype_bytes(model->config.dtype);
    const int64_t pitch = p->tensor.rank == 1 ? element : model->weights[weight].pitch * element;
    const base_mem_t to = tr_weights_mat(l->weights, weight).mem;

    return (base_range_t){.mem = base_mem_at(to, (place.row + p->row) * pitch),
                          .row_bytes = row_elements(&p->tensor) * element,
                          .rows = p->rows,
                          .pitch = pitch};
}

static void *read_main(void *arg)
{
    loader_t *l = arg;
    const int64_t elements = l->way.slot_bytes / kern_dtype_bytes(KERN_BF16);
    base_status_t st = BASE_OK;
    piece_t piece;
    int number;

    (void)pthread_mutex_lock(&l->mutex);
    float *single = l->single == NULL ? NULL : l->single + l->started * elements;
    l->started++;
    (void)pthread_mutex_unlock(&l->mutex);
    while (st >= 0 && (number = take_piece(l, &piece)) >= 0) {
        slot_t *slot = &l->slots[number];

        slot->shift = shift_of(l, &piece);
        st = read_piece(l, &piece, (char *)slot->staging->memory + slot->at + slot->shift, single);
        slot->rows = piece_place(l, &piece);
        if (st >= 0) set_full(l, number);
    }
    fail(l, st);
    (void)pthread_mutex_lock(&l->mutex);
    l->ended++;
    (void)pthread_cond_signal(&l->filled);
    (void)pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* ==== the thread that feeds the device ==== */

/* A full slot, for which it waits when it has nothing else to do; -1: there is none, or an error. */
static int take_full(loader_t *l, int wait)
{
    int slot = -1;

    (void)pthread_mutex_lock(&l->mutex);
    while (wait && l->status >= 0 && is_empty(&l->full) && l->ended < l->way.num_threads)
        (void)pthread_cond_wait(&l->filled, &l->mutex);
    if (l->status >= 0 && !is_empty(&l->full)) {
        slot = take_from(&l->full);
        (void)atomic_fetch_sub_explicit(&l->num_full, 1, memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&l->mutex);
    return slot;
}

/* Until something has passed or is full. Sleeping takes longer than an upload. */
static base_status_t wait_for_upload(loader_t *l)
{
    const int64_t end = base_clock_ns() + SPIN_NS;
    base_status_t st;
    int slot;

    while ((st = tr_hf_feed_passed(&l->feed, &slot)) == BASE_PENDING) {
        if (atomic_load_explicit(&l->num_full, memory_order_relaxed) > 0) return BASE_OK;
        if (base_clock_ns() > end) {
            st = tr_hf_feed_wait(&l->feed, &slot);
            break;
        }
        (void)sched_yield();
    }
    BASE_TRY(st);
    set_free(l, slot);
    return BASE_OK;
}

static base_status_t give(loader_t *l, int number)
{
    const slot_t *slot = &l->slots[number];

    return tr_hf_feed_give(&l->feed, number, slot->staging, slot->at + slot->shift, &slot->rows);
}

static base_status_t feed(loader_t *l)
{
    for (;;) {
        const int number = take_full(l, tr_hf_feed_num_on_way(&l->feed) == 0);

        if (number >= 0)
            BASE_TRY(give(l, number));
        else if (tr_hf_feed_num_on_way(&l->feed) == 0 || status(l) < 0)
            return BASE_OK;
        BASE_TRY(wait_for_upload(l));
    }
}

static void *feed_main(void *arg)
{
    fail(arg, feed(arg));
    return NULL;
}

/* ==== the calling thread ==== */

static base_status_t start_thread(loader_t *l, void *(*run)(void *))
{
    base_ctx_t *ctx = l->weights->ctx;

    if (pthread_create(&l->threads[l->num_threads], NULL, run, l) != 0)
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no thread", WHAT);
    base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
    l->num_threads++;
    return BASE_OK;
}

static base_status_t start_threads(loader_t *l)
{
    BASE_TRY(start_thread(l, feed_main));
    for (int i = 0; i < l->way.num_threads; i++)
        BASE_TRY(start_thread(l, read_main));
    return BASE_OK;
}

/* Threads read into the first slots while later ones are made. */
static base_status_t open_slots(loader_t *l, base_device_t *dev)
{
    const int at_once = l->way.at_once;
    const int64_t stride = tr_hf_load_stride(&l->way);

    for (int i = 0; i < l->way.num_slots && status(l) >= 0; i += at_once) {
        const int left = l->way.num_slots - i, num = left < at_once ? left : at_once;
        base_staging_t *memory = &l->memory[i / at_once];

        BASE_TRY(base_staging_create_raw(dev, num * stride, WHAT, memory));
        for (int k = 0; k < num; k++) {
            l->slots[i + k] = (slot_t){.staging = memory, .at = k * stride};
            set_free(l, i + k);
        }
    }
    return BASE_OK;
}

static base_status_t open_loader(loader_t *l, base_device_t *dev)
{
    base_ctx_t *ctx = l->weights->ctx;
    const int64_t single = tr_hf_load_singles(l->weights->model, l->folder, &l->way);

    if (single > 0) {
        l->single = base_calloc(ctx, single, sizeof *l->single, WHAT);
        if (l->single == NULL) return BASE_ERR_NOMEM;
    }
    BASE_TRY(tr_hf_feed_open(&l->feed, dev, &l->way));
    BASE_TRY(start_threads(l));
    return open_slots(l, dev);
}

static void close_loader(loader_t *l, base_status_t st)
{
    base_ctx_t *ctx = l->weights->ctx;

    fail(l, st);
    for (int i = 0; i < l->num_threads; i++) {
        (void)pthread_join(l->threads[i], NULL);
        base_memory_count_close(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
    }
    fail(l, tr_hf_feed_close(&l->feed));
    for (int i = 0; i < TR_HF_LOAD_SLOTS; i++)
        base_staging_destroy(&l->memory[i]);
    base_free(ctx, l->single);
}

static base_status_t init_locks(loader_t *l)
{
    if (pthread_mutex_init(&l->mutex, NULL) != 0) return BASE_ERR_NOMEM;
    if (pthread_cond_init(&l->freed, NULL) != 0) goto err_mutex;
    if (pthread_cond_init(&l->filled, NULL) != 0) goto err_freed;
    return BASE_OK;
err_freed:
    (void)pthread_cond_destroy(&l->freed);
err_mutex:
    (void)pthread_mutex_destroy(&l->mutex);
    return BASE_ERR_NOMEM;
}

base_status_t tr_hf_load_by(const tr_weights_t *weights, const data_hf_folder_t *folder,
                            const tr_hf_load_way_t *way, base_stream_t *stream)
{
    loader_t l = {
        .weights = weights, .folder = folder, .way = tr_hf_load_settled(weights->model, way)};

    assert(way->num_threads >= 1 && way->num_threads <= TR_HF_LOAD_THREADS);
    assert(way->num_slots >= way->num_threads && way->num_slots <= TR_HF_LOAD_SLOTS);
    assert(way->at_once >= 1 && way->at_once <= way->num_slots);
    assert(way->num_landings >= 0 && way->num_landings <= TR_HF_LOAD_LANDINGS);
    atomic_init(&l.num_full, 0);
    BASE_TRY(base_stream_sync(stream)); /* our own streams come behind it */
    if (init_locks(&l) < 0)
        return BASE_FAIL(weights->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no mutex", WHAT);
    close_loader(&l, open_loader(&l, base_stream_device(stream)));
    (void)pthread_cond_destroy(&l.filled);
    (void)pthread_cond_destroy(&l.freed);
    (void)pthread_mutex_destroy(&l.mutex);
    return l.status;
}

base_status_t tr_hf_load(const tr_weights_t *weights, const data_hf_folder_t *folder,
                         base_stream_t *stream)
{
    const tr_hf_load_way_t way = tr_hf_load_way(weights->model);

    return tr_hf_load_by(weights, folder, &way, stream);
}
