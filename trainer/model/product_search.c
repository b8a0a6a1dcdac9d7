#include "trainer/model/product_search.h"

#include "kernels/gemm_key.h"

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

/* How many columns of the layer a microbatch's product can take along, at least and at most. */
typedef struct columns {
    int64_t least, most;
} columns_t;

static int sits_on(const lora_adapter_t *a, lora_linear_t linear)
{
    for (int32_t t = 0; t < LORA_NUM_TARGETS; t++)
        if (lora_target_linear(t) == linear && (a->options.targets >> t & 1u) != 0) return 1;
    return 0;
}

/* Those up to an adapter's last one (lora/adapter_set.h: without dropout from the low end, with dropout from the high
 * end); for the input gradient, `plain`, of those without dropout only, of which there may be none. */
static columns_t adapter_columns(const tr_graph_t *g, lora_linear_t linear, int plain)
{
    int64_t ranks = 0, all = 0, least = INT64_MAX;

    if (g->route == NULL || g->route->set->num_adapters == 0) return (columns_t){0, 0};
    const lora_adapter_set_t *set = g->route->set;
    for (int32_t i = 0; i < set->num_adapters; i++) {
        const lora_adapter_t *a = &set->adapters[i];
        const int64_t rank = a->layout->rank;
        const int masked = a->options.dropout > 0.0;
        const int64_t takes = sits_on(a, linear) && !(plain && masked) ? rank : 0;

        all += rank;
        if (takes < least) least = takes;
        if (masked)
            ranks += plain ? 0 : set->rank_columns;
        else
            ranks += rank;
    }
    /* Where not all have a place, one without dropout may take that of one with. */
    if (ranks > set->rank_columns || (ranks > 0 && all > set->rank_columns))
        ranks = set->rank_columns;
    return (columns_t){least, ranks * set->num_modules[linear]};
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

/* For each choice that K of the weight, and so many columns more, can need. */
static base_status_t search_depths(const tr_graph_t *g, kern_gemm_t *gemm, columns_t columns)
{
    int64_t *b_depth = gemm->transpose_b ? &gemm->b.cols : &gemm->b.rows;
    const int64_t depth = *b_depth, least = depth + columns.least;

    BASE_TRY(take_values(g, &gemm->b, &gemm->a));
    for (int64_t k = depth + columns.most; k >= least && k > 0; k = kern_gemm_depth_below(k)) {
        gemm->a.cols = *b_depth = k;
        BASE_TRY(search(g, gemm));
    }
    return BASE_OK;
}

/* One after the other: what lives in the forward alone shares bytes with the backward's. */
static base_status_t search_linear(const tr_graph_t *g, const linear_slots_t *l, int64_t rows)
{
    const kern_mat_t w = tr_weights_mat(g->weights, tr_model_weight(g->model, l->weight, 0));
    kern_gemm_t forward = {
        .a = slot(g, l->x, rows), .b = w, .c = slot(g, l->y, rows), .transpose_b = 1};
    kern_gemm_t backward = {.a = slot(g, l->dy, rows), .b = w, .c = slot(g, l->dx, rows)};

    BASE_TRY(search_depths(g, &forward, adapter_columns(g, l->linear, 0)));
    return search_depths(g, &backward, adapter_columns(g, l->linear, 1));
}

static base_status_t search_head(const tr_graph_t *g, int64_t rows)
{
    tr_head_products_t products;

    tr_head_products(g->head, g->weights, rows, &products);
    BASE_TRY(search_depths(g, &products.logits, (columns_t){0, 0}));
    return search_depths(g, &products.dx, (columns_t){0, 0});
}

int tr_product_has_choice(const tr_graph_t *graph)
{
    const kern_ops_t *ops = kern_ops_of(base_device_kind(base_stream_device(graph->stream)));

    return ops != NULL && ops->gemm_search != NULL;
}

base_status_t tr_product_search(const tr_graph_t *graph)
{
    const int64_t rows = graph->activations->max_rows, chunk = graph->head->chunk_rows;

    /* A choice holds for all numbers of rows up to its bound, and is found with the largest. Halves have a multiple
     * of DATA_ROW_ALIGN, chunks of the head any number. */
    for (int64_t bound = kern_gemm_rows_bound(rows); bound >= DATA_ROW_ALIGN; bound /= 2)
        for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++)
            BASE_TRY(search_linear(graph, &linears[i], bound < rows ? bound : rows));
    for (int64_t bound = kern_gemm_rows_bound(chunk); bound >= KERN_GEMM_LEAST_ROWS; bound /= 2)
        BASE_TRY(search_head(graph, bound < chunk ? bound : chunk));
    BASE_TRY(tr_activations_fill(graph->activations, graph->stream));
    return base_stream_sync(graph->stream);
}
