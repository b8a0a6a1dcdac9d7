#include "trainer/model/hf_load.h"

#include "base/device/staging.h"
#include "base/memory.h"
#include "base/version.h"
#include "trainer/model/hf_weights.h"

#include <assert.h>
#include <pthread.h>

static const char WHAT[] = "weights to load";

/* Rows [row, row + rows) of a tensor. */
typedef struct piece {
    data_model_tensor_t tensor;
    int64_t index, row, rows;
} piece_t;

typedef struct slot {
    base_staging_t staging;
    base_event_t *given; /* its upload */
    int used;            /* it was recorded */
} slot_t;

/* Room on the device for one piece whose rows are then put apart. */
typedef struct landing {
    base_mem_t mem;
    base_event_t *placed; /* nothing reads it any more */
    int used;             /* it was recorded */
} landing_t;

typedef struct loader {
    const tr_weights_t *weights;
    const data_hf_folder_t *folder;
    tr_hf_load_way_t way;
    float *single; /* [num_threads][elements of a slot]; NULL: nothing is converted by way of it */

    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t changed;
    int64_t tensor, row; /* where the next piece begins */
    int free
        [TR_HF_LOAD_SLOTS]; /* a ring: slots nobody has, those whose upload is longest ago first */
    int64_t num_freed, num_taken;
    int started;          /* threads that have begun */
    base_status_t status; /* the first error */

    pthread_mutex_t feeding; /* of what follows: who gives work to the streams */
    base_stream_t *upload[TR_HF_LOAD_STREAMS];
    base_stream_t *place; /* out of landings; NULL: no weight has extra columns */
    base_buffer_t *landing_memory;
    landing_t landings[TR_HF_LOAD_LANDINGS];
    int64_t num_uploads, num_landed;

    slot_t slots[TR_HF_LOAD_SLOTS]; /* each its holder's */
    pthread_t threads[TR_HF_LOAD_THREADS];
    int num_threads;
} loader_t;

/* ==== sizes ==== */

static data_dtype_t file_dtype(kern_dtype_t dtype)
{
    return dtype == KERN_F64 ? DATA_F64 : dtype == KERN_BF16 ? DATA_BF16 : DATA_F32;
}

static int64_t row_elements(const data_model_tensor_t *t)
{
    return t->rank == 1 ? 1 : t->shape[1];
}

static int64_t slot_bytes(const tr_model_t *model, int64_t wanted)
{
    const int64_t element = kern_dtype_bytes(model->config.dtype);
    int64_t widest = 0, largest = 0;

    for (int32_t i = 0; i < model->num_weights; i++) {
        const tr_weight_spec_t *w = &model->weights[i];

        widest = w->cols > widest ? w->cols : widest;
        largest = w->rows * w->cols > largest ? w->rows * w->cols : largest;
    }
    if (largest * element <= wanted) return largest * element;
    return widest * element > wanted ? widest * element : wanted;
}

static int64_t piece_rows(const data_model_tensor_t *t, kern_dtype_t dtype, int64_t bytes)
{
    return bytes / (row_elements(t) * kern_dtype_bytes(dtype));
}

tr_hf_load_way_t tr_hf_load_way(const tr_model_t *model)
{
    const int processors = base_version_processors();
    const int threads = processors < TR_HF_LOAD_THREADS ? processors : TR_HF_LOAD_THREADS;
    const int more = threads / 2 > 4 ? threads / 2 : 4;

    return (tr_hf_load_way_t){.num_threads = threads,
                              .num_slots = threads + more,
                              .num_streams = TR_HF_LOAD_STREAMS,
                              .slot_bytes = slot_bytes(model, TR_HF_LOAD_SLOT_BYTES)};
}

/* Some weight's rows do not lie side by side. */
static int has_pitch(const tr_model_t *model)
{
    for (int32_t i = 0; i < model->num_weights; i++)
        if (model->weights[i].pitch > model->weights[i].cols) return 1;
    return 0;
}

