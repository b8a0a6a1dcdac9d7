#include "lora/route.h"

#include "base/memory.h"
#include "base/sort.h"

static base_status_t create_stage(lora_route_t *r, lora_route_stage_t *s)
{
    const lora_adapter_set_t *set = r->set;
    int64_t blocks = 0;

    for (int32_t a = 0; a < set->num_adapters; a++)
        blocks += set->adapters[a].layout->num_modules;
    for (int h = 0; h < DATA_NUM_HALVES; h++) {
        s->segments[h] =
            base_calloc(r->ctx, r->max_pieces, sizeof *s->segments[h], "adapter segments");
        if (s->segments[h] == NULL) return BASE_ERR_NOMEM;
    }
    s->adapters = base_calloc(r->ctx, set->num_adapters, sizeof *s->adapters, "adapter route");
    s->blocks = base_calloc(r->ctx, blocks, sizeof *s->blocks, "adapter blocks");
    s->linears = base_calloc(r->ctx, (int64_t)set->spec->num_layers * LORA_NUM_LINEARS,
                             sizeof *s->linears, "adapter route");
    return s->adapters == NULL || s->blocks == NULL || s->linears == NULL ? BASE_ERR_NOMEM
                                                                          : BASE_OK;
}

base_status_t lora_route_create(const lora_adapter_set_t *set, int32_t max_pieces,
                                lora_route_t **route_p)
{
    base_status_t st;

    lora_route_t *r = base_calloc(set->ctx, 1, sizeof *r, "adapter route");
    if (r == NULL) return BASE_ERR_NOMEM;
    r->ctx = set->ctx;
    r->set = set;
    r->max_pieces = max_pieces;
    for (int i = 0; i < LORA_ROUTE_STAGES; i++)
        BASE_TRY_GOTO(create_stage(r, &r->stage[i]), st, err_destroy);
    r->order = base_calloc(r->ctx, max_pieces, sizeof *r->order, "adapter route");
    r->by_column = base_calloc(r->ctx, set->num_adapters, sizeof *r->by_column, "adapter route");
    if (r->order == NULL || r->by_column == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    *route_p = r;
    return BASE_OK;
err_destroy:
    lora_route_destroy(r);
    return st;
}

void lora_route_destroy(lora_route_t *route)
{
    if (route == NULL) return;
    for (int i = 0; i < LORA_ROUTE_STAGES; i++) {
        lora_route_stage_t *s = &route->stage[i];

        for (int h = 0; h < DATA_NUM_HALVES; h++)
            base_free(route->ctx, s->segments[h]);
        base_free(route->ctx, s->adapters);
        base_free(route->ctx, s->blocks);
        base_free(route->ctx, s->linears);
    }
    base_free(route->ctx, route->order);
    base_free(route->ctx, route->by_column);
    base_free(route->ctx, route);
}

/* ==== rows ==== */

static int later_row(const void *a, const void *b, const void *arg)
{
    const data_batch_t *batch = arg;

    return base_compare_i64(batch->pieces[*(const int32_t *)a].local_row,
                            batch->pieces[*(const int32_t *)b].local_row);
}

static base_status_t list_segments(lora_route_t *r, const data_batch_t *batch, int32_t trainer,
                                   data_half_t half, lora_route_stage_t *s)
{
    int64_t n = 0, count = 0;

    for (int32_t p = 0; p < batch->num_pieces; p++) {
        if (batch->pieces[p].trainer != trainer || batch->pieces[p].half != (int32_t)half) continue;
        if (count == r->max_pieces)
            return BASE_FAIL(r->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "microbatch %lld: more than %d pieces in a half",
                             (long long)batch->microbatch, r->max_pieces);
        r->order[count++] = p;
    }
    base_sort(r->order, count, sizeof *r->order, later_row, batch);
    for (int64_t i = 0; i < count; i++) {
        const data_piece_t *piece = &batch->pieces[r->order[i]];
        const int32_t adapter = batch->documents[piece->document].adapter;
        kern_lora_segment_t *last = n > 0 ? &s->segments[half][n - 1] : NULL;

        if (last != NULL && last->adapter == adapter && last->row1 == piece->local_row)
            last->row1 += piece->rows;
        else
            s->segments[half][n++] = (kern_lora_segment_t){.row0 = piece->local_row,
                                                           .row1 = piece->local_row + piece->rows,
                                                           .adapter = adapter};
    }
    s->num_segments[half] = n;
    return BASE_OK;
}

/* ==== columns ==== */

static void add_block(lora_route_t *r, int32_t adapter, int64_t module,
                      const kern_lora_adapter_t *now, lora_route_linear_t *l)
{
    const lora_adapter_set_t *set = r->set;
    const lora_adapter_t *a = &set->adapters[adapter];
    const lora_module_t *m = &a->layout->modules[module];
    kern_lora_block_t *b = &l->blocks[l->num_blocks++];

    *b = (kern_lora_block_t){.adapter = adapter,
                             .module = m->target,
                             .column = lora_placed_column(set, adapter, module),
                             .rank = a->layout->rank,
                             .out_column = lora_target_out_column(set->spec, m->target),
                             .a = lora_placed_a(set, adapter, module),
                             .b = lora_placed_b(set, adapter, module)};
    if (set->optimizer) {
        b->da = lora_module_a(set, adapter, module, a->gradient);
        b->db = lora_module_b(set, adapter, module, a->gradient);
    }
    l->columns = b->column + b->rank;
    if (now[adapter].dropout > 0.0) return;
    l->num_plain = l->num_blocks;
    l->plain_columns = l->columns;
}

static int later_column(const void *a, const void *b, const void *arg)
{
    const lora_adapter_set_t *set = arg;

    return base_compare_i64(set->adapters[*(const int32_t *)a].column,
                            set->adapters[*(const int32_t *)b].column);
}

/* Blocks of one linear layer are contiguous and ascend by column: adapters in the order of their
 * places, modules of an adapter by target. */
static void list_blocks(lora_route_t *r, int32_t num_used, lora_route_stage_t *s)
{
    const lora_adapter_set_t *set = r->set;
    kern_lora_block_t *next = s->blocks;

    for (int32_t i = 0; i < set->spec->num_layers * LORA_NUM_LINEARS; i++) {
        lora_route_linear_t *l = &s->linears[i];

        *l = (lora_route_linear_t){.blocks = next};
        for (int32_t u = 0; u < num_used; u++) {
            const lora_layout_t *layout = set->adapters[r->by_column[u]].layout;
            const int64_t per_layer = layout->num_modules / set->spec->num_layers;
            const int64_t first = i / LORA_NUM_LINEARS * per_layer;

            for (int64_t m = first; m < first + per_layer; m++) {
                if ((int32_t)lora_target_linear(layout->modules[m].target) == i % LORA_NUM_LINEARS)
                    add_block(r, r->by_column[u], m, s->adapters, l);
            }
        }
        next += l->num_blocks;
    }
}

base_status_t lora_route_install(lora_route_t *route, const data_batch_t *batch, int32_t trainer,
                                 const int32_t *used, int32_t num_used,
                                 const lora_route_rows_t *rows, int evaluate)
{
    const lora_adapter_set_t *set = route->set;
    lora_route_stage_t *s = &route->stage[route->installs % LORA_ROUTE_STAGES];

    for (int h = 0; h < DATA_NUM_HALVES; h++)
        BASE_TRY(list_segments(route, batch, trainer, (data_half_t)h, s));
    for (int32_t a = 0; a < set->num_adapters; a++) {
        const lora_adapter_t *adapter = &set->adapters[a];

        s->adapters[a] = (kern_lora_adapter_t){.scale = adapter->options.scale,
                                               .dropout = evaluate ? 0.0 : adapter->options.dropout,
                                               .seed = adapter->options.seed,
                                               .step = adapter->step};
    }
    for (int32_t i = 0; i < num_used; i++)
        route->by_column[i] = used[i];
    base_sort(route->by_column, num_used, sizeof *route->by_column, later_column, set);
    list_blocks(route, num_used, s);
    route->rows = *rows;
    route->now = s;
    route->installs++;
    return BASE_OK;
}

const lora_route_linear_t *lora_route_of(const lora_route_t *route, int32_t layer,
                                         lora_linear_t linear)
{
    return &route->now->linears[(int64_t)layer * LORA_NUM_LINEARS + linear];
}

kern_lora_route_t lora_route_args(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                                  data_half_t half, int64_t first, int64_t count)
{
    const lora_route_stage_t *s = route->now;

    return (kern_lora_route_t){.num_segments = s->num_segments[half],
                               .num_adapters = route->set->num_adapters,
                               .num_blocks = count,
                               .segments = s->segments[half],
                               .adapters = s->adapters,
                               .blocks = lora_route_of(route, layer, linear)->blocks + first,
                               .documents = route->rows.documents[half],
                               .positions = route->rows.positions[half],
                               .layer = layer};
}
