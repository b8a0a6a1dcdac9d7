#include "trainer/model/head.h"

base_status_t tr_head_init(tr_head_t *head, const tr_model_t *model, base_arena_t *arena,
                           int64_t max_rows, int32_t num_adapters)
{
    const int64_t real = kern_dtype_bytes(model->config.dtype), acc = kern_dtype_bytes(model->acc);
    const int32_t phase = model->config.num_layers; /* see tr_lifetime_t */
    const base_lifetime_t at_head = {phase, phase};

    *head = (tr_head_t){.model = model,
                        .arena = arena,
                        .max_rows = max_rows,
                        .chunk_rows = model->config.dtype == KERN_BF16 ? TR_HEAD_CHUNK_ROWS_BF16
                                                                       : TR_HEAD_CHUNK_ROWS,
                        .num_adapters = num_adapters};
    if (head->chunk_rows > max_rows) head->chunk_rows = max_rows;
    BASE_TRY(base_arena_declare(arena, "trainer", "head.loss.ping", max_rows * acc,
                                BASE_LIFETIME_RUN, &head->loss[DATA_PING]));
    BASE_TRY(base_arena_declare(arena, "trainer", "head.loss.pong", max_rows * acc,
                                BASE_LIFETIME_RUN, &head->loss[DATA_PONG]));
    BASE_TRY(base_arena_declare(arena, "trainer", "head.logits",
                                head->chunk_rows * model->config.vocab * acc, at_head,
                                &head->logits));
    BASE_TRY(base_arena_declare(arena, "trainer", "head.gathered",
                                head->chunk_rows * model->config.hidden * real, at_head,
                                &head->gathered));
    return base_arena_declare(arena, "trainer", "head.sums", num_adapters * acc, BASE_LIFETIME_RUN,
                              &head->sums);
}

kern_mat_t tr_head_sums(const tr_head_t *head)
{
    return kern_vec(base_arena_mem(head->arena, head->sums), head->num_adapters, head->model->acc);
}

kern_mat_t tr_head_losses(const tr_head_t *head, const tr_rows_t *rows, data_half_t half)
{
    return kern_vec(base_arena_mem(head->arena, head->loss[half]), rows->half[half].num_supervised,
                    head->model->acc);
}

static kern_mat_t logits_of(const tr_head_t *head)
{
    const tr_model_t *m = head->model;

    return kern_mat(base_arena_mem(head->arena, head->logits), head->chunk_rows, m->config.vocab,
                    m->config.vocab, m->acc);
}

static kern_mat_t gathered_of(const tr_head_t *head)
{
    const tr_model_t *m = head->model;

    return kern_mat(base_arena_mem(head->arena, head->gathered), head->chunk_rows, m->config.hidden,
                    m->config.hidden, m->config.dtype);
}

void tr_head_products(const tr_head_t *head, const tr_weights_t *weights, int64_t rows,
                      tr_head_products_t *products)
{
    const kern_mat_t w =
        tr_weights_mat(weights, tr_model_weight(head->model, TR_WEIGHT_LM_HEAD, -1));
    kern_mat_t logits = logits_of(head), gathered = gathered_of(head);

    logits.rows = gathered.rows = rows;
    kern_mat_t gradient = logits; /* in the same place, in the model's dtype */
    gradient.dtype = head->model->config.dtype;
    gradient.pitch =
        logits.pitch * kern_dtype_bytes(logits.dtype) / kern_dtype_bytes(gradient.dtype);
    *products =
        (tr_head_products_t){.logits = {.a = gathered, .b = w, .c = logits, .transpose_b = 1},
                             .dx = {.a = gradient, .b = w, .c = gathered}};
}

/* dhidden of the half (NULL: not wanted), and its weighted losses into the sums. */
static base_status_t loss(const tr_head_t *head, const tr_weights_t *weights, const tr_rows_t *rows,
                          data_half_t half, const kern_mat_t *hidden, const kern_mat_t *dhidden,
                          base_stream_t *stream)
{
    const tr_model_t *m = head->model;
    const int32_t lm_head = tr_model_weight(m, TR_WEIGHT_LM_HEAD, -1);
    const kern_mat_t losses = tr_head_losses(head, rows, half);

    if (rows->half[half].num_supervised == 0) {
        if (dhidden == NULL) return BASE_OK;
        const base_range_t all = {.mem = dhidden->mem,
                                  .row_bytes = dhidden->cols * kern_dtype_bytes(dhidden->dtype),
                                  .rows = dhidden->rows,
                                  .pitch = dhidden->pitch * kern_dtype_bytes(dhidden->dtype)};
        return base_fill(stream, &all, 0);
    }
    kern_loss_linear_ce_t ce = {
        .x = *hidden,
        .w = tr_weights_mat(weights, lm_head),
        .rows = tr_rows_supervised(rows, half),
        .targets = tr_rows_targets(rows, half),
        .weights = tr_rows_weights(rows, half),
        .loss = losses,
        .logits = logits_of(head),
        .gathered = gathered_of(head),
    };
    if (dhidden != NULL) ce.dx = *dhidden;
    if (dhidden != NULL && !m->config.frozen) ce.dw = tr_weights_gradient(weights, lm_head);
    BASE_TRY(kern_loss_linear_ce_run(stream, &ce));

    const kern_loss_sum_t sum = {.values = losses,
                                 .weights = tr_rows_weights(rows, half),
                                 .segments = tr_rows_adapters(rows, half),
                                 .sums = tr_head_sums(head)};
    return kern_loss_sum_run(stream, &sum);
}

base_status_t tr_head_run(const tr_head_t *head, const tr_weights_t *weights,
                          const tr_activations_t *activations, const tr_rows_t *rows,
                          data_half_t half, int evaluate, base_stream_t *stream)
{
    const int64_t t = rows->half[half].rows;
    const int32_t norm = tr_model_weight(head->model, TR_WEIGHT_FINAL_NORM, -1);
    const kern_mat_t last = tr_activations_mat(activations, TR_SLOT_LAST, half, 0, t);
    const kern_mat_t rstd = tr_activations_mat(activations, TR_SLOT_RSTD_LAST, half, 0, t);
    const kern_mat_t hidden = tr_activations_mat(activations, TR_SLOT_HIDDEN, half, 0, t);
    const kern_mat_t dhidden = tr_activations_mat(activations, TR_SLOT_DHIDDEN, half, 0, t);

    if (t == 0) return BASE_OK;
    const kern_rmsnorm_fwd_t forward = {.x = last,
                                        .w = tr_weights_mat(weights, norm),
                                        .y = hidden,
                                        .rstd = rstd,
                                        .eps = head->model->config.rms_eps};
    BASE_TRY(kern_rmsnorm_fwd_run(stream, &forward));
    BASE_TRY(loss(head, weights, rows, half, &hidden, evaluate ? NULL : &dhidden, stream));
    if (evaluate) return BASE_OK;

    /* dres is absent: the residual stream ends here. */
    kern_rmsnorm_bwd_t backward = {.dy = dhidden,
                                   .x = last,
                                   .w = tr_weights_mat(weights, norm),
                                   .rstd = rstd,
                                   .dx = tr_activations_mat(activations, TR_SLOT_DX, half, 0, t)};
    if (!head->model->config.frozen) backward.dw = tr_weights_gradient(weights, norm);
    return kern_rmsnorm_bwd_run(stream, &backward);
}
