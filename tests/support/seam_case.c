#include "tests/support/seam_case.h"

#include "tests/support/mpi_world.h"
#include "tests/support/transport_env.h"

#include "base/clock.h"
#include "base/memory.h"
#include "lora/pack.h"
#include "tests/support/random_plan.h"
#include "tests/support/seam_values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define O_PAD 24 /* pitch of o beyond Q D, as the LoRA columns make it */

enum { T_Q, T_K, T_V, T_O, T_LSE, T_D_O, T_DQ, T_DK, T_DV, NUM_TENSORS };

typedef struct run {
    const seam_case_t *c;
    seam_result_t *result;
} run_t;

/* One rank's state. */
typedef struct rank {
    const run_t *run;
    const seam_case_t *c;
    base_ctx_t *ctx;
    base_device_t *dev;
    base_stream_t *compute;
    base_arena_t *arena;
    as_topology_t *topology;
    as_attention_t *attention;
    data_batch_t *batch[2];
    as_plan_t *plans[2][AS_MAX_KINDS];
    int64_t max_rows, o_pitch;
    int32_t trainer;
    base_region_t *regions; /* [layer][half][tensor] */
    char *host;             /* one tensor */
} rank_t;

static int num_kinds(const seam_case_t *c)
{
    return c->window > 0 ? 2 : 1;
}

static int64_t element_bytes(const seam_case_t *c)
{
    return kern_dtype_bytes(c->dtype);
}

/* lse is a statistic. */
static int64_t tensor_bytes(const seam_case_t *c, int tensor)
{
    return kern_dtype_bytes(tensor == T_LSE ? kern_dtype_acc(c->dtype) : c->dtype);
}

/* Elements of a tensor on a rank. */
static int64_t tensor_elements(const rank_t *r, int tensor)
{
    const seam_case_t *c = r->c;
    switch (tensor) {
    case T_O:
    case T_D_O:
        return r->max_rows * r->o_pitch;
    case T_LSE:
        return r->max_rows * c->num_q_heads;
    case T_Q:
    case T_DQ:
        return r->max_rows * c->num_q_heads * c->head_dim;
    default:
        return r->max_rows * c->num_kv_heads * c->head_dim;
    }
}

static base_mem_t tensor_mem(const rank_t *r, int layer, int half, int tensor)
{
    return base_arena_mem(r->arena,
                          r->regions[(layer * DATA_NUM_HALVES + half) * NUM_TENSORS + tensor]);
}

/* Index within a tensor of (local row, head group, column within the group's lane), and the lane's
 * width. */
static int64_t lane_of(const rank_t *r, int tensor)
{
    const seam_case_t *c = r->c;
    const int64_t group = c->num_q_heads / c->num_kv_heads;
    if (tensor == T_LSE) return group;
    return tensor == T_K || tensor == T_V || tensor == T_DK || tensor == T_DV ? c->head_dim
                                                                              : group * c->head_dim;
}

static int64_t index_of(const rank_t *r, int tensor, int64_t local, int64_t h, int64_t column)
{
    const int64_t lane = lane_of(r, tensor);
    if (tensor == T_O || tensor == T_D_O) return local * r->o_pitch + h * lane + column;
    return (h * r->max_rows + local) * lane + column;
}

/* Uploads one tensor: inputs by value, outputs and pad rows as NaN. */
static base_status_t fill_tensor(rank_t *r, int layer, int half, int tensor)
{
    const int64_t bytes = tensor_bytes(r->c, tensor), elements = tensor_elements(r, tensor);
    const data_batch_t *batch = r->batch[0];
    memset(r->host, 0xFF, (size_t)(elements * bytes));
    for (int32_t p = 0; p < batch->num_pieces &&
                        (tensor == T_Q || tensor == T_K || tensor == T_V || tensor == T_D_O);
         p++) {
        const data_piece_t *piece = &batch->pieces[p];
        if (piece->trainer != r->trainer || piece->half != half) continue;
        for (int64_t row = 0; row < piece->rows; row++)
            for (int64_t h = 0; h < r->c->num_kv_heads; h++)
                for (int64_t i = 0, lane = lane_of(r, tensor); i < lane; i++)
                    seam_put(r->c, r->host, index_of(r, tensor, piece->local_row + row, h, i),
                             seam_value(tensor, layer, batch->documents[piece->document].index,
                                        piece->doc_row + row, h * lane + i));
    }
    BASE_TRY(
        base_upload(r->compute, tensor_mem(r, layer, half, tensor), r->host, elements * bytes));
    return base_stream_sync(r->compute);
}

