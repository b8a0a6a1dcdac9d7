#include "lora/adapter_set.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

lora_linear_t lora_target_linear(int32_t target)
{
    switch (1 << target) {
    case BASE_CONFIG_TARGET_O:
        return LORA_LINEAR_O;
    case BASE_CONFIG_TARGET_GATE:
    case BASE_CONFIG_TARGET_UP:
        return LORA_LINEAR_GATE_UP;
    case BASE_CONFIG_TARGET_DOWN:
        return LORA_LINEAR_DOWN;
    default:
        return LORA_LINEAR_QKV;
    }
}

int64_t lora_target_out_column(const data_model_spec_t *spec, int32_t target)
{
    switch (1 << target) {
    case BASE_CONFIG_TARGET_K:
        return (int64_t)spec->num_q_heads * spec->head_dim;
    case BASE_CONFIG_TARGET_V:
        return (int64_t)(spec->num_q_heads + spec->num_kv_heads) * spec->head_dim;
    case BASE_CONFIG_TARGET_UP:
        return spec->intermediate;
    default:
        return 0;
    }
}

static void count_modules(uint32_t targets, int32_t num_modules[LORA_NUM_LINEARS])
{
    memset(num_modules, 0, LORA_NUM_LINEARS * sizeof *num_modules);
    for (int32_t t = 0; t < LORA_NUM_TARGETS; t++)
        num_modules[lora_target_linear(t)] += (targets >> t & 1u) != 0;
}

int32_t lora_extra_columns(uint32_t targets, int32_t rank_columns)
{
    int32_t num_modules[LORA_NUM_LINEARS], most = 0;

    count_modules(targets, num_modules);
    for (int i = 0; i < LORA_NUM_LINEARS; i++)
        most = num_modules[i] > most ? num_modules[i] : most;
    return (most * rank_columns + 7) / 8 * 8;
}

/* ==== creation ==== */

static base_status_t declare(const lora_adapter_set_t *set, base_arena_t *arena,
                             const lora_adapter_t *adapter, const char *what, base_region_t *region)
{
    char name[128];

    (void)snprintf(name, sizeof name, "adapter.%s.%s", adapter->options.name, what);
    return base_arena_declare(arena, "lora", name,
                              adapter->layout->count * kern_dtype_bytes(set->acc),
                              BASE_LIFETIME_RUN, region);
}

static base_status_t create_adapter(lora_adapter_set_t *set, base_arena_t *arena,
                                    const lora_adapter_options_t *options, lora_adapter_t *adapter)
{
    adapter->options = *options;
    adapter->column = -1;
    adapter->last_used = -1;
    adapter->moment1 = adapter->moment2 = adapter->gradient = BASE_REGION_NONE;
    if (options->rank > set->rank_columns)
        return BASE_FAIL(set->ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                         "adapter %s: rank %d, but batch.max_rank_columns is %d", options->name,
                         options->rank, set->rank_columns);
    BASE_TRY(
        lora_layout_create(set->ctx, set->spec, options->rank, options->targets, &adapter->layout));
    BASE_TRY(declare(set, arena, adapter, "weights", &adapter->weights));
    if (!set->optimizer) return BASE_OK;
    BASE_TRY(declare(set, arena, adapter, "moment1", &adapter->moment1));
    BASE_TRY(declare(set, arena, adapter, "moment2", &adapter->moment2));
    BASE_TRY(declare(set, arena, adapter, "gradient", &adapter->gradient));
    adapter->num_tensors = (int32_t)(2 * adapter->layout->num_modules);
    for (int i = 0; i < LORA_ADAPTER_LISTS; i++) {
        kern_adamw_tensor_t **tensors = &adapter->lists[i].tensors;

        *tensors = base_calloc(set->ctx, adapter->num_tensors, sizeof **tensors, "adapter tensors");
        if (*tensors == NULL) return BASE_ERR_NOMEM;
    }
    return BASE_OK;
}