/* Some tensor is of another dtype than the weights. */
static int has_other(const data_hf_folder_t *folder, data_dtype_t dtype)
{
    const int64_t num = data_model_spec_num_tensors(data_hf_folder_spec(folder));

    for (int64_t i = 0; i < num; i++)
        if (data_hf_folder_entry(folder, i)->dtype != dtype) return 1;
    return 0;
}

static int64_t single_elements(const tr_model_t *model, const data_hf_folder_t *folder,
                               const tr_hf_load_way_t *way)
{
    const int64_t slot = slot_bytes(model, way->slot_bytes);

    if (model->config.dtype != KERN_BF16 || !has_other(folder, DATA_BF16)) return 0;
    return way->num_threads * (slot / kern_dtype_bytes(KERN_BF16));
}

tr_hf_load_bytes_t tr_hf_load_bytes(const tr_model_t *model, const data_hf_folder_t *folder,
                                    const tr_hf_load_way_t *way)
{
    const int64_t slot = slot_bytes(model, way->slot_bytes);
    const int converts = has_other(folder, file_dtype(model->config.dtype));
    tr_hf_load_bytes_t bytes = {.slots = way->num_slots * slot,
                                .num_streams = way->num_streams + has_pitch(model)};

    bytes.convert = single_elements(model, folder, way) * (int64_t)sizeof(float);
    if (converts) bytes.convert += way->num_threads * (INT64_C(1) << 20); /* data/hf_folder.h */
    if (has_pitch(model)) bytes.device = TR_HF_LOAD_LANDINGS * slot;
    return bytes;
}

/* ==== what threads have in common ==== */

static void fail(loader_t *l, base_status_t st)
{
    if (st >= 0) return;
    (void)pthread_mutex_lock(&l->mutex);
    if (l->status >= 0) l->status = st;
    (void)pthread_cond_broadcast(&l->changed);
    (void)pthread_mutex_unlock(&l->mutex);
}

static base_status_t status(loader_t *l)
{
    (void)pthread_mutex_lock(&l->mutex);
    const base_status_t st = l->status;
    (void)pthread_mutex_unlock(&l->mutex);
    return st;
}

