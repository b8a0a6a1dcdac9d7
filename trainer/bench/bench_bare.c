#include "trainer/bench/bench_bare.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/philox.h"

#define TILE_ELEMENTS (INT64_C(1) << 20)
#define ENOUGH_NS     INT64_C(100000000)
#define MOST_CALLS    4096

typedef struct bare {
    base_stream_t *stream;
    kern_gemm_t product;
    base_range_t from, to;
} bare_t;

static base_status_t multiply(const bare_t *b)
{
    return kern_gemm_run(b->stream, &b->product);
}

static base_status_t copy(const bare_t *b)
{
    return base_copy(b->stream, &b->to, &b->from);
}

/* Nanoseconds of a call: the mean of the last of rounds that grow until one is long enough. */
static base_status_t time_calls(const bare_t *b, base_status_t (*call)(const bare_t *), double *ns)
{
    int64_t took = 0, calls = 0;

    BASE_TRY(call(b));
    while (took < ENOUGH_NS && calls < MOST_CALLS) {
        calls = calls == 0 ? 1 : 2 * calls;
        BASE_TRY(base_stream_sync(b->stream));
        const int64_t begin = base_clock_ns();
        for (int64_t i = 0; i < calls; i++)
            BASE_TRY(call(b));
        BASE_TRY(base_stream_sync(b->stream));
        took = base_clock_ns() - begin;
    }
    *ns = (double)(took > 0 ? took : 1) / (double)calls;
    return BASE_OK;
}

/* ==== operands ==== */

/* `mat` is filled with a tile of numbers, over and over. */
static base_status_t fill(base_stream_t *stream, const float *values, const kern_mat_t *mat)
{
    const int64_t element = kern_dtype_bytes(mat->dtype), all = mat->rows * mat->cols;
    const int64_t tile = all < TILE_ELEMENTS ? all : TILE_ELEMENTS;
    base_buffer_t *buffer;

    BASE_TRY(base_buffer_alloc(base_stream_device(stream), BASE_MEMORY_DEVICE,
                               tile * (int64_t)sizeof(float), "bare product", &buffer));
    const kern_convert_t convert = {.a = kern_vec(base_mem(buffer, 0), tile, KERN_F32),
                                    .out = kern_vec(mat->mem, tile, mat->dtype)};
    base_status_t st =
        base_upload(stream, base_mem(buffer, 0), values, tile * (int64_t)sizeof(float));
    if (st >= 0) st = kern_convert_run(stream, &convert);
    for (int64_t done = tile; done < all && st >= 0;) {
        const int64_t more = done < all - done ? done : all - done;
        const base_range_t from = {mat->mem, more * element, 1, more * element};
        const base_range_t to = {base_mem_at(mat->mem, done * element), more * element, 1,
                                 more * element};

        st = base_copy(stream, &to, &from);
        done += more;
    }
    const base_status_t synced = base_stream_sync(stream);
    base_buffer_free(buffer);
    return st < 0 ? st : synced;
}

static base_status_t fill_operands(const bare_t *b)
{
    base_ctx_t *ctx = base_device_ctx(base_stream_device(b->stream));
    const base_philox_key_t key = base_philox_key(1);

    float *values = base_calloc(ctx, TILE_ELEMENTS, sizeof *values, "bare product");
    if (values == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < TILE_ELEMENTS; i++)
        values[i] =
            (float)((double)base_philox(key, (uint32_t)i, 0, 0, 'b').word[0] * 0x1p-31 - 1.0);
    base_status_t st = fill(b->stream, values, &b->product.a);
    if (st >= 0) st = fill(b->stream, values, &b->product.b);
    base_free(ctx, values);
    return st;
}

/* ==== the measurement ==== */

