#include "trainer/model/product_search.h"

#define ROWS_LEAST   16 /* below, it is one choice (kernels/cuda/gemm_plans.h) */
#define HALVES_LEAST 4  /* halves of a quarter of the rows there is room for, and more */

/* A linear layer of layer 0: y = x W^T, dx = dy W. */
typedef struct linear_slots {
    tr_weight_kind_t weight;
    lora_linear_t linear;
    tr_slot_t x, y, dy, dx;
} linear_slots_t;

static const linear_slots_t linears[] = {
    {TR_WEIGHT_QKV, LORA_LINEAR_QKV, TR_SLOT_N1, TR_SLOT_QKV, TR_SLOT_DQKV, TR_SLOT_DNORM},
    {TR_WEIGHT_O, LORA_LINEAR_O, TR_SLOT_O, TR_SLOT_BRANCH, TR_SLOT_DX, TR_SLOT_DO},
    {TR_WEIGHT_GATE_UP, LORA_LINEAR_GATE_UP, TR_SLOT_N2, TR_SLOT_GATE_UP, TR_SLOT_DGATE_UP,
     TR_SLOT_DNORM},
    {TR_WEIGHT_DOWN, LORA_LINEAR_DOWN, TR_SLOT_ACT, TR_SLOT_BRANCH, TR_SLOT_DX, TR_SLOT_DACT}};

static kern_mat_t slot(const tr_graph_t *g, tr_slot_t which, int64_t rows)
{
    return tr_activations_mat(g->activations, which, DATA_PING, 0, rows);
}

/* Columns that adapters take of the layer when they are all in a microbatch, or as many as there is
 * room for; with `plain` those without dropout alone. */
static int64_t adapter_columns(const tr_graph_t *g, lora_linear_t linear, int plain)
{
    int64_t ranks = 0;

    if (g->route == NULL) return 0;
    const lora_adapter_set_t *set = g->route->set;
    for (int32_t a = 0; a < set->num_adapters; a++)
        if (!plain || set->adapters[a].options.dropout == 0.0)
            ranks += set->adapters[a].layout->rank;
    if (ranks > set->rank_columns) ranks = set->rank_columns;
    return ranks * set->num_modules[linear];
}

/* The first bytes of the weight, again and again: what lies beside its columns is zero. */
static base_status_t take_values(const tr_graph_t *g, const kern_mat_t *weight,
                                 const kern_mat_t *mat)
{
    const int64_t bytes = mat->rows * mat->pitch * kern_dtype_bytes(mat->dtype);
    const int64_t have = weight->rows * weight->pitch * kern_dtype_bytes(weight->dtype);

    for (int64_t at = 0; at < bytes; at += have) {
        const int64_t left = bytes - at < have ? bytes - at : have;
        const base_range_t from = {.mem = weight->mem, .row_bytes = left, .rows = 1};
        const base_range_t to = {.mem = base_mem_at(mat->mem, at), .row_bytes = left, .rows = 1};

        BASE_TRY(base_copy(g->stream, &to, &from));
    }
    return BASE_OK;
}

/* Run once too: what a run before has found was not launched yet. */
static base_status_t search(const tr_graph_t *g, const kern_gemm_t *gemm)
{
    BASE_TRY(kern_gemm_search(g->stream, gemm));
    return kern_gemm_run(g->stream, gemm);
}

static base_status_t search_linear(const tr_graph_t *g, const linear_slots_t *l, int64_t rows)
{
    const int32_t index = tr_model_weight(g->model, l->weight, 0);
    const kern_mat_t w = tr_weights_mat(g->weights, index);
    kern_gemm_t forward = {
        .a = slot(g, l->x, rows), .b = w, .c = slot(g, l->y, rows), .transpose_b = 1};
    kern_gemm_t backward = {.a = slot(g, l->dy, rows), .b = w, .c = slot(g, l->dx, rows)};

    const int64_t all = adapter_columns(g, l->linear, 0), plain = adapter_columns(g, l->linear, 1);

    /* One after the other: what lives in the forward alone shares bytes with the backward's. */
    BASE_TRY(take_values(g, &w, &forward.a));
    forward.a.cols += all;
    forward.b.cols += all;
    BASE_TRY(search(g, &forward));
    BASE_TRY(take_values(g, &w, &backward.a));
    backward.a.cols += plain;
    backward.b.rows += plain;
    return search(g, &backward);
}

static base_status_t search_head(const tr_graph_t *g, int64_t rows)
{
    const kern_mat_t w =
        tr_weights_mat(g->weights, tr_model_weight(g->model, TR_WEIGHT_LM_HEAD, -1));
    tr_head_products_t products;

    tr_head_products(g->head, g->weights, rows, &products);
    BASE_TRY(take_values(g, &w, &products.logits.a));
    BASE_TRY(search(g, &products.logits));
    BASE_TRY(take_values(g, &w, &products.dx.a));
    return search(g, &products.dx);
}

static int64_t power_above(int64_t rows)
{
    int64_t power = 1;

    while (power < rows)
        power *= 2;
    return power;
}

int tr_product_has_choice(const tr_graph_t *graph)
{
    const kern_ops_t *ops = kern_ops_of(base_device_kind(base_stream_device(graph->stream)));

    return ops != NULL && ops->gemm_search != NULL;
}

base_status_t tr_product_search(const tr_graph_t *graph)
{
    const int64_t rows = graph->activations->max_rows, chunk = graph->head->chunk_rows;
    const int64_t least = power_above(rows) / HALVES_LEAST;

    /* A choice holds for all numbers of rows up to a power of two (kern_gemm_search). */
    for (int64_t power = power_above(rows); power >= least && power >= ROWS_LEAST; power /= 2)
        for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++)
            BASE_TRY(search_linear(graph, &linears[i], power < rows ? power : rows));
    for (int64_t power = power_above(chunk); power >= ROWS_LEAST; power /= 2)
        BASE_TRY(search_head(graph, power < chunk ? power : chunk));
    BASE_TRY(tr_activations_fill(graph->activations, graph->stream));
    return base_stream_sync(graph->stream);
}
