/* Weights from a folder to the device: threads read pieces of tensors into slots of staging memory, in
 * the weights' dtype; the caller's thread uploads slot after slot and has the device put the rows in
 * place. What is read is as long as memory and disk allow; nothing goes through doubles. */
#include "base/clock.h"
#include "base/device/staging.h"
#include "base/memory.h"
#include "trainer/model/hf_weights.h"

#include <pthread.h>

typedef enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READY, SLOT_GIVEN } slot_state_t;

/* Rows [row, row + rows) of a tensor. */
typedef struct piece {
    data_model_tensor_t tensor;
    int64_t index, row, rows;
} piece_t;

typedef struct slot {
    base_staging_t staging;
    base_event_t *given; /* its upload */
    slot_state_t state;
    piece_t piece;
} slot_t;

typedef struct loader {
    const tr_weights_t *weights;
    const data_hf_folder_t *folder;
    base_stream_t *stream;
    base_buffer_t
        *landing; /* of one slot, on the device: uploads are contiguous, rows have pitches */
    int64_t slot_bytes;
    pthread_mutex_t mutex; /* of what follows, and of the slots' states */
    pthread_cond_t changed;
    slot_t slots[TR_HF_LOAD_SLOTS];
    int64_t next;         /* number of the next piece; it goes to slot next % TR_HF_LOAD_SLOTS */
    int64_t tensor, row;  /* where it begins */
    int ended;            /* there is none */
    base_status_t status; /* the first error */
    pthread_t threads[TR_HF_LOAD_THREADS];
    int num_threads;
} loader_t;

static data_dtype_t file_dtype(kern_dtype_t dtype)
{
    return dtype == KERN_F64 ? DATA_F64 : dtype == KERN_BF16 ? DATA_BF16 : DATA_F32;
}

static int64_t row_elements(const data_model_tensor_t *t)
{
    return t->rank == 1 ? 1 : t->shape[1];
}

int64_t tr_hf_load_slot_bytes(const tr_model_t *model)
{
    const int64_t element = kern_dtype_bytes(model->config.dtype);
    int64_t widest = 0, largest = 0;

    for (int32_t i = 0; i < model->num_weights; i++) {
        const tr_weight_spec_t *w = &model->weights[i];

        widest = w->cols > widest ? w->cols : widest;
        largest = w->rows * w->cols > largest ? w->rows * w->cols : largest;
    }
    if (largest * element <= TR_HF_LOAD_SLOT_BYTES) return largest * element;
    return widest * element > TR_HF_LOAD_SLOT_BYTES ? widest * element : TR_HF_LOAD_SLOT_BYTES;
}

/* ==== the threads that read ==== */

/* The mutex is held. 0: no more pieces. */
static int take_piece(loader_t *l, piece_t *piece)
{
    const data_model_spec_t *spec = data_hf_folder_spec(l->folder);

    if (l->tensor >= data_model_spec_num_tensors(spec)) return 0;
    piece->index = l->tensor;
    piece->row = l->row;
    data_model_spec_tensor(spec, l->tensor, &piece->tensor);
    const int64_t element = kern_dtype_bytes(l->weights->model->config.dtype);
    const int64_t most = l->slot_bytes / (row_elements(&piece->tensor) * element);
    const int64_t left = piece->tensor.shape[0] - l->row;

    piece->rows = left < most ? left : most;
    l->row += piece->rows;
    if (l->row == piece->tensor.shape[0]) {
        l->tensor++;
        l->row = 0;
    }
    return 1;
}

static base_status_t read_piece(const loader_t *l, const piece_t *p, void *to, float *single)
{
    const kern_dtype_t dtype = l->weights->model->config.dtype;

    if (data_hf_folder_entry(l->folder, p->index)->dtype == file_dtype(dtype))
        return data_hf_folder_read_raw(l->folder, p->index, p->row, p->rows, to);
    if (dtype == KERN_F32)
        return data_hf_folder_read_float(l->folder, p->index, p->row, p->rows, to);
    if (dtype == KERN_F64)
        return data_hf_folder_read_double(l->folder, p->index, p->row, p->rows, to);
    BASE_TRY(data_hf_folder_read_float(l->folder, p->index, p->row, p->rows, single));
    data_dtype_from_float(DATA_BF16, single, to, p->rows * row_elements(&p->tensor));
    return BASE_OK;
}

static void fail(loader_t *l, base_status_t st)
{
    if (st < 0 && l->status >= 0) l->status = st;
}

static void *read_main(void *arg)
{
    loader_t *l = arg;
    base_ctx_t *ctx = l->weights->ctx;
    const kern_dtype_t dtype = l->weights->model->config.dtype;
    const int64_t elements = dtype == KERN_BF16 ? l->slot_bytes / kern_dtype_bytes(dtype) : 0;
    float *single = base_calloc(ctx, elements, sizeof *single, "weights to load");

    (void)pthread_mutex_lock(&l->mutex);
    if (single == NULL) fail(l, BASE_ERR_NOMEM);
    while (l->status >= 0 && !l->ended) {
        slot_t *slot = &l->slots[l->next % TR_HF_LOAD_SLOTS];

        if (slot->state != SLOT_FREE) {
            (void)pthread_cond_wait(&l->changed, &l->mutex);
            continue;
        }
        if (!take_piece(l, &slot->piece)) {
            l->ended = 1;
            break;
        }
        l->next++;
        slot->state = SLOT_READING;
        (void)pthread_mutex_unlock(&l->mutex);
        const base_status_t st = read_piece(l, &slot->piece, slot->staging.memory, single);
        (void)pthread_mutex_lock(&l->mutex);
        slot->state = SLOT_READY;
        fail(l, st);
        (void)pthread_cond_broadcast(&l->changed);
    }
    (void)pthread_cond_broadcast(&l->changed);
    (void)pthread_mutex_unlock(&l->mutex);
    base_free(ctx, single);
    return NULL;
}

