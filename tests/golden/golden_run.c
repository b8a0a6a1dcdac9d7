#include "tests/golden/golden_run.h"

#include "tests/support/ctx_fixture.h"

#include <stdlib.h>

/* The first batches of both adapters (767 rows) are one microbatch, in which a document spans ping
 * and pong; later ones are several. */
#define TOKENS  1024
#define LONGEST 300

static void *must(void *p)
{
    assert_non_null(p);
    return p;
}

/* ==== the case ==== */

static void read_adapter(golden_run_t *r, const data_model_spec_t *spec, int a)
{
    const golden_adapter_t *adapter = &r->g->adapters[a];
    const lora_peft_info_t *info;
    lora_peft_t *peft;

    assert_int_equal(lora_peft_open(r->ctx, adapter->folder, spec, NULL, &peft), BASE_OK);
    info = lora_peft_info(peft);
    r->options[a] = (lora_adapter_options_t){
        .name = adapter->name, .rank = info->rank, .scale = info->scale, .targets = info->targets};
    assert_int_equal(lora_layout_create(r->ctx, spec, info->rank, info->targets, &r->layouts[a]),
                     BASE_OK);
    const int64_t count = r->layouts[a]->count;
    float *single = must(calloc((size_t)count, sizeof *single));
    assert_int_equal(
        lora_peft_import(r->ctx, adapter->folder, spec, r->layouts[a], info->scale, single),
        BASE_OK);
    r->values[a] = must(calloc((size_t)count, sizeof *r->values[a]));
    r->logs[a].gradient = must(calloc((size_t)count, sizeof(double)));
    r->logs[a].final = must(calloc((size_t)count, sizeof(double)));
    for (int64_t i = 0; i < count; i++)
        r->values[a][i] = (double)single[i];
    free(single);
    lora_peft_close(peft);
}

golden_run_t *golden_run_create(base_ctx_t *ctx, const char *family, const char *folder,
                                kern_dtype_t dtype)
{
    golden_run_t *r = must(calloc(1, sizeof *r));
    data_hf_folder_t *base;

    r->ctx = ctx;
    r->dtype = dtype;
    r->g = golden_case_open(ctx, family);
    (void)golden_path(folder, r->folder, sizeof r->folder);
    assert_int_equal(data_hf_folder_open(ctx, r->folder, NULL, &base), BASE_OK);
    for (int a = 0; a < GOLDEN_NUM_ADAPTERS; a++) {
        const golden_adapter_t *adapter = &r->g->adapters[a];

        read_adapter(r, data_hf_folder_spec(base), a);
        assert_true(adapter->num_documents <= GOLDEN_MAX_DOCUMENTS);
        for (int64_t d = 0; d < adapter->num_documents; d++)
            r->logits[a][d] = must(calloc(
                (size_t)(adapter->documents[d].num_logit_rows * r->g->vocab), sizeof(double)));
    }
    data_hf_folder_close(base);
    return r;
}

void golden_run_destroy(golden_run_t *r)
{
    for (int a = 0; a < GOLDEN_NUM_ADAPTERS; a++) {
        for (int d = 0; d < GOLDEN_MAX_DOCUMENTS; d++)
            free(r->logits[a][d]);
        free(r->values[a]);
        free(r->logs[a].gradient);
        free(r->logs[a].final);
        lora_layout_destroy(r->layouts[a]);
    }
    golden_case_close(r->g);
    free(r);
}

static void run_case(golden_run_t *r, bool with_adapters, train_body_fn body)
{
    const train_case_t c = {.folder = r->folder,
                            .dtype = r->dtype,
                            .device = BASE_DEVICE_CPU,
                            .num_adapters = with_adapters ? GOLDEN_NUM_ADAPTERS : 0,
                            .adapters = r->options,
                            .values = (const double *const *)r->values,
                            .tokens_per_trainer = TOKENS,
                            .longest = LONGEST,
                            .body = body,
                            .user = r};

    train_case_run(&c);
}

/* ==== logits and losses ==== */

static data_document_t document_of(const golden_run_t *r, int a, int64_t d)
{
    const golden_document_t *doc = &r->g->adapters[a].documents[d];

    return (data_document_t){.rows = doc->rows,
                             .adapter = a,
                             .index = d,
                             .row_weight = 1.0,
                             .tokens = doc->tokens,
                             .loss_mask = doc->loss_mask};
}

static void take_logits(golden_run_t *r, int a, int64_t d, int64_t doc_row, const double *hidden,
                        const double *head, int64_t width)
{
    const golden_document_t *doc = &r->g->adapters[a].documents[d];

    for (int64_t i = 0; i < doc->num_logit_rows; i++) {
        if (doc->logit_rows[i] != doc_row) continue;
        for (int64_t v = 0; v < r->g->vocab; v++) {
            double sum = 0.0;
            for (int64_t h = 0; h < width; h++)
                sum += hidden[h] * head[v * width + h];
            r->logits[a][d][i * r->g->vocab + v] = sum;
        }
    }
}

static const data_piece_t *piece_of_row(const data_batch_t *batch, int half, int64_t row)
{
    for (int32_t p = 0; p < batch->num_pieces; p++) {
        const data_piece_t *piece = &batch->pieces[p];
        if (piece->half == half && row >= piece->local_row && row < piece->local_row + piece->rows)
            return piece;
    }
    return NULL;
}