static base_status_t gather_tensor(rank_t *r, int layer, int half, int tensor, char *out)
{
    const int64_t bytes = tensor_bytes(r->c, tensor), lane = lane_of(r, tensor),
                  width = lane * r->c->num_kv_heads;
    const data_batch_t *batch = r->batch[0];
    BASE_TRY(base_download(r->compute, r->host, tensor_mem(r, layer, half, tensor),
                           tensor_elements(r, tensor) * bytes));
    BASE_TRY(base_stream_sync(r->compute));
    int64_t base_row[SEAM_MAX_DOCUMENTS + 1] = {0};
    for (int32_t d = 0; d < r->c->num_documents; d++)
        base_row[d + 1] = base_row[d] + r->c->rows[d];
    for (int32_t p = 0; p < batch->num_pieces; p++) {
        const data_piece_t *piece = &batch->pieces[p];
        if (piece->trainer != r->trainer || piece->half != half) continue;
        const int64_t document = batch->documents[piece->document].index;
        for (int64_t row = 0; row < piece->rows; row++)
            for (int64_t h = 0; h < r->c->num_kv_heads; h++)
                memcpy(out + ((layer * base_row[r->c->num_documents] + base_row[document] +
                               piece->doc_row + row) *
                                  width +
                              h * lane) *
                                 bytes,
                       r->host + index_of(r, tensor, piece->local_row + row, h, 0) * bytes,
                       (size_t)(lane * bytes));
    }
    return BASE_OK;
}

/* o, dq, dk, dv of pad rows are zero. Looks at the tensor that gather_tensor left in r->host. */
static base_status_t check_pads(rank_t *r, int half, int tensor)
{
    const int64_t lane = lane_of(r, tensor), bytes = tensor_bytes(r->c, tensor),
                  rows = r->batch[0]->trainer_rows[r->trainer];
    for (int64_t row = 0; row < rows; row++) {
        int covered = 0;
        for (int32_t p = 0; p < r->batch[0]->num_pieces; p++) {
            const data_piece_t *piece = &r->batch[0]->pieces[p];
            covered |= piece->trainer == r->trainer && piece->half == half &&
                       row >= piece->local_row && row < piece->local_row + piece->rows;
        }
        for (int64_t i = 0; !covered && i < lane * r->c->num_kv_heads * bytes; i++) {
            const int64_t h = i / (lane * bytes);
            if (r->host[index_of(r, tensor, row, h, 0) * bytes + i % (lane * bytes)] != 0)
                return BASE_FAIL(r->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                                 "tensor %d: pad row %lld is not zero", tensor, (long long)row);
        }
    }
    return BASE_OK;
}

static as_tensors_t tensors_of(const rank_t *r, int layer, int half)
{
    return (as_tensors_t){.q = tensor_mem(r, layer, half, T_Q),
                          .k = tensor_mem(r, layer, half, T_K),
                          .v = tensor_mem(r, layer, half, T_V),
                          .o = tensor_mem(r, layer, half, T_O),
                          .lse = tensor_mem(r, layer, half, T_LSE),
                          .d_o = tensor_mem(r, layer, half, T_D_O),
                          .dq = tensor_mem(r, layer, half, T_DQ),
                          .dk = tensor_mem(r, layer, half, T_DK),
                          .dv = tensor_mem(r, layer, half, T_DV)};
}

static base_status_t begin(rank_t *r, data_half_t half, int32_t layer, as_direction_t direction)
{
    const as_tensors_t tensors =
        r->trainer >= 0 ? tensors_of(r, layer, (int)half) : (as_tensors_t){0};
    return as_attention_begin(r->attention, half, layer, direction,
                              r->trainer >= 0 ? &tensors : NULL);
}

/* A rank that lags behind: what the others send it must stay until it has fetched it. And now and then
 * one that waits for all that is under way, before its part and behind it, while others go on. */
static base_status_t serve(rank_t *r, data_half_t half, int32_t layer, as_direction_t direction)
{
    const int rank = base_ctx_rank(r->ctx), settles = (layer + (int)half + rank) % 4;

    if (rank == r->c->slow_rank) base_clock_sleep_ns(r->c->slow_ns);
    if (settles == 1) BASE_TRY(base_stream_settle(r->compute));
    BASE_TRY(as_attention_serve(r->attention, half, layer, direction));
    return settles == 2 ? base_stream_settle(r->compute) : BASE_OK;
}

