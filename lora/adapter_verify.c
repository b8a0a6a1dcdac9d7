#include "lora/adapter_verify.h"

#include "base/memory.h"
#include "data/json_read.h"
#include "lora/adapter_folder.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* ==== the base's own tensors ==== */

void lora_adapter_check_base(const data_hf_folder_t *base, const char *source, int32_t layer,
                             int32_t target, int64_t in, int64_t out, base_error_list_t *errors)
{
    char module[DATA_MODEL_NAME_BYTES], weight[DATA_MODEL_NAME_BYTES + 8], found[200];
    const data_safetensors_entry_t *entry;
    int64_t index;

    lora_module_name(layer, target, module);
    (void)snprintf(weight, sizeof weight, "%s.weight", module);
    index = data_model_spec_find(data_hf_folder_spec(base), weight);
    if (index < 0) {
        DATA_ERROR(errors, BASE_MSG_DATA_44, source, "the base has no tensor \"%s\" to adapt",
                   weight);
        return;
    }
    entry = data_hf_folder_entry(base, index);
    if (entry->rank != 2 || entry->shape[0] != out || entry->shape[1] != in)
        DATA_ERROR(errors, BASE_MSG_DATA_45, source,
                   "B A of \"%s\" has shape [%" PRId64 ", %" PRId64 "], the base's \"%s\" has %s",
                   module, out, in, entry->name,
                   data_safetensors_shape_text(entry->rank, entry->shape, found, sizeof found));
}

/* ==== the size of B A ==== */

typedef struct work {
    double *a, *b;           /* of the largest module */
    double *gram_a, *gram_b; /* rank x rank, lower triangles */
} work_t;

/* A A^T: products of rows. */
static void gram_of_rows(const double *a, int64_t rank, int64_t in, double *gram)
{
    for (int64_t i = 0; i < rank; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0.0;

            for (int64_t k = 0; k < in; k++)
                sum += a[i * in + k] * a[j * in + k];
            gram[i * rank + j] = sum;
        }
}

/* B^T B: products of columns. */
static void gram_of_columns(const double *b, int64_t out, int64_t rank, double *gram)
{
    for (int64_t i = 0; i < rank * rank; i++)
        gram[i] = 0.0;
    for (int64_t o = 0; o < out; o++) {
        const double *row = b + o * rank;

        for (int64_t i = 0; i < rank; i++)
            for (int64_t j = 0; j <= i; j++)
                gram[i * rank + j] += row[i] * row[j];
    }
}

/* |B A|^2 = trace(A^T B^T B A) = sum over i, j of (B^T B)_ij (A A^T)_ij; both are symmetric. */
static double product_norm(const lora_peft_module_t *m, work_t *w)
{
    double sum = 0.0;

    gram_of_rows(w->a, m->rank, m->in, w->gram_a);
    gram_of_columns(w->b, m->out, m->rank, w->gram_b);
    for (int64_t i = 0; i < m->rank; i++)
        for (int64_t j = 0; j <= i; j++) {
            const int64_t at = i * m->rank + j;

            sum += (i == j ? 1.0 : 2.0) * w->gram_a[at] * w->gram_b[at];
        }
    return sum > 0.0 ? sqrt(sum) : 0.0; /* rounding may make it negative */
}

/* ==== one module ==== */

static void check_finite(const lora_peft_t *peft, const data_safetensors_entry_t *entry,
                         const double *values, base_error_list_t *errors, bool *finite)
{
    const int64_t count = data_safetensors_elements(entry);
    int64_t bad = 0, first = 0;

    for (int64_t i = count - 1; i >= 0; i--)
        if (!isfinite(values[i])) {
            bad++;
            first = i;
        }
    if (bad == 0) return;
    *finite = false;
    DATA_ERROR(errors, BASE_MSG_DATA_47, lora_peft_path(peft),
               "tensor \"%s\": %" PRId64 " of %" PRId64
               " elements are not finite, the first is element %" PRId64,
               entry->name, bad, count, first);
}

static bool all_zero(const double *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (values[i] != 0.0) return false;
    return true;
}

static base_status_t look_at(const lora_peft_t *peft, int64_t index, work_t *w,
                             base_error_list_t *errors, lora_verify_t *report)
{
    const lora_peft_module_t *m = lora_peft_module(peft, index);
    lora_verify_module_t *to = &report->modules[index];
    bool finite = true;

    BASE_TRY(lora_peft_read_module(peft, m, w->a, w->b));
    check_finite(peft, m->a, w->a, errors, &finite);
    check_finite(peft, m->b, w->b, errors, &finite);
    if (!finite) return BASE_OK;
    *to = (lora_verify_module_t){.layer = m->layer,
                                 .target = m->target,
                                 .rank = m->rank,
                                 .scale = m->scale,
                                 .zero_b = all_zero(w->b, m->out * m->rank)};
    to->delta = fabs(m->scale) * product_norm(m, w);
    return BASE_OK;
}