static base_status_t read_half(golden_run_t *r, train_rank_t *rank, const data_batch_t *batch,
                               int half, const double *head)
{
    tr_trainer_t *t = rank->trainer;
    const int64_t rows = t->rows->half[half].rows, width = rank->spec->hidden;
    const kern_mat_t losses = tr_head_losses(&t->head, t->rows, (data_half_t)half);
    double *hidden = calloc((size_t)(rows * width) + 1, sizeof *hidden);
    double *loss = calloc((size_t)losses.cols + 1, sizeof *loss);
    int64_t next = 0;
    base_status_t st = tr_trainer_read_hidden(t, (data_half_t)half, hidden);

    if (st >= 0 && losses.cols > 0) st = tr_weights_download(t->ctx, t->stream, &losses, loss);
    for (int64_t row = 0; row < rows && st >= 0; row++) {
        const data_piece_t *piece = piece_of_row(batch, half, row);
        if (piece == NULL) continue;
        const data_document_t *doc = &batch->documents[piece->document];
        const int64_t at = piece->doc_row + row - piece->local_row;
        const int a = doc->row_weight > 1.5;

        take_logits(r, a, doc->index, at, hidden + row * width, head, width);
        if (at + 1 < doc->rows && doc->loss_mask[at + 1]) r->losses[a][doc->index] += loss[next++];
    }
    free(loss);
    free(hidden);
    return st;
}

static base_status_t forward_lot(golden_run_t *r, train_rank_t *rank, tr_lot_t *lot,
                                 const double *head)
{
    BASE_TRY(train_lot_run(rank, lot, 1));
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        BASE_TRY(read_half(r, rank, lot->batch, half, head));
    return BASE_OK;
}

static base_status_t forward_all(golden_run_t *r, train_rank_t *rank, tr_lot_t *lot,
                                 const double *head)
{
    int64_t next[GOLDEN_NUM_ADAPTERS] = {0}, microbatch = 0;
    int a = 0;

    tr_lot_begin(lot, microbatch++);
    for (;;) {
        if (next[a] == r->g->adapters[a].num_documents) a = !a;
        if (next[a] == r->g->adapters[a].num_documents) break;
        data_document_t doc = document_of(r, a, next[a]);
        doc.row_weight = 1.0 + a; /* tells them apart; what is read here does not depend on it */
        doc.adapter = rank->c->num_adapters > 0 ? a : 0;
        if (!tr_lot_fits(lot, doc.rows)) {
            BASE_TRY(forward_lot(r, rank, lot, head));
            tr_lot_begin(lot, microbatch++);
        }
        train_lot_add(lot, &doc);
        next[a]++;
        a = !a;
    }
    return forward_lot(r, rank, lot, head);
}

static base_status_t documents_body(train_rank_t *rank, void *user)
{
    golden_run_t *r = user;
    tr_trainer_t *t = rank->trainer;
    const int32_t index = tr_model_weight(t->model, TR_WEIGHT_LM_HEAD, -1);
    tr_lot_t *lot;
    base_status_t st;

    double *head = calloc((size_t)(rank->spec->vocab * rank->spec->hidden), sizeof *head);
    if (head == NULL) return BASE_ERR_NOMEM;
    BASE_TRY_GOTO(tr_weights_read(t->weights, index, t->stream, head), st, out);
    BASE_TRY_GOTO(tr_lot_create(rank->ctx, &rank->lots, NULL, &lot), st, out);
    st = forward_all(r, rank, lot, head);
    if (st >= 0) st = tr_trainer_sync(t);
    tr_lot_destroy(lot);
out:
    free(head);
    return st;
}

void golden_run_documents(golden_run_t *r, bool with_adapters)
{
    memset(r->losses, 0, sizeof r->losses);
    run_case(r, with_adapters, documents_body);
}

/* ==== training ==== */

static base_status_t train_body(train_rank_t *rank, void *user)
{
    golden_run_t *r = user;
    const golden_training_t *t = &r->g->training;
    base_config_adapter_t configs[GOLDEN_NUM_ADAPTERS];
    char paths[GOLDEN_NUM_ADAPTERS][64];

    for (int a = 0; a < GOLDEN_NUM_ADAPTERS; a++) {
        const golden_adapter_t *adapter = &r->g->adapters[a];
        data_document_t documents[GOLDEN_MAX_DOCUMENTS];

        for (int64_t d = 0; d < adapter->num_trained; d++)
            documents[d] = document_of(r, a, d);
        (void)snprintf(paths[a], sizeof paths[a], "golden_%s.h5", adapter->name);
        BASE_TRY(train_write_dataset(rank->ctx, paths[a], documents, (int32_t)adapter->num_trained,
                                     r->g->vocab));
        configs[a] = train_config(adapter->name, paths[a], t->steps, adapter->batch_documents,
                                  t->learning_rate);
        configs[a].rank = adapter->rank;
        configs[a].schedule = BASE_CONFIG_SCHEDULE_COSINE;
        configs[a].warmup_steps = t->warmup_steps;
        configs[a].betas[0] = t->beta1;
        configs[a].betas[1] = t->beta2;
        configs[a].eps = t->eps;
        configs[a].weight_decay = t->weight_decay;
        configs[a].clip_norm = t->clip_norm;
    }
    return train_run_jobs(rank, configs, GOLDEN_NUM_ADAPTERS, r->logs);
}

void golden_run_train(golden_run_t *r)
{
    run_case(r, true, train_body);
}

const golden_tensor_t *golden_run_tensor(const golden_adapter_t *adapter,
                                         const lora_layout_t *layout, int64_t index, int64_t *at)
{
    const lora_module_t *m = &layout->modules[index / 2];
    const golden_tensor_t *t;
    char name[128];

    (void)snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.%s.lora_%s.weight",
                   m->layer, lora_target_parent(m->target), lora_target_name(m->target),
                   index % 2 == 0 ? "A" : "B");
    t = golden_find(adapter, name);
    if (t == NULL) fail_msg("no tensor %s", name);
    *at = index % 2 == 0 ? m->a : m->b;
    return t;
}