static base_status_t measure(const bare_t *b, tr_bare_t *bare)
{
    double ns;

    BASE_TRY(fill_operands(b));
    BASE_TRY(kern_gemm_search(b->stream, &b->product));
    BASE_TRY(time_calls(b, multiply, &ns));
    bare->flops_per_ns = 2.0 * (double)bare->m * (double)bare->n * (double)bare->k / ns;
    BASE_TRY(time_calls(b, copy, &ns));
    bare->copy_bytes_per_ns = 2.0 * (double)b->from.row_bytes / ns;
    return BASE_OK;
}

base_status_t tr_bare_measure(base_stream_t *stream, tr_bare_t *bare)
{
    const int64_t element = kern_dtype_bytes(bare->dtype);
    const int64_t a = bare->m * bare->k * element, w = bare->n * bare->k * element;
    const int64_t c = bare->m * bare->n * element;
    base_buffer_t *buffer[3] = {NULL, NULL, NULL};
    const int64_t bytes[3] = {a + w, c, c};
    base_status_t st = BASE_OK;

    for (int i = 0; i < 3 && st >= 0; i++)
        st = base_buffer_alloc(base_stream_device(stream), BASE_MEMORY_DEVICE, bytes[i],
                               "bare product", &buffer[i]);
    if (st < 0) goto free_buffers;
    const bare_t b = {
        .stream = stream,
        .product = {.a = kern_mat(base_mem(buffer[0], 0), bare->m, bare->k, bare->k, bare->dtype),
                    .b = kern_mat(base_mem(buffer[0], a), bare->n, bare->k, bare->k, bare->dtype),
                    .c = kern_mat(base_mem(buffer[1], 0), bare->m, bare->n, bare->n, bare->dtype),
                    .transpose_b = 1},
        .from = {base_mem(buffer[1], 0), c, 1, c},
        .to = {base_mem(buffer[2], 0), c, 1, c}};
    st = measure(&b, bare);
    const base_status_t synced = base_stream_sync(stream);
    if (st >= 0) st = synced;
free_buffers:
    for (int i = 2; i >= 0; i--)
        base_buffer_free(buffer[i]);
    return st;
}

/* ==== attention ==== */

/* The rig's times are of some milliseconds each. */
static base_status_t time_attention(tr_attention_rig_t *rig, int direction, double *ns)
{
    tr_attention_time_t time;
    int64_t calls = 0;
    double sum = 0;

    const int64_t begin = base_clock_ns();
    do {
        BASE_TRY(tr_attention_rig_time(rig, direction, &time));
        sum += (double)time.call_ns;
        calls++;
    } while (base_clock_ns() - begin < ENOUGH_NS);
    *ns = sum > 0 ? sum / (double)calls : 1.0;
    return BASE_OK;
}

base_status_t tr_bare_attention_measure(base_ctx_t *ctx, base_device_kind_t kind,
                                        tr_bare_attention_t *bare)
{
    const tr_attention_case_t of = {.name = "bare attention",
                                    .kind = TR_SET_DOCUMENTS,
                                    .count = bare->count,
                                    .rows = bare->rows,
                                    .shape = bare->shape};
    tr_attention_rig_t *rig = NULL;
    tr_attention_set_t set;
    double ns[AS_PROFILE_DIRECTIONS];

    BASE_TRY(tr_attention_set_make(ctx, &of, 1, &set));
    base_status_t st = tr_attention_rig_open(ctx, kind, &TR_ATTENTION_PRODUCT, &rig);
    if (st >= 0) st = tr_attention_rig_load(rig, &of.shape, &set);
    for (int d = 0; d < AS_PROFILE_DIRECTIONS && st >= 0; d++)
        st = time_attention(rig, d, &ns[d]);
    if (st >= 0) {
        const double flops = tr_attention_set_flops(&of.shape, &set);

        bare->flops_per_ns[AS_PROFILE_FORWARD] = flops / ns[AS_PROFILE_FORWARD];
        bare->flops_per_ns[AS_PROFILE_BACKWARD] = 2.5 * flops / ns[AS_PROFILE_BACKWARD];
    }
    tr_attention_rig_close(rig);
    tr_attention_set_free(ctx, &set);
    return st;
}