static base_status_t run_program(rank_t *r)
{
    as_attention_t *at = r->attention;
    for (int32_t l = 0; l < r->c->num_layers; l++) {
        for (int half = 0; half < DATA_NUM_HALVES; half++) {
            if (l > 0) BASE_TRY(as_attention_finish(at, (data_half_t)half));
            BASE_TRY(begin(r, (data_half_t)half, l, AS_FORWARD));
        }
        BASE_TRY(serve(r, DATA_PING, l, AS_FORWARD));
        BASE_TRY(serve(r, DATA_PONG, l, AS_FORWARD));
    }
    BASE_TRY(as_attention_finish(at, DATA_PING));
    BASE_TRY(as_attention_finish(at, DATA_PONG));
    for (int32_t l = r->c->num_layers - 1; l >= 0; l--) {
        for (int half = DATA_PONG; half >= DATA_PING; half--) {
            if (l < r->c->num_layers - 1) BASE_TRY(as_attention_finish(at, (data_half_t)half));
            BASE_TRY(begin(r, (data_half_t)half, l, AS_BACKWARD));
        }
        BASE_TRY(serve(r, DATA_PONG, l, AS_BACKWARD));
        BASE_TRY(serve(r, DATA_PING, l, AS_BACKWARD));
    }
    BASE_TRY(as_attention_finish(at, DATA_PONG));
    return as_attention_finish(at, DATA_PING);
}

static base_status_t make_batch(rank_t *r, data_batch_t *batch, int64_t microbatch)
{
    data_document_t documents[SEAM_MAX_DOCUMENTS];
    int64_t total = 0;
    for (int32_t d = 0; d < r->c->num_documents; d++) {
        documents[d] =
            (data_document_t){.rows = r->c->rows[d], .adapter = r->c->adapter[d], .index = d};
        total += r->c->rows[d];
    }
    const lora_pack_t pack = {
        .microbatch = microbatch,
        .num_trainers = r->topology->num_trainers,
        .tokens_per_trainer = 2 * ((total + DATA_ROW_ALIGN) / DATA_ROW_ALIGN + 1) * DATA_ROW_ALIGN,
        .whole_documents = r->c->placement == AS_LOCAL,
        .num_documents = r->c->num_documents,
        .documents = documents};
    return lora_pack_fast(r->ctx, &pack, batch);
}

static base_status_t make_plan(rank_t *r, const data_batch_t *batch, int64_t microbatch, int kind,
                               as_plan_t *plan)
{
    const int64_t window = kind == 0 ? 0 : r->c->window;
    if (r->c->plan == SEAM_PLAN_TOKEN) {
        const as_plan_options_t options = {.window = window,
                                           .num_kv_heads = r->c->num_kv_heads,
                                           .retain = (int32_t)(r->c->assign_seed & 1)};
        return as_plan_token(r->ctx, &options, batch, r->topology, plan);
    }
    /* The last three microbatches share a plan: both slots of the seam have seen it before the
     * last, which must not allocate. */
    const int64_t last = r->c->num_microbatches - 3,
                  variant = last > 0 && microbatch > last ? last : microbatch;
    const random_plan_t options = {
        .cut_seed = r->c->cut_seed + (uint64_t)kind * 977,
        .assign_seed = r->c->assign_seed + (uint64_t)kind * 31 + (uint64_t)variant * 1009,
        .uncut = r->c->plan == SEAM_PLAN_UNCUT || r->c->plan == SEAM_PLAN_OWN_SERVER,
        .own_server = r->c->plan == SEAM_PLAN_OWN_SERVER,
        .window = window,
        .num_kv_heads = r->c->num_kv_heads};
    return random_plan_fill(&options, batch, r->topology, plan);
}