/* ==== the whole ==== */

static base_status_t make_room(base_ctx_t *ctx, const lora_peft_t *peft, work_t *w)
{
    const int64_t rank = lora_peft_info(peft)->rank;
    int64_t in = 0, out = 0;

    for (int64_t i = 0; i < lora_peft_num_modules(peft); i++) {
        const lora_peft_module_t *m = lora_peft_module(peft, i);

        if (m->in > in) in = m->in;
        if (m->out > out) out = m->out;
    }
    w->a = base_calloc(ctx, rank * in, sizeof *w->a, "A of an adapter");
    w->b = base_calloc(ctx, rank * out, sizeof *w->b, "B of an adapter");
    w->gram_a = base_calloc(ctx, rank * rank, sizeof *w->gram_a, "norm of an adapter");
    w->gram_b = base_calloc(ctx, rank * rank, sizeof *w->gram_b, "norm of an adapter");
    return w->a == NULL || w->b == NULL || w->gram_a == NULL || w->gram_b == NULL ? BASE_ERR_NOMEM
                                                                                  : BASE_OK;
}

static void sum_up(const lora_peft_t *peft, lora_verify_t *report)
{
    double squares = 0.0;

    report->rank = lora_peft_info(peft)->rank;
    report->targets = lora_peft_info(peft)->targets;
    report->parameters = lora_peft_info(peft)->parameters;
    report->num_tensors = data_safetensors_count(lora_peft_file(peft));
    for (int64_t i = 0; i < report->num_modules; i++) {
        const lora_verify_module_t *m = &report->modules[i];

        if (m->zero_b) report->num_zero_b++;
        squares += m->delta * m->delta;
        if (m->delta > report->max_delta) {
            report->max_delta = m->delta;
            report->max_module = i;
        }
    }
    report->delta = sqrt(squares);
    report->does_nothing = report->max_delta == 0.0;
}

static base_status_t look_at_all(const lora_peft_t *peft, const data_hf_folder_t *base,
                                 base_error_list_t *errors, lora_verify_t *report)
{
    base_ctx_t *ctx = report->ctx;
    work_t w = {0};
    base_status_t st;

    report->num_modules = lora_peft_num_modules(peft);
    report->modules = base_calloc(ctx, report->num_modules, sizeof *report->modules, "report");
    if (report->modules == NULL) return BASE_ERR_NOMEM;
    BASE_TRY_GOTO(make_room(ctx, peft, &w), st, out_free_work);
    for (int64_t i = 0; i < report->num_modules; i++) {
        const lora_peft_module_t *m = lora_peft_module(peft, i);

        lora_adapter_check_base(base, lora_peft_path(peft), m->layer, m->target, m->a->shape[1],
                                m->b->shape[0], errors);
        BASE_TRY_GOTO(look_at(peft, i, &w, errors, report), st, out_free_work);
    }
    sum_up(peft, report);
out_free_work:
    base_free(ctx, w.gram_b);
    base_free(ctx, w.gram_a);
    base_free(ctx, w.b);
    base_free(ctx, w.a);
    return st;
}

base_status_t lora_adapter_verify(base_ctx_t *ctx, const char *dir, const data_hf_folder_t *base,
                                  base_error_list_t *errors, lora_verify_t **report_p)
{
    base_error_list_t own, *list = errors != NULL ? errors : &own;
    const size_t before = errors != NULL ? errors->count : 0;
    lora_verify_t *report = base_calloc(ctx, 1, sizeof *report, "report on an adapter");
    lora_peft_t *peft = NULL;
    base_status_t st;

    if (report == NULL) return BASE_ERR_NOMEM;
    report->ctx = ctx;
    base_error_list_init(&own, ctx);
    st = lora_peft_open(ctx, dir, data_hf_folder_spec(base), list, &peft);
    if (st >= 0) st = look_at_all(peft, base, list, report);
    lora_peft_close(peft);
    if (st >= 0 && list->pool.failed) st = BASE_ERR_NOMEM;
    if ((st >= 0 || st == BASE_ERR_FORMAT) && list->count > before)
        st = errors != NULL ? BASE_ERR_FORMAT : data_errors_finish(&own);
    base_error_list_deinit(&own);
    if (st < 0) {
        lora_verify_destroy(report);
        return st;
    }
    *report_p = report;
    return BASE_OK;
}

void lora_verify_destroy(lora_verify_t *report)
{
    if (report == NULL) return;
    base_free(report->ctx, report->modules);
    base_free(report->ctx, report);
}