base_status_t lora_adapter_set_create(base_ctx_t *ctx, const lora_adapter_set_config_t *config,
                                      base_arena_t *arena, lora_adapter_set_t **set_p)
{
    const int64_t linears = (int64_t)config->spec->num_layers * LORA_NUM_LINEARS;
    base_status_t st;

    lora_adapter_set_t *set = base_calloc(ctx, 1, sizeof *set, "adapters");
    if (set == NULL) return BASE_ERR_NOMEM;
    set->ctx = ctx;
    set->arena = arena;
    set->spec = config->spec;
    set->dtype = config->dtype;
    set->acc = kern_dtype_acc(config->dtype);
    set->rank_columns = config->rank_columns;
    set->optimizer = config->optimizer;
    set->num_adapters = config->num_adapters;
    set->adapters = base_calloc(ctx, config->num_adapters, sizeof *set->adapters, "adapters");
    set->weight = base_calloc(ctx, linears, sizeof *set->weight, "adapters");
    set->order = base_calloc(ctx, config->num_adapters, sizeof *set->order, "adapters");
    if (set->adapters == NULL || set->weight == NULL || set->order == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    for (int32_t a = 0; a < config->num_adapters; a++) {
        BASE_TRY_GOTO(create_adapter(set, arena, &config->adapters[a], &set->adapters[a]), st,
                      err_destroy);
        set->targets |= config->adapters[a].targets;
    }
    count_modules(set->targets, set->num_modules);
    *set_p = set;
    return BASE_OK;
err_destroy:
    lora_adapter_set_destroy(set);
    return st;
}

void lora_adapter_set_destroy(lora_adapter_set_t *set)
{
    if (set == NULL) return;
    for (int32_t a = 0; set->adapters != NULL && a < set->num_adapters; a++) {
        lora_layout_destroy(set->adapters[a].layout);
        for (int i = 0; i < LORA_ADAPTER_LISTS; i++)
            base_free(set->ctx, set->adapters[a].lists[i].tensors);
    }
    base_free(set->ctx, set->adapters);
    base_free(set->ctx, set->weight);
    base_free(set->ctx, set->order);
    base_free(set->ctx, set);
}

static kern_mat_t *weight_of(const lora_adapter_set_t *set, int32_t layer, lora_linear_t linear)
{
    return &set->weight[(int64_t)layer * LORA_NUM_LINEARS + linear];
}

void lora_adapter_set_bind(lora_adapter_set_t *set, int32_t layer, lora_linear_t linear,
                           kern_mat_t weight)
{
    *weight_of(set, layer, linear) = weight;
}

/* ==== operands ==== */

kern_mat_t lora_adapter_set_vector(const lora_adapter_set_t *set, int32_t adapter,
                                   base_region_t region)
{
    return kern_vec(base_arena_mem(set->arena, region), set->adapters[adapter].layout->count,
                    set->acc);
}

static kern_mat_t in_vector(const lora_adapter_set_t *set, base_region_t region, int64_t at,
                            int64_t rows, int64_t cols)
{
    const base_mem_t vector = base_arena_mem(set->arena, region);

    return kern_mat(base_mem_at(vector, at * kern_dtype_bytes(set->acc)), rows, cols, cols,
                    set->acc);
}

kern_mat_t lora_module_a(const lora_adapter_set_t *set, int32_t adapter, int64_t module,
                         base_region_t region)
{
    const lora_module_t *m = &set->adapters[adapter].layout->modules[module];

    return in_vector(set, region, m->a, set->adapters[adapter].layout->rank, m->in);
}

kern_mat_t lora_module_b(const lora_adapter_set_t *set, int32_t adapter, int64_t module,
                         base_region_t region)
{
    const lora_module_t *m = &set->adapters[adapter].layout->modules[module];

    return in_vector(set, region, m->b, m->out, set->adapters[adapter].layout->rank);
}

/* An adapter's modules lie beside each other: column c of rank_columns begins at c times the number
 * of modules that any adapter has in the layer. */
int64_t lora_placed_column(const lora_adapter_set_t *set, int32_t adapter, int64_t module)
{
    const lora_adapter_t *a = &set->adapters[adapter];
    const int32_t target = a->layout->modules[module].target;
    const lora_linear_t linear = lora_target_linear(target);
    int64_t before = 0;

    for (int32_t t = 0; t < target; t++)
        before += lora_target_linear(t) == linear && (set->targets >> t & 1u) != 0;
    return (int64_t)a->column * set->num_modules[linear] + before * a->layout->rank;
}

kern_mat_t lora_placed_a(const lora_adapter_set_t *set, int32_t adapter, int64_t module)
{
    const lora_adapter_t *a = &set->adapters[adapter];
    const lora_module_t *m = &a->layout->modules[module];
    const kern_mat_t *w = weight_of(set, m->layer, lora_target_linear(m->target));
    const int64_t row = w->rows + lora_placed_column(set, adapter, module);

    return kern_mat(base_mem_at(w->mem, row * w->pitch * kern_dtype_bytes(set->dtype)),
                    a->layout->rank, m->in, w->pitch, set->dtype);
}

kern_mat_t lora_placed_b(const lora_adapter_set_t *set, int32_t adapter, int64_t module)
{
    const lora_adapter_t *a = &set->adapters[adapter];
    const lora_module_t *m = &a->layout->modules[module];
    const kern_mat_t *w = weight_of(set, m->layer, lora_target_linear(m->target));
    const int64_t at = lora_target_out_column(set->spec, m->target) * w->pitch + w->cols +
                       lora_placed_column(set, adapter, module);

    return kern_mat(base_mem_at(w->mem, at * kern_dtype_bytes(set->dtype)), m->out, a->layout->rank,
                    w->pitch, set->dtype);
}

/* ==== values ==== */

static base_status_t zero(base_stream_t *stream, base_mem_t mem, int64_t bytes)
{
    const base_range_t all = {.mem = mem, .row_bytes = bytes, .rows = 1};

    return base_fill(stream, &all, 0);
}

static base_status_t zero_beside(const kern_mat_t *w, int64_t rows_below, base_stream_t *stream)
{
    const int64_t element = kern_dtype_bytes(w->dtype);
    const base_range_t columns = {.mem = base_mem_at(w->mem, w->cols * element),
                                  .row_bytes = (w->pitch - w->cols) * element,
                                  .rows = w->rows,
                                  .pitch = w->pitch * element};

    BASE_TRY(base_fill(stream, &columns, 0));
    return zero(stream, base_mem_at(w->mem, w->rows * w->pitch * element),
                rows_below * w->pitch * element);
}

base_status_t lora_adapter_set_start(lora_adapter_set_t *set, base_stream_t *stream)
{
    const int64_t linears = (int64_t)set->spec->num_layers * LORA_NUM_LINEARS;
    const int64_t rows_below = lora_extra_columns(set->targets, set->rank_columns);

    for (int64_t i = 0; i < linears; i++)
        BASE_TRY(zero_beside(&set->weight[i], rows_below, stream));
    for (int32_t a = 0; a < set->num_adapters && set->optimizer; a++) {
        const lora_adapter_t *adapter = &set->adapters[a];
        const int64_t bytes = adapter->layout->count * kern_dtype_bytes(set->acc);

        BASE_TRY(zero(stream, base_arena_mem(set->arena, adapter->moment1), bytes));
        BASE_TRY(zero(stream, base_arena_mem(set->arena, adapter->moment2), bytes));
        BASE_TRY(zero(stream, base_arena_mem(set->arena, adapter->gradient), bytes));
    }
    return BASE_OK;
}

/* Zeroes a module's columns over all outputs of the fused layer: who had them before left his B in
 * the rows of other modules. */
static base_status_t zero_columns(const lora_adapter_set_t *set, int32_t adapter, int64_t module,
                                  base_stream_t *stream)
{
    const lora_layout_t *layout = set->adapters[adapter].layout;
    const lora_module_t *m = &layout->modules[module];
    const kern_mat_t *w = weight_of(set, m->layer, lora_target_linear(m->target));
    const int64_t element = kern_dtype_bytes(set->dtype);
    const int64_t at = w->cols + lora_placed_column(set, adapter, module);
    const base_range_t columns = {.mem = base_mem_at(w->mem, at * element),
                                  .row_bytes = layout->rank * element,
                                  .rows = w->rows,
                                  .pitch = w->pitch * element};

    return m->out == w->rows ? BASE_OK : base_fill(stream, &columns, 0);
}

/* Masters to the adapter's place. */
static base_status_t write_place(const lora_adapter_set_t *set, int32_t adapter,
                                 base_stream_t *stream)
{
    const lora_adapter_t *a = &set->adapters[adapter];

    for (int64_t m = 0; m < a->layout->num_modules; m++) {
        const kern_convert_t down = {.a = lora_module_a(set, adapter, m, a->weights),
                                     .out = lora_placed_a(set, adapter, m)};
        const kern_convert_t up = {.a = lora_module_b(set, adapter, m, a->weights),
                                   .out = lora_placed_b(set, adapter, m)};

        BASE_TRY(kern_convert_run(stream, &down));
        BASE_TRY(zero_columns(set, adapter, m, stream));
        BASE_TRY(kern_convert_run(stream, &up));
    }
    return BASE_OK;
}

base_status_t lora_adapter_set_write(lora_adapter_set_t *set, int32_t adapter,
                                     base_stream_t *stream, const double *values)
{
    const lora_adapter_t *a = &set->adapters[adapter];
    const base_mem_t to = base_arena_mem(set->arena, a->weights);
    const int64_t count = a->layout->count;
    float *single = NULL;
    base_status_t st;

    if (set->acc == KERN_F64) {
        st = base_upload(stream, to, values, count * (int64_t)sizeof *values);
    } else {
        single = base_alloc(set->ctx, (size_t)count * sizeof *single, "adapter values");
        if (single == NULL) return BASE_ERR_NOMEM;
        for (int64_t i = 0; i < count; i++)
            single[i] = (float)values[i];
        st = base_upload(stream, to, single, count * (int64_t)sizeof *single);
    }
    const base_status_t synced = base_stream_sync(stream);
    base_free(set->ctx, single);
    if (st < 0 || synced < 0) return st < 0 ? st : synced;
    return a->column < 0 ? BASE_OK : write_place(set, adapter, stream);
}

base_status_t lora_adapter_set_read_region(const lora_adapter_set_t *set, int32_t adapter,
                                           base_region_t region, base_stream_t *stream,
                                           double *values)
{
    const int64_t count = set->adapters[adapter].layout->count;
    const int64_t bytes = count * kern_dtype_bytes(set->acc);
    base_status_t st;

    st = base_download(stream, values, base_arena_mem(set->arena, region), bytes);
    const base_status_t synced = base_stream_sync(stream);
    if (st < 0 || synced < 0) return st < 0 ? st : synced;
    if (set->acc != KERN_F64) lora_widen(values, count);
    return BASE_OK;
}

base_status_t lora_adapter_set_read(const lora_adapter_set_t *set, int32_t adapter,
                                    base_stream_t *stream, double *values)
{
    return lora_adapter_set_read_region(set, adapter, set->adapters[adapter].weights, stream,
                                        values);
}

/* ==== places ==== */

static int overlaps(const lora_adapter_t *a, int32_t column, int32_t rank)
{
    return a->column >= 0 && a->column < column + rank && column < a->column + a->layout->rank;
}

/* The best start for `rank` columns: one that meets no adapter of this microbatch and evicts those
 * whose last use lies furthest back; from the low end without dropout, from the high end with it.
 */
static int32_t find_column(const lora_adapter_set_t *set, const lora_adapter_t *of,
                           int64_t microbatch)
{
    const int32_t rank = of->layout->rank, last = set->rank_columns - rank;
    int64_t best_use = INT64_MAX;
    int32_t best = -1;

    for (int32_t i = 0; i <= last; i++) {
        const int32_t column = of->options.dropout > 0.0 ? last - i : i;
        int64_t use = -1;

        for (int32_t a = 0; a < set->num_adapters; a++) {
            const lora_adapter_t *other = &set->adapters[a];
            if (other != of && overlaps(other, column, rank) && other->last_used > use)
                use = other->last_used;
        }
        if (use < microbatch && use < best_use) {
            best_use = use;
            best = column;
        }
    }
    return best;
}

/* Takes a place; who has it loses it. -1: the microbatch's own adapters leave no room. */
static int32_t take(lora_adapter_set_t *set, int32_t adapter, int64_t microbatch)
{
    lora_adapter_t *a = &set->adapters[adapter];
    const int32_t column = find_column(set, a, microbatch);

    if (column < 0) return -1;
    for (int32_t other = 0; other < set->num_adapters; other++) {
        if (overlaps(&set->adapters[other], column, a->layout->rank))
            set->adapters[other].column = -1;
    }
    a->column = column;
    return column;
}

/* Everybody of the microbatch anew, in order: always fits when the ranks do, because those without
 * dropout fill up from one end and the others from the other. */
static base_status_t place_afresh(lora_adapter_set_t *set, int64_t microbatch, const int32_t *used,
                                  int32_t num_used)
{
    int32_t low = 0, high = set->rank_columns;

    for (int32_t a = 0; a < set->num_adapters; a++)
        set->adapters[a].column = -1;
    for (int32_t i = 0; i < num_used; i++) {
        lora_adapter_t *a = &set->adapters[used[i]];
        const int32_t rank = a->layout->rank;

        if (rank > high - low)
            return BASE_FAIL(set->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "microbatch %lld: its adapters' ranks are more than %d columns",
                             (long long)microbatch, set->rank_columns);
        if (a->options.dropout > 0.0)
            a->column = high -= rank;
        else
            a->column = low, low += rank;
    }
    return BASE_OK;
}

/* Those without dropout lie below those with it: the gemm of the backward takes the low end. */
static int in_order(const lora_adapter_set_t *set, const int32_t *used, int32_t num_used)
{
    int32_t low = 0, high = set->rank_columns;

    for (int32_t i = 0; i < num_used; i++) {
        const lora_adapter_t *a = &set->adapters[used[i]];
        const int32_t end = a->column + a->layout->rank;

        if (a->options.dropout > 0.0)
            high = a->column < high ? a->column : high;
        else
            low = end > low ? end : low;
    }
    return low <= high;
}

base_status_t lora_adapter_set_place(lora_adapter_set_t *set, int64_t microbatch,
                                     const int32_t *used, int32_t num_used, base_stream_t *stream)
{
    int32_t *before = set->order; /* column that each had */
    int afresh = 0;

    for (int32_t a = 0; a < set->num_adapters; a++)
        before[a] = set->adapters[a].column;
    for (int32_t i = 0; i < num_used; i++) {
        if (set->adapters[used[i]].column >= 0) set->adapters[used[i]].last_used = microbatch;
    }
    for (int32_t i = 0; i < num_used && !afresh; i++) {
        lora_adapter_t *a = &set->adapters[used[i]];

        if (a->column < 0) afresh = take(set, used[i], microbatch) < 0;
        a->last_used = microbatch;
    }
    if (afresh || !in_order(set, used, num_used))
        BASE_TRY(place_afresh(set, microbatch, used, num_used));
    for (int32_t i = 0; i < num_used; i++) {
        set->adapters[used[i]].last_used = microbatch;
        if (set->adapters[used[i]].column != before[used[i]])
            BASE_TRY(write_place(set, used[i], stream));
    }
    return BASE_OK;
}

base_status_t lora_adapter_set_restore_place(lora_adapter_set_t *set, int32_t adapter,
                                             int32_t column, int64_t last_used,
                                             base_stream_t *stream)
{
    lora_adapter_t *a = &set->adapters[adapter];

    if (column < -1 || column > set->rank_columns - a->layout->rank)
        return BASE_FAIL(set->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "adapter %s: no place at column %d of %d", a->options.name, column,
                         set->rank_columns);
    a->column = column;
    a->last_used = last_used;
    return column < 0 ? BASE_OK : write_place(set, adapter, stream);
}