static base_status_t create_rank(rank_t *r, comm_group_t *group)
{
    const seam_case_t *c = r->c;
    int64_t total = 0;
    for (int32_t d = 0; d < c->num_documents; d++)
        total += c->rows[d];
    BASE_TRY(as_topology_create(r->ctx, c->placement, c->num_ranks, c->rank_host,
                                c->servers_per_host, &r->topology));
    r->trainer = r->topology->rank_trainer[base_ctx_rank(r->ctx)];
    r->o_pitch = c->num_q_heads * c->head_dim + O_PAD;
    for (int i = 0; i < 2; i++) {
        BASE_TRY(data_batch_create(r->ctx, SEAM_MAX_DOCUMENTS, 256, 8, &r->batch[i]));
        BASE_TRY(make_batch(r, r->batch[i], i));
        for (int kind = 0; kind < num_kinds(c); kind++)
            BASE_TRY(as_plan_create(r->ctx, 4096, &r->plans[i][kind]));
    }
    for (int32_t t = 0; t < r->topology->num_trainers; t++)
        r->max_rows =
            r->max_rows > r->batch[0]->trainer_rows[t] ? r->max_rows : r->batch[0]->trainer_rows[t];
    BASE_TRY(base_stream_create(r->dev, BASE_STREAM_COMPUTE, "compute", &r->compute));
    BASE_TRY(base_arena_create(r->dev, BASE_MEMORY_DEVICE, "seam test", &r->arena));
    r->regions = base_calloc(r->ctx, (int64_t)c->num_layers * DATA_NUM_HALVES * NUM_TENSORS,
                             sizeof *r->regions, "regions");
    r->host = base_calloc(r->ctx, r->max_rows * r->o_pitch + total, sizeof(double), "host tensor");
    if (r->regions == NULL || r->host == NULL) return BASE_ERR_NOMEM;
    for (int i = 0; r->trainer >= 0 && i < c->num_layers * DATA_NUM_HALVES * NUM_TENSORS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "tensor %d", i);
        BASE_TRY(base_arena_declare(r->arena, "test", name,
                                    tensor_elements(r, i % NUM_TENSORS) *
                                        tensor_bytes(c, i % NUM_TENSORS),
                                    BASE_LIFETIME_RUN, &r->regions[i]));
    }
    int32_t kinds[64] = {0};
    for (int32_t l = 0; l < c->num_layers; l++)
        kinds[l] = c->window > 0 ? l % 2 : 0;
    const int64_t row_bytes = (int64_t)c->num_q_heads * c->head_dim * element_bytes(c);
    const as_attention_config_t config = {.dtype = c->dtype,
                                          .num_q_heads = c->num_q_heads,
                                          .num_kv_heads = c->num_kv_heads,
                                          .head_dim = c->head_dim,
                                          .scale = 1.0 / sqrt((double)c->head_dim),
                                          .num_layers = c->num_layers,
                                          .num_kinds = num_kinds(c),
                                          .window = {0, c->window},
                                          .layer_kind = kinds,
                                          .max_rows = r->max_rows,
                                          .head_rows = r->max_rows,
                                          .o_pitch = r->o_pitch,
                                          .d_o_pitch = r->o_pitch,
                                          .sums_per_server = c->sums_per_server,
                                          .scratch_bytes = (total + 4096) * row_bytes * 24,
                                          .retain_bytes =
                                              (total + 4096) * row_bytes * 4 * c->num_layers,
                                          .max_tasks = 256};
    BASE_TRY(as_attention_create(r->ctx, &config, r->topology, group, r->arena, r->compute,
                                 &r->attention));
    return base_arena_commit(r->arena);
}

static void destroy_rank(rank_t *r)
{
    as_attention_destroy(r->attention);
    base_arena_destroy(r->arena);
    base_stream_destroy(r->compute);
    for (int i = 0; i < 2; i++) {
        data_batch_destroy(r->batch[i]);
        for (int kind = 0; kind < AS_MAX_KINDS; kind++)
            as_plan_destroy(r->plans[i][kind]);
    }
    as_topology_destroy(r->topology);
    base_free(r->ctx, r->regions);
    base_free(r->ctx, r->host);
}

static base_status_t fill_all(rank_t *r)
{
    for (int l = 0; r->trainer >= 0 && l < r->c->num_layers; l++)
        for (int half = 0; half < DATA_NUM_HALVES; half++)
            for (int tensor = 0; tensor < NUM_TENSORS; tensor++)
                BASE_TRY(fill_tensor(r, l, half, tensor));
    return BASE_OK;
}

static base_status_t gather_all(rank_t *r)
{
    static const int outputs[] = {T_O, T_LSE, T_DQ, T_DK, T_DV};
    seam_result_t *result = r->run->result;
    void *const arrays[] = {result->o, result->lse, result->dq, result->dk, result->dv};
    for (int l = 0; r->trainer >= 0 && l < r->c->num_layers; l++)
        for (int half = 0; half < DATA_NUM_HALVES; half++)
            for (int i = 0; i < 5; i++) {
                BASE_TRY(gather_tensor(r, l, half, outputs[i], arrays[i]));
                if (outputs[i] != T_LSE) BASE_TRY(check_pads(r, half, outputs[i]));
            }
    return BASE_OK;
}

