#include "tests/support/random_plan.h"

uint32_t random_below(uint64_t *state, uint32_t below)
{
    /* splitmix64 (Steele, Lea, Flood 2014) */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ (z >> 31)) >> 32) % below;
}

typedef struct filler {
    const random_plan_t *options;
    const data_batch_t *batch;
    const as_topology_t *topology;
    as_plan_t *plan;
    uint64_t cut, assign;
} filler_t;

static base_status_t add_heads(filler_t *f, int32_t p, int64_t q0, int64_t q1)
{
    const data_piece_t *piece = &f->batch->pieces[p];
    const int32_t heads = f->options->num_kv_heads;
    const uint32_t coin = f->options->uncut ? 0 : random_below(&f->cut, 3);
    for (int32_t h0 = 0; h0 < heads;) {
        const int32_t h1 =
            coin == 0 ? heads : h0 + 1 + (int32_t)random_below(&f->cut, (uint32_t)(heads - h0));
        as_task_t task = {
            .document = piece->document, .piece = p, .h0 = h0, .h1 = h1, .q0 = q0, .q1 = q1};
        task.k0 = as_task_first_key(q0, f->options->window);
        task.server = f->topology->placement == AS_LOCAL
                          ? f->topology->rank_server[f->topology->trainer_rank[piece->trainer]]
                          : (int32_t)random_below(&f->assign, (uint32_t)f->topology->num_servers);
        task.retained = (int32_t)random_below(&f->assign, 2);
        if (f->options->own_server) {
            task.server = piece->trainer % f->topology->num_servers;
            task.retained = 1;
        }
        BASE_TRY(as_plan_add(f->plan, &task));
        h0 = h1;
    }
    return BASE_OK;
}

static base_status_t add_piece(filler_t *f, int32_t p)
{
    const data_piece_t *piece = &f->batch->pieces[p];
    const int64_t end = piece->doc_row + piece->rows;
    /* From no cut to a cut at every tile. */
    const uint32_t one_in = f->options->uncut ? 0 : 1 + random_below(&f->cut, 6);
    int64_t q0 = piece->doc_row;
    for (int64_t row = (q0 / DATA_ROW_ALIGN + 1) * DATA_ROW_ALIGN; row < end; row += DATA_ROW_ALIGN)
        if (one_in > 0 && random_below(&f->cut, one_in) == 0) {
            BASE_TRY(add_heads(f, p, q0, row));
            q0 = row;
        }
    return add_heads(f, p, q0, end);
}

base_status_t random_plan_fill(const random_plan_t *options, const data_batch_t *batch,
                               const as_topology_t *topology, as_plan_t *plan)
{
    filler_t f = {options, batch, topology, plan, options->cut_seed, options->assign_seed};
    BASE_TRY(as_plan_begin(plan, batch->microbatch, options->window, options->num_kv_heads));
    for (int32_t p = 0; p < batch->num_pieces; p++)
        BASE_TRY(add_piece(&f, p));
    return as_plan_finish(plan, batch, topology);
}
