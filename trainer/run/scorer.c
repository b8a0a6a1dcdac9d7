#include "trainer/run/scorer.h"

#include "base/memory.h"
#include "trainer/model/hf_load.h"
#include "trainer/run/run_setup.h"

#include <string.h>

#define DEFAULT_TOKENS 4096

static base_status_t read_adapter(tr_scorer_t *s, const lora_peft_t *adapter)
{
    const lora_peft_info_t *info = lora_peft_info(adapter);
    lora_layout_t *layout;
    base_status_t st;

    s->adapter = (lora_adapter_options_t){
        .name = "adapter", .rank = info->rank, .scale = 1.0, .targets = info->targets};
    BASE_TRY(lora_layout_create(s->ctx, s->spec, info->rank, info->targets, &layout));
    s->values = base_calloc(s->ctx, layout->count, sizeof *s->values, "adapter");
    if (s->values == NULL) {
        lora_layout_destroy(layout);
        return BASE_ERR_NOMEM;
    }
    st = lora_peft_read(adapter, layout, s->adapter.scale, (float *)s->values);
    if (st >= 0) lora_widen(s->values, layout->count);
    lora_layout_destroy(layout);
    return st;
}

static int64_t tokens_per_trainer(const tr_scorer_options_t *options)
{
    const int64_t step = 2 * DATA_ROW_ALIGN;
    const int64_t wanted =
        options->tokens_per_trainer > 0 ? options->tokens_per_trainer : (int64_t)DEFAULT_TOKENS;
    const int64_t least = (options->longest + step - 1) / step * step;

    return wanted < least ? least : wanted;
}

static base_status_t build(tr_scorer_t *s, base_device_t *dev, comm_group_t *group,
                           const tr_scorer_options_t *options)
{
    const tr_build_t args = {.spec = s->spec,
                             .dtype =
                                 base_device_kind(dev) == BASE_DEVICE_CUDA ? KERN_BF16 : KERN_F32,
                             .topology = s->topology,
                             .tokens_per_trainer = tokens_per_trainer(options),
                             .longest = options->longest,
                             .num_adapters = s->values != NULL,
                             .adapters = &s->adapter,
                             .rank_columns = s->values != NULL ? s->adapter.rank : 0};
    tr_lot_options_t lots;

    BASE_TRY(tr_build_trainer(s->ctx, dev, group, &args, &lots, &s->trainer));
    BASE_TRY(tr_setup_check_products(s->ctx, dev, group));
    BASE_TRY(tr_hf_load(s->trainer->weights, options->folder, s->trainer->stream));
    for (int i = 0; i < 2; i++)
        BASE_TRY(tr_lot_create(s->ctx, &lots, s->lots[0], &s->lots[i]));
    BASE_TRY(tr_gradients_zero(s->trainer));
    return tr_scorer_use_adapter(s, 1);
}

base_status_t tr_scorer_create(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                               const tr_scorer_options_t *options, tr_scorer_t **scorer_p)
{
    base_status_t st;

    tr_scorer_t *s = base_calloc(ctx, 1, sizeof *s, "scorer");
    if (s == NULL) return BASE_ERR_NOMEM;
    s->ctx = ctx;
    s->spec = data_hf_folder_spec(options->folder);
    BASE_TRY_GOTO(
        as_topology_create(ctx, AS_IN_PLACE, comm_group_size(group), NULL, 0, &s->topology), st,
        err_destroy);
    if (options->adapter != NULL) BASE_TRY_GOTO(read_adapter(s, options->adapter), st, err_destroy);
    BASE_TRY_GOTO(build(s, dev, group, options), st, err_destroy);
    *scorer_p = s;
    return BASE_OK;
err_destroy:
    tr_scorer_destroy(s);
    return st;
}

void tr_scorer_destroy(tr_scorer_t *scorer)
{
    if (scorer == NULL) return;
    for (int i = 0; i < 2; i++)
        tr_lot_destroy(scorer->lots[i]);
    tr_trainer_destroy(scorer->trainer);
    base_free(scorer->ctx, scorer->values);
    as_topology_destroy(scorer->topology);
    base_free(scorer->ctx, scorer);
}

base_status_t tr_scorer_use_adapter(tr_scorer_t *scorer, int use)
{
    tr_scorer_t *s = scorer;

    if (s->values == NULL) return BASE_OK;
    if (use) return lora_adapter_set_write(s->trainer->adapters, 0, s->trainer->stream, s->values);
    double *zeros = base_calloc(s->ctx, s->trainer->adapter_count[0], sizeof *zeros, "adapter");
    if (zeros == NULL) return BASE_ERR_NOMEM;
    const base_status_t st =
        lora_adapter_set_write(s->trainer->adapters, 0, s->trainer->stream, zeros);
    base_free(s->ctx, zeros);
    return st;
}

static tr_lot_t *next_lot(tr_scorer_t *s)
{
    return s->lots[s->microbatch++ % 2];
}

/* Adds the losses of a half's supervised rows to their documents; documents of the lot are
 * consecutive ones of the dataset. */