static void count_layout(const data_batch_t *batch, seam_facts_t *f)
{
    f->pad_rows += data_batch_trainer_rows(batch) - data_batch_document_rows(batch);
    for (int32_t t = 0; t < batch->num_trainers; t++) {
        int used = 0;
        for (int32_t p = 0; p < batch->num_pieces; p++)
            used |= batch->pieces[p].trainer == t;
        f->idle_trainers += !used;
    }
    for (int32_t d = 0; d < batch->num_documents; d++) {
        const int32_t p0 = batch->document_piece[d], p1 = batch->document_piece[d + 1];
        uint64_t trainers = 0;
        for (int32_t p = p0; p < p1; p++)
            trainers |= (uint64_t)1 << batch->pieces[p].trainer;
        f->spanning += batch->pieces[p0].half != batch->pieces[p1 - 1].half;
        f->on_all_trainers +=
            batch->num_trainers > 1 && trainers == ((uint64_t)1 << batch->num_trainers) - 1;
    }
}

static void count_plan(const rank_t *r, const data_batch_t *batch, const as_plan_t *plan,
                       seam_facts_t *f)
{
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        const as_task_t *task = &plan->tasks[i];
        const int32_t owner = r->topology->trainer_rank[batch->pieces[task->piece].trainer];
        const int remote = owner != r->topology->server_rank[task->server];
        f->tasks++;
        f->remote += remote;
        f->head_cut += task->h1 - task->h0 < plan->num_kv_heads;
        f->off_grid += task->q0 % DATA_ROW_ALIGN != 0;
        f->retained += remote && task->retained;
        f->resent += remote && !task->retained;
        f->windowed += task->k0 > 0;
    }
}

static void count_served(const rank_t *r, const data_batch_t *batch, as_plan_t **plans)
{
    seam_result_t *result = r->run->result;
    as_attention_stats_t stats;
    as_attention_stats(r->attention, &stats);
    __atomic_fetch_add(&result->served, stats.tasks, __ATOMIC_RELAXED);
    __atomic_fetch_add(&result->served_local, stats.local_tasks, __ATOMIC_RELAXED);
    __atomic_fetch_add(&result->sent_bytes,
                       stats.sent_bytes[AS_FORWARD] + stats.sent_bytes[AS_BACKWARD],
                       __ATOMIC_RELAXED);
    for (int kind = 0; base_ctx_rank(r->ctx) == 0 && kind < num_kinds(r->c); kind++) {
        seam_facts_t plan = {0};
        count_plan(r, batch, plans[kind], &plan);
        result->planned += plan.tasks;
        result->planned_local += plan.tasks - plan.remote;
    }
}

static base_status_t run_microbatches(rank_t *r)
{
    for (int64_t n = 0; n < r->c->num_microbatches; n++) {
        BASE_TRY(fill_all(r));
        const int64_t before = base_memory_calls(base_ctx_memory(r->ctx));
        data_batch_t *batch = r->batch[n & 1];
        as_plan_t **plans = r->plans[n & 1];
        BASE_TRY(make_batch(r, batch, n));
        for (int kind = 0; kind < num_kinds(r->c); kind++)
            BASE_TRY(make_plan(r, batch, n, kind, plans[kind]));
        if (base_ctx_rank(r->ctx) == 0) {
            count_layout(batch, &r->run->result->facts);
            for (int kind = 0; kind < num_kinds(r->c); kind++)
                count_plan(r, batch, plans[kind], &r->run->result->facts);
        }
        BASE_TRY(as_attention_microbatch(r->attention, batch, (const as_plan_t *const *)plans));
        BASE_TRY(run_program(r));
        BASE_TRY(as_attention_drain(r->attention));
        BASE_TRY(base_stream_sync(r->compute));
        if (n + 1 < r->c->num_microbatches) continue;
        count_served(r, batch, plans);
        __atomic_fetch_add(&r->run->result->steady_allocations,
                           base_memory_calls(base_ctx_memory(r->ctx)) - before, __ATOMIC_RELAXED);
    }
    return gather_all(r);
}

static base_status_t rank_main(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    rank_t r = {.run = user, .c = ((run_t *)user)->c, .ctx = ctx, .dev = dev};
    base_status_t st = create_rank(&r, group);
    if (st >= 0) st = run_microbatches(&r);
    if (st >= 0) st = comm_barrier(group); /* nobody frees what a peer may still read */
    if (st < 0) {
        base_error_t error;
        if (base_ctx_error(ctx, &error)) comm_group_stop(group, &error);
        if (r.compute != NULL) (void)(base_stream_sync(r.compute) < 0);
    }
    destroy_rank(&r);
    return st;
}