/* ==== the caller's thread ==== */

static base_status_t give(const loader_t *l, slot_t *slot)
{
    const tr_model_t *model = l->weights->model;
    const piece_t *p = &slot->piece;
    const tr_hf_place_t place = tr_hf_place(model, p->tensor.kind);
    const int32_t weight = tr_model_weight(model, place.kind, p->tensor.layer);
    const int64_t element = kern_dtype_bytes(model->config.dtype);
    const int64_t row_bytes = row_elements(&p->tensor) * element;
    const base_mem_t to = tr_weights_mat(l->weights, weight).mem;
    const int64_t pitch = p->tensor.rank == 1 ? element : model->weights[weight].pitch * element;
    base_range_t src = {.mem = base_mem(l->landing, 0),
                        .row_bytes = row_bytes,
                        .rows = p->rows,
                        .pitch = row_bytes};
    base_range_t dst = {.mem = base_mem_at(to, (place.row + p->row) * pitch),
                        .row_bytes = row_bytes,
                        .rows = p->rows,
                        .pitch = pitch};

    if (p->tensor.rank == 1) { /* elements of one row */
        src.row_bytes = dst.row_bytes = p->rows * element;
        src.rows = dst.rows = 1;
    }
    BASE_TRY(base_upload(l->stream, src.mem, slot->staging.memory, p->rows * row_bytes));
    BASE_TRY(base_copy(l->stream, &dst, &src));
    return base_event_record(slot->given, l->stream);
}

/* The upload of the slot has passed: somebody may read into it again. */
static base_status_t take_back(loader_t *l, slot_t *slot)
{
    base_status_t st;

    while ((st = base_event_query(slot->given)) == BASE_PENDING)
        base_clock_sleep_ns(20000);
    (void)pthread_mutex_lock(&l->mutex);
    slot->state = SLOT_FREE;
    (void)pthread_cond_broadcast(&l->changed);
    (void)pthread_mutex_unlock(&l->mutex);
    return st;
}

/* Waits until piece `number` has been read, and takes its slot. 0: there is none, or something
 * failed. */
static int await_piece(loader_t *l, int64_t number)
{
    slot_t *slot = &l->slots[number % TR_HF_LOAD_SLOTS];

    (void)pthread_mutex_lock(&l->mutex);
    while (l->status >= 0 && slot->state != SLOT_READY && !(l->ended && number >= l->next))
        (void)pthread_cond_wait(&l->changed, &l->mutex);
    const int found = l->status >= 0 && slot->state == SLOT_READY;
    if (found) slot->state = SLOT_GIVEN;
    (void)pthread_mutex_unlock(&l->mutex);
    return found;
}

static base_status_t give_all(loader_t *l)
{
    for (int64_t n = 0; await_piece(l, n); n++) {
        slot_t *slot = &l->slots[n % TR_HF_LOAD_SLOTS];

        BASE_TRY(give(l, slot));
        if (n > 0) BASE_TRY(take_back(l, &l->slots[(n - 1) % TR_HF_LOAD_SLOTS]));
    }
    return BASE_OK;
}

static base_status_t open_loader(loader_t *l)
{
    base_device_t *dev = base_stream_device(l->stream);
    base_ctx_t *ctx = l->weights->ctx;

    BASE_TRY(
        base_buffer_alloc(dev, BASE_MEMORY_DEVICE, l->slot_bytes, "weights to load", &l->landing));
    for (int i = 0; i < TR_HF_LOAD_SLOTS; i++) {
        BASE_TRY(base_staging_create(dev, l->slot_bytes, "weights to load", &l->slots[i].staging));
        BASE_TRY(base_event_create(dev, &l->slots[i].given));
    }
    while (l->num_threads < TR_HF_LOAD_THREADS) {
        if (pthread_create(&l->threads[l->num_threads], NULL, read_main, l) != 0)
            return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "weights to load: no thread");
        base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
        l->num_threads++;
    }
    return BASE_OK;
}

static void close_loader(loader_t *l, base_status_t st)
{
    (void)pthread_mutex_lock(&l->mutex);
    fail(l, st);
    (void)pthread_cond_broadcast(&l->changed);
    (void)pthread_mutex_unlock(&l->mutex);
    for (int i = 0; i < l->num_threads; i++) {
        (void)pthread_join(l->threads[i], NULL);
        base_memory_count_close(base_ctx_memory(l->weights->ctx), BASE_RESOURCE_THREAD);
    }
    fail(l, base_stream_sync(l->stream));
    for (int i = 0; i < TR_HF_LOAD_SLOTS; i++) {
        if (l->slots[i].given != NULL) base_event_destroy(l->slots[i].given);
        base_staging_destroy(&l->slots[i].staging);
    }
    base_buffer_free(l->landing);
}

base_status_t tr_hf_weights_load(const tr_weights_t *weights, const data_hf_folder_t *folder,
                                 base_stream_t *stream)
{
    loader_t l = {.weights = weights,
                  .folder = folder,
                  .stream = stream,
                  .slot_bytes = tr_hf_load_slot_bytes(weights->model)};

    if (pthread_mutex_init(&l.mutex, NULL) != 0 || pthread_cond_init(&l.changed, NULL) != 0)
        return BASE_FAIL(weights->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "weights to load: no mutex");
    base_status_t st = open_loader(&l);
    if (st >= 0) st = give_all(&l);
    close_loader(&l, st);
    (void)pthread_cond_destroy(&l.changed);
    (void)pthread_mutex_destroy(&l.mutex);
    return l.status;
}