static base_status_t add_losses(tr_scorer_t *s, data_half_t half, double *losses, double *sums)
{
    const tr_trainer_t *t = s->trainer;
    const kern_mat_t mat = tr_head_losses(&t->head, t->rows, half);
    const int32_t *documents = tr_rows_supervised_documents(t->rows, half);

    if (mat.cols == 0) return BASE_OK;
    BASE_TRY(tr_weights_download(s->ctx, t->stream, &mat, losses));
    for (int64_t i = 0; i < mat.cols; i++)
        sums[documents[i]] += losses[i];
    return BASE_OK;
}

base_status_t tr_scorer_losses(tr_scorer_t *scorer, const data_dataset_t *dataset, double *sums)
{
    const int64_t documents = data_dataset_num_documents(dataset);
    base_status_t st = BASE_OK;

    double *losses =
        base_calloc(scorer->ctx, scorer->trainer->rows->max_rows, sizeof *losses, "losses");
    if (losses == NULL) return BASE_ERR_NOMEM;
    memset(sums, 0, (size_t)documents * sizeof *sums);
    for (int64_t first = 0, next = 0; first < documents && st >= 0; first = next) {
        tr_lot_t *lot = next_lot(scorer);

        tr_lot_begin(lot, scorer->microbatch - 1);
        for (; next < documents && tr_lot_fits(lot, data_dataset_rows(dataset, next)); next++)
            BASE_TRY_GOTO(tr_lot_add(lot, dataset, next, 0, 0.0), st, out);
        BASE_TRY_GOTO(tr_lot_finish(lot), st, out);
        BASE_TRY_GOTO(tr_microbatch_evaluate(scorer->trainer, lot->batch, tr_lot_plans(lot)), st,
                      out);
        for (int h = 0; h < DATA_NUM_HALVES && st >= 0; h++)
            st = add_losses(scorer, (data_half_t)h, losses, sums + first);
    }
out:
    base_free(scorer->ctx, losses);
    return st;
}

/* ==== logits ==== */

/* Rows of a piece: hidden states times the head, through a buffer of TR_HEAD_CHUNK_ROWS rows. */
static base_status_t piece_logits(tr_scorer_t *s, const data_piece_t *piece, base_buffer_t *buffer,
                                  double *logits)
{
    const tr_trainer_t *t = s->trainer;
    const int32_t head = tr_model_weight(t->model, TR_WEIGHT_LM_HEAD, -1);
    const int64_t vocab = s->spec->vocab;
    const kern_mat_t hidden =
        tr_activations_mat(t->activations, TR_SLOT_HIDDEN, (data_half_t)piece->half, 0,
                           t->rows->half[piece->half].rows);

    for (int64_t row = 0; row < piece->rows; row += TR_HEAD_CHUNK_ROWS) {
        const int64_t left = piece->rows - row;
        const int64_t rows = left < TR_HEAD_CHUNK_ROWS ? left : TR_HEAD_CHUNK_ROWS;
        const kern_mat_t out = kern_mat(base_mem(buffer, 0), rows, vocab, vocab, t->model->acc);
        kern_mat_t x = hidden;

        x.mem = base_mem_at(x.mem, (piece->local_row + row) * x.pitch * kern_dtype_bytes(x.dtype));
        x.rows = rows;
        const kern_gemm_t gemm = {
            .a = x, .b = tr_weights_mat(t->weights, head), .c = out, .transpose_b = 1};
        BASE_TRY(kern_gemm_run(t->stream, &gemm));
        BASE_TRY(
            tr_weights_download(s->ctx, t->stream, &out, logits + (piece->doc_row + row) * vocab));
    }
    return BASE_OK;
}

base_status_t tr_scorer_logits(tr_scorer_t *scorer, const int32_t *tokens, int64_t rows,
                               double *logits)
{
    const int64_t bytes = (int64_t)TR_HEAD_CHUNK_ROWS * scorer->spec->vocab *
                          kern_dtype_bytes(scorer->trainer->model->acc);
    tr_lot_t *lot = next_lot(scorer);
    base_buffer_t *buffer;

    tr_lot_begin(lot, scorer->microbatch - 1);
    BASE_TRY(tr_lot_add_rows(lot, rows));
    memcpy(lot->tokens, tokens, (size_t)rows * sizeof *tokens);
    memset(lot->masks, 0, (size_t)rows);
    lot->documents[0].tokens = lot->tokens;
    lot->documents[0].loss_mask = lot->masks;
    BASE_TRY(tr_lot_finish(lot));
    BASE_TRY(tr_microbatch_evaluate(scorer->trainer, lot->batch, tr_lot_plans(lot)));
    BASE_TRY(base_buffer_alloc(base_stream_device(scorer->trainer->stream), BASE_MEMORY_DEVICE,
                               bytes, "logits", &buffer));
    base_status_t st = BASE_OK;
    for (int32_t p = 0; p < lot->batch->num_pieces && st >= 0; p++)
        st = piece_logits(scorer, &lot->batch->pieces[p], buffer, logits);
    base_buffer_free(buffer);
    return st;
}