/* The same over MPI. Each element was written by the rank that owns it, and is zero on the others. */
static base_status_t run_processes(const seam_case_t *c, const comm_threads_options_t *o,
                                   run_t *run, seam_result_t *result)
{
    int32_t hosts[16];
    const comm_mpi_options_t options = {.num_ranks = o->num_ranks,
                                        .device = o->device,
                                        .transport = transport_env(),
                                        .hosts = transport_env_hosts(hosts, o->num_ranks),
                                        .seed = o->seed,
                                        .deadline_ms = o->deadline_ms,
                                        .delay_ns = o->delay_ns,
                                        .direct_bytes = c->cut_seed % 2 == 0 ? 0 : 2048};
    const int rank = comm_mpi_rank(mpi_world());
    struct {
        seam_facts_t facts;
        int64_t planned, planned_local;
        base_status_t status;
        base_error_t error;
    } first; /* rank 0's */
    int64_t sums[4][16];

    memset(&first, 0, sizeof first);
    memset(sums, 0, sizeof sums);
    const base_status_t st = comm_mpi_run(mpi_world(), &options, rank_main, run, &result->error);
    if (rank == 0) {
        first.facts = result->facts;
        first.planned = result->planned;
        first.planned_local = result->planned_local;
        first.status = st;
        first.error = result->error;
        first.error.file = NULL; /* an address of this process */
    }
    sums[0][rank] = result->served;
    sums[1][rank] = result->served_local;
    sums[2][rank] = result->sent_bytes;
    sums[3][rank] = result->steady_allocations;
    const int64_t q_bytes = result->o_elements * result->element_bytes;
    const int64_t kv_bytes = result->kv_elements * result->element_bytes;
    const mpi_piece_t pieces[] = {{&first, (int64_t)sizeof first},
                                  {sums, (int64_t)sizeof sums},
                                  {result->o, q_bytes},
                                  {result->lse, result->lse_elements * result->lse_bytes},
                                  {result->dq, q_bytes},
                                  {result->dk, kv_bytes},
                                  {result->dv, kv_bytes}};
    mpi_world_merge(pieces, (int)(sizeof pieces / sizeof pieces[0]));
    result->facts = first.facts;
    result->planned = first.planned;
    result->planned_local = first.planned_local;
    result->error = first.error;
    result->served = result->served_local = result->sent_bytes = result->steady_allocations = 0;
    for (int r = 0; r < 16; r++) {
        result->served += sums[0][r];
        result->served_local += sums[1][r];
        result->sent_bytes += sums[2][r];
        result->steady_allocations += sums[3][r];
    }
    return first.status;
}

base_status_t seam_case_run(const seam_case_t *c, seam_result_t *result)
{
    *result =
        (seam_result_t){.element_bytes = element_bytes(c), .lse_bytes = tensor_bytes(c, T_LSE)};
    for (int32_t d = 0; d < c->num_documents; d++)
        result->total_rows += c->rows[d];
    const int64_t rows = result->total_rows * c->num_layers;
    result->o_elements = rows * c->num_q_heads * c->head_dim;
    result->lse_elements = rows * c->num_q_heads;
    result->kv_elements = rows * c->num_kv_heads * c->head_dim;
    result->o = calloc((size_t)result->o_elements, (size_t)result->element_bytes);
    result->lse = calloc((size_t)result->lse_elements, (size_t)result->lse_bytes);
    result->dq = calloc((size_t)result->o_elements, (size_t)result->element_bytes);
    result->dk = calloc((size_t)result->kv_elements, (size_t)result->element_bytes);
    result->dv = calloc((size_t)result->kv_elements, (size_t)result->element_bytes);
    run_t run = {c, result};
    const comm_threads_options_t options = {.num_ranks = c->num_ranks,
                                            .device = c->device,
                                            .seed = c->device_seed,
                                            .deadline_ms = 60000,
                                            .delay_ns = c->delay_ns};
    if (mpi_world() != NULL) return run_processes(c, &options, &run, result);
    return comm_threads_run(&options, rank_main, &run, &result->error);
}

void seam_result_free(seam_result_t *result)
{
    free(result->o);
    free(result->lse);
    free(result->dq);
    free(result->dk);
    free(result->dv);
}
