/* Values of an open PEFT folder; the header is lora/peft_import.h. */
#include "lora/peft_import.h"

#include "base/memory.h"
#include "lora/adapter_folder.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define TARGETS_BYTES 80
#define CHUNK_BYTES   (INT64_C(1) << 20)

/* ==== one tensor ==== */

static base_status_t read_tensor(const data_safetensors_t *file,
                                 const data_safetensors_entry_t *entry, char *buffer, double *to)
{
    const int64_t size = data_dtype_bytes(entry->dtype);

    for (int64_t at = 0; at < entry->bytes; at += CHUNK_BYTES) {
        const int64_t left = entry->bytes - at, bytes = left < CHUNK_BYTES ? left : CHUNK_BYTES;

        BASE_TRY(data_safetensors_read(file, entry, at, bytes, buffer));
        data_dtype_to_double(entry->dtype, buffer, to + at / size, bytes / size);
    }
    return BASE_OK;
}

base_status_t lora_peft_read_module(const lora_peft_t *peft, const lora_peft_module_t *module,
                                    double *a, double *b)
{
    base_ctx_t *ctx = lora_peft_ctx(peft);
    char *buffer = base_alloc(ctx, (size_t)CHUNK_BYTES, "reading of an adapter");
    base_status_t st = BASE_OK;

    if (buffer == NULL) return BASE_ERR_NOMEM;
    if (a != NULL) st = read_tensor(lora_peft_file(peft), module->a, buffer, a);
    if (b != NULL && st >= 0) st = read_tensor(lora_peft_file(peft), module->b, buffer, b);
    base_free(ctx, buffer);
    return st;
}

/* ==== into the vector ==== */

typedef struct vector {
    base_ctx_t *ctx;
    const char *path;
    const lora_layout_t *layout;
    double scale;
    float *values;
} vector_t;

static base_status_t put(const vector_t *v, const data_safetensors_entry_t *entry, int64_t index,
                         double value, float *to)
{
    *to = (float)value;
    if (isfinite(*to)) return BASE_OK;
    return BASE_FAIL(v->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_47,
                     "%s: tensor \"%s\": element %" PRId64 " is %g, which fp32 does not hold",
                     v->path, entry->name, index, value);
}

/* A's rows lie at the front, then the zero rows of what is filled up. */
static base_status_t put_a(const vector_t *v, const lora_peft_module_t *from,
                           const lora_module_t *to, const double *a)
{
    const int64_t used = from->rank * from->in;

    for (int64_t i = 0; i < used; i++)
        BASE_TRY(put(v, from->a, i, a[i], &v->values[to->a + i]));
    memset(v->values + to->a + used, 0,
           (size_t)(v->layout->rank * to->in - used) * sizeof *v->values);
    return BASE_OK;
}

static base_status_t put_b(const vector_t *v, const lora_peft_module_t *from,
                           const lora_module_t *to, const double *b)
{
    const double factor = from->scale / v->scale;
    const int64_t rank = v->layout->rank;

    for (int64_t o = 0; o < to->out; o++) {
        float *row = v->values + to->b + o * rank;
        const double *source = b + o * from->rank;

        for (int64_t i = 0; i < from->rank; i++)
            BASE_TRY(put(v, from->b, o * from->rank + i, source[i] * factor, &row[i]));
        for (int64_t i = from->rank; i < rank; i++)
            row[i] = 0.0f;
    }
    return BASE_OK;
}

base_status_t lora_peft_match(const lora_peft_t *peft, int32_t rank, uint32_t targets)
{
    const lora_peft_info_t *info = lora_peft_info(peft);
    base_ctx_t *ctx = lora_peft_ctx(peft);
    char found[TARGETS_BYTES], wanted[TARGETS_BYTES];

    if (info->rank != rank)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_DATA_46,
                         "%s: rank %" PRId32 ", the configuration has rank %" PRId32,
                         lora_peft_path(peft), info->rank, rank);
    if (info->targets != targets)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_DATA_46,
                         "%s: adapts %s, the configuration has targets %s", lora_peft_path(peft),
                         lora_targets_text(info->targets, found, sizeof found),
                         lora_targets_text(targets, wanted, sizeof wanted));
    return BASE_OK;
}

static base_status_t check_layout(const lora_peft_t *peft, const lora_layout_t *layout,
                                  double scale)
{
    base_ctx_t *ctx = lora_peft_ctx(peft);

    BASE_TRY(lora_peft_match(peft, (int32_t)layout->rank, layout->targets));
    if (lora_peft_num_modules(peft) != layout->num_modules || scale == 0.0 || !isfinite(scale))
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %" PRId64 " modules into %" PRId64 ", scale %g", lora_peft_path(peft),
                         lora_peft_num_modules(peft), layout->num_modules, scale);
    for (int64_t i = 0; i < layout->num_modules; i++) {
        const lora_peft_module_t *from = lora_peft_module(peft, i);
        const lora_module_t *to = &layout->modules[i];

        if (from->layer != to->layer || from->target != to->target || from->in != to->in ||
            from->out != to->out)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "%s: module %" PRId64 " of another model's layout",
                             lora_peft_path(peft), i);
    }
    return BASE_OK;
}

static int64_t largest_tensor(const lora_layout_t *layout)
{
    int64_t largest = 0;

    for (int64_t i = 0; i < layout->num_modules; i++) {
        const lora_module_t *m = &layout->modules[i];
        const int64_t wide = m->in > m->out ? m->in : m->out;

        if (wide * layout->rank > largest) largest = wide * layout->rank;
    }
    return largest;
}

base_status_t lora_peft_read(const lora_peft_t *peft, const lora_layout_t *layout, double scale,
                             float *values)
{
    vector_t v = {.ctx = lora_peft_ctx(peft),
                  .path = lora_peft_path(peft),
                  .layout = layout,
                  .scale = scale,
                  .values = values};
    base_status_t st;
    double *tensor;

    BASE_TRY(check_layout(peft, layout, scale));
    tensor = base_calloc(v.ctx, largest_tensor(layout), sizeof *tensor, "tensor of an adapter");
    if (tensor == NULL) return BASE_ERR_NOMEM;
    st = BASE_OK;
    for (int64_t i = 0; i < layout->num_modules; i++) {
        const lora_peft_module_t *from = lora_peft_module(peft, i);
        const lora_module_t *to = &layout->modules[i];

        BASE_TRY_GOTO(lora_peft_read_module(peft, from, tensor, NULL), st, out_free_tensor);
        BASE_TRY_GOTO(put_a(&v, from, to, tensor), st, out_free_tensor);
        BASE_TRY_GOTO(lora_peft_read_module(peft, from, NULL, tensor), st, out_free_tensor);
        BASE_TRY_GOTO(put_b(&v, from, to, tensor), st, out_free_tensor);
    }
out_free_tensor:
    base_free(v.ctx, tensor);
    return st;
}

base_status_t lora_peft_import(base_ctx_t *ctx, const char *dir, const data_model_spec_t *spec,
                               const lora_layout_t *layout, double scale, float *values)
{
    lora_peft_t *peft;
    base_status_t st;

    BASE_TRY(lora_peft_open(ctx, dir, spec, NULL, &peft));
    st = lora_peft_read(peft, layout, scale, values);
    lora_peft_close(peft);
    return st;
}