static void set_free(loader_t *l, int slot)
{
    (void)pthread_mutex_lock(&l->mutex);
    l->free[l->num_freed++ % TR_HF_LOAD_SLOTS] = slot;
    (void)pthread_cond_signal(&l->changed);
    (void)pthread_mutex_unlock(&l->mutex);
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

/* The next piece and a slot for it, whose upload may not have passed. NULL: no more pieces, or an
 * error. */
static slot_t *take(loader_t *l, piece_t *piece, int *number)
{
    const int64_t num_tensors = data_model_spec_num_tensors(data_hf_folder_spec(l->folder));
    slot_t *slot = NULL;

    (void)pthread_mutex_lock(&l->mutex);
    while (l->status >= 0 && l->tensor < num_tensors && l->num_taken == l->num_freed)
        (void)pthread_cond_wait(&l->changed, &l->mutex);
    if (l->status >= 0 && l->tensor < num_tensors) {
        next_piece(l, piece);
        *number = l->free[l->num_taken++ % TR_HF_LOAD_SLOTS];
        slot = &l->slots[*number];
    } else
        (void)pthread_cond_broadcast(&l->changed); /* others need not wait for a slot either */
    (void)pthread_mutex_unlock(&l->mutex);
    return slot;
}

/* ==== a piece from the file to its place ==== */

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

/* By way of a landing. `feeding` is held, as for the next one. */
static base_status_t give_rows(loader_t *l, slot_t *slot, base_stream_t *upload,
                               const base_range_t *dst)
{
    landing_t *landing = &l->landings[l->num_landed++ % TR_HF_LOAD_LANDINGS];
    const base_range_t src = {.mem = landing->mem,
                              .row_bytes = dst->row_bytes,
                              .rows = dst->rows,
                              .pitch = dst->row_bytes};

    if (landing->used) BASE_TRY(base_stream_wait_event(upload, landing->placed));
    BASE_TRY(base_upload(upload, src.mem, slot->staging.memory, src.rows * src.row_bytes));
    BASE_TRY(base_event_record(slot->given, upload));
    slot->used = 1;
    BASE_TRY(base_stream_wait_event(l->place, slot->given));
    BASE_TRY(base_copy(l->place, dst, &src));
    BASE_TRY(base_event_record(landing->placed, l->place));
    landing->used = 1;
    return BASE_OK;
}

static base_status_t give(loader_t *l, slot_t *slot, const piece_t *p)
{
    const tr_model_t *model = l->weights->model;
    const tr_hf_place_t place = tr_hf_place(model, p->tensor.kind);
    const int32_t weight = tr_model_weight(model, place.kind, p->tensor.layer);
    const int64_t element = kern_dtype_bytes(model->config.dtype);
    const int64_t row_bytes = row_elements(&p->tensor) * element;
    const int64_t pitch = p->tensor.rank == 1 ? element : model->weights[weight].pitch * element;
    const base_mem_t to = tr_weights_mat(l->weights, weight).mem;
    const base_range_t dst = {.mem = base_mem_at(to, (place.row + p->row) * pitch),
                              .row_bytes = row_bytes,
                              .rows = p->rows,
                              .pitch = pitch};
    base_stream_t *upload = l->upload[l->num_uploads++ % l->way.num_streams];

    if (pitch > row_bytes) return give_rows(l, slot, upload, &dst);
    BASE_TRY(base_upload(upload, dst.mem, slot->staging.memory, p->rows * row_bytes));
    BASE_TRY(base_event_record(slot->given, upload));
    slot->used = 1;
    return BASE_OK;
}

static base_status_t load_piece(loader_t *l, slot_t *slot, const piece_t *p, float *single)
{
    if (slot->used) BASE_TRY(base_event_wait(slot->given, WHAT));
    BASE_TRY(read_piece(l, p, slot->staging.memory, single));
    (void)pthread_mutex_lock(&l->feeding);
    const base_status_t st = give(l, slot, p);
    (void)pthread_mutex_unlock(&l->feeding);
    return st;
}

static void *load_main(void *arg)
{
    loader_t *l = arg;
    const int64_t elements = l->way.slot_bytes / kern_dtype_bytes(KERN_BF16);
    piece_t piece;
    slot_t *slot;
    int number;

    (void)pthread_mutex_lock(&l->mutex);
    float *single = l->single == NULL ? NULL : l->single + l->started * elements;
    l->started++;
    (void)pthread_mutex_unlock(&l->mutex);
    while ((slot = take(l, &piece, &number)) != NULL) {
        fail(l, load_piece(l, slot, &piece, single));
        set_free(l, number);
    }
    return NULL;
}

/* ==== the calling thread ==== */

static base_status_t open_landings(loader_t *l, base_device_t *dev)
{
    if (!has_pitch(l->weights->model)) return BASE_OK;
    BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, TR_HF_LOAD_LANDINGS * l->way.slot_bytes,
                               WHAT, &l->landing_memory));
    for (int i = 0; i < TR_HF_LOAD_LANDINGS; i++) {
        l->landings[i].mem = base_mem(l->landing_memory, i * l->way.slot_bytes);
        BASE_TRY(base_event_create(dev, &l->landings[i].placed));
    }
    return base_stream_create(dev, BASE_STREAM_ASYNC, "load.place", &l->place);
}

static base_status_t start_threads(loader_t *l)
{
    base_ctx_t *ctx = l->weights->ctx;

    while (l->num_threads < l->way.num_threads) {
        if (pthread_create(&l->threads[l->num_threads], NULL, load_main, l) != 0)
            return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no thread", WHAT);
        base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
        l->num_threads++;
    }
    return BASE_OK;
}

/* Threads read into the first slots while later ones are made. */
static base_status_t open_slots(loader_t *l, base_device_t *dev)
{
    for (int i = 0; i < l->way.num_slots && status(l) >= 0; i++) {
        slot_t *slot = &l->slots[i];

        BASE_TRY(base_event_create(dev, &slot->given));
        BASE_TRY(base_staging_create(dev, l->way.slot_bytes, WHAT, &slot->staging));
        set_free(l, i);
    }
    return BASE_OK;
}

static base_status_t open_loader(loader_t *l, base_device_t *dev)
{
    base_ctx_t *ctx = l->weights->ctx;
    const int64_t single = single_elements(l->weights->model, l->folder, &l->way);

    if (single > 0) {
        l->single = base_calloc(ctx, single, sizeof *l->single, WHAT);
        if (l->single == NULL) return BASE_ERR_NOMEM;
    }
    for (int i = 0; i < l->way.num_streams; i++)
        BASE_TRY(base_stream_create(dev, BASE_STREAM_ASYNC, "load.upload", &l->upload[i]));
    BASE_TRY(open_landings(l, dev));
    BASE_TRY(start_threads(l));
    return open_slots(l, dev);
}

static void end_stream(loader_t *l, base_stream_t *stream)
{
    if (stream == NULL) return;
    fail(l, base_stream_sync(stream));
    base_stream_destroy(stream);
}

static void close_loader(loader_t *l, base_status_t st)
{
    base_ctx_t *ctx = l->weights->ctx;

    fail(l, st);
    for (int i = 0; i < l->num_threads; i++) {
        (void)pthread_join(l->threads[i], NULL);
        base_memory_count_close(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
    }
    for (int i = 0; i < l->way.num_streams; i++)
        end_stream(l, l->upload[i]);
    end_stream(l, l->place);
    for (int i = 0; i < l->way.num_slots; i++) {
        if (l->slots[i].given != NULL) base_event_destroy(l->slots[i].given);
        base_staging_destroy(&l->slots[i].staging);
    }
    for (int i = 0; i < TR_HF_LOAD_LANDINGS; i++)
        if (l->landings[i].placed != NULL) base_event_destroy(l->landings[i].placed);
    base_buffer_free(l->landing_memory);
    base_free(ctx, l->single);
}

static base_status_t init_locks(loader_t *l)
{
    if (pthread_mutex_init(&l->mutex, NULL) != 0) return BASE_ERR_NOMEM;
    if (pthread_mutex_init(&l->feeding, NULL) != 0) goto err_mutex;
    if (pthread_cond_init(&l->changed, NULL) != 0) goto err_feeding;
    return BASE_OK;
err_feeding:
    (void)pthread_mutex_destroy(&l->feeding);
err_mutex:
    (void)pthread_mutex_destroy(&l->mutex);
    return BASE_ERR_NOMEM;
}

base_status_t tr_hf_load_by(const tr_weights_t *weights, const data_hf_folder_t *folder,
                            const tr_hf_load_way_t *way, base_stream_t *stream)
{
    loader_t l = {.weights = weights, .folder = folder, .way = *way};

    assert(way->num_threads >= 1 && way->num_threads <= TR_HF_LOAD_THREADS);
    assert(way->num_slots >= way->num_threads && way->num_slots <= TR_HF_LOAD_SLOTS);
    assert(way->num_streams >= 1 && way->num_streams <= TR_HF_LOAD_STREAMS);
    l.way.slot_bytes = slot_bytes(weights->model, way->slot_bytes);
    BASE_TRY(base_stream_sync(stream)); /* our own streams come behind it */
    if (init_locks(&l) < 0)
        return BASE_FAIL(weights->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no mutex", WHAT);
    close_loader(&l, open_loader(&l, base_stream_device(stream)));
    (void)pthread_cond_destroy(&l.changed);
    (void)pthread_mutex_destroy(&l.feeding);
    (void)pthread_mutex_destroy(&l.mutex);
    return l.status;
}

base_status_t tr_hf_load(const tr_weights_t *weights, const data_hf_folder_t *folder,
                         base_stream_t *stream)
{
    const tr_hf_load_way_t way = tr_hf_load_way(weights->model);

    return tr_hf_load_by(weights, folder, &way, stream);
}
