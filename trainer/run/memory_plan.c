#include "trainer/run/memory_plan.h"

#include "base/memory.h"
#include "trainer/loop/train.h"
#include "trainer/model/hf_load.h"
#include "trainer/run/driver_memory.h"
#include "trainer/run/inputs.h"
#include "trainer/run/memory_report.h"
#include "trainer/run/run_setup.h"

#include <string.h>

/* What a rank makes, as trainer/run/train_run.c does. */
typedef struct planned {
    tr_memory_plan_t *args;
    base_ctx_t *ctx;
    comm_group_t *group;
    int full;
    tr_inputs_t *inputs;
    as_topology_t *topology;
    lora_adapter_options_t *adapters;
    tr_trainer_t *trainer;
    tr_lot_options_t lots;
    tr_train_t *train;
    int64_t before_loop;  /* bytes on the host when weights are loaded and adapters begin */
    int64_t host;         /* bytes there of trainer and loop */
    int64_t stream_bytes; /* bytes there of a stream */
} planned_t;

int64_t tr_memory_rank_total(const tr_memory_rank_t *rank)
{
    return rank->device + rank->driver + rank->host + rank->transient;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ==== what comes and goes ==== */

static int64_t host_bytes(const planned_t *p)
{
    return base_memory_bytes(base_ctx_memory(p->ctx), BASE_RESOURCE_HOST);
}

/* The pieces in which weights are written (data/hf_write.c). */
#define WRITE_ELEMENTS (INT64_C(1) << 20)
/* Of an exported adapter: two chunks of 65536 numbers, and lists with an entry a tensor. */
#define CHUNK_BYTES  (INT64_C(2) * 65536 * 4)
#define TENSOR_BYTES INT64_C(600)
/* Folder, manifest, metrics, status and progress of the run's leader. */
#define LEADER_BYTES INT64_C(8192)

typedef struct pieces {
    int64_t room;     /* elements of the buffers, whatever the tensors */
    int64_t elements; /* of the largest piece of a tensor */
    int64_t pitched;  /* the same by the pitch of its weight */
} pieces_t;

static pieces_t largest_pieces(const planned_t *p, int64_t most)
{
    const tr_model_t *model = p->trainer->model;
    pieces_t found = {.room = most};

    for (int32_t i = 0; i < model->num_weights; i++) {
        const tr_weight_spec_t *w = &model->weights[i];
        const int64_t rows =
            larger(1, most / w->cols) < w->rows ? larger(1, most / w->cols) : w->rows;

        found.room = larger(found.room, w->cols);
        found.elements = larger(found.elements, rows * w->cols);
        found.pitched = larger(found.pitched, rows * w->pitch);
    }
    return found;
}

/* While weights are loaded; slots are counted as host memory, pinned or not. */
static tr_hf_load_bytes_t loading(const planned_t *p)
{
    if (p->trainer->index < 0) return (tr_hf_load_bytes_t){0};
    const tr_hf_load_way_t way = tr_hf_load_way(p->trainer->model);

    return tr_hf_load_bytes(p->trainer->model, p->inputs->folder, &way);
}

/* What a stream of this device has in host memory. */
static base_status_t measure_stream(planned_t *p, base_device_t *dev)
{
    const int64_t before = host_bytes(p);
    base_stream_t *stream;

    BASE_TRY(base_stream_create(dev, BASE_STREAM_ASYNC, "plan", &stream));
    p->stream_bytes = host_bytes(p) - before;
    base_stream_destroy(stream);
    return BASE_OK;
}

static int64_t largest_adapter(const planned_t *p)
{
    int64_t most = 0;

    for (int32_t a = 0; !p->full && a < p->trainer->num_adapters; a++)
        most = larger(most, p->trainer->adapter_count[a]);
    return most;
}

/* Doubles, and floats on their way to the device. */
static int64_t beginning(const planned_t *p)
{
    if (p->trainer->index < 0) return 0;
    return largest_adapter(p) * (int64_t)(sizeof(double) + sizeof(float));
}

/* Rank 0 exports. */
static int64_t exporting(const planned_t *p)
{
    if (base_ctx_rank(p->ctx) != 0 || p->trainer->index < 0) return 0;
    if (p->full) {
        const pieces_t pieces = largest_pieces(p, WRITE_ELEMENTS);

        return LEADER_BYTES + 2 * pieces.room * (int64_t)sizeof(float) +
               pieces.elements * (int64_t)sizeof(double) + pieces.pitched * (int64_t)sizeof(float) +
               data_model_spec_num_tensors(p->inputs->spec) * TENSOR_BYTES;
    }
    const int64_t tensors = 2 * LORA_NUM_TARGETS * (int64_t)p->inputs->spec->num_layers;
    return LEADER_BYTES + largest_adapter(p) * (int64_t)sizeof(double) + CHUNK_BYTES +
           tensors * TENSOR_BYTES;
}

/* Every trainer writes checkpoints: a whole vector at a time, of a model that of its largest weight;
 * rank 0 also all values of the best evaluation in one piece. */
static int64_t saving(const planned_t *p)
{
    const int leads = base_ctx_rank(p->ctx) == 0;
    int64_t most = p->full ? tr_model_largest_weight(p->trainer->model) : largest_adapter(p);

    if (p->trainer->index < 0) return 0;
    if (leads && p->full && p->inputs->jobs[0]->eval_documents > 0)
        most = tr_model_parameters(p->trainer->model);
    return (leads ? LEADER_BYTES : 0) + most * kern_dtype_bytes(p->trainer->model->acc);
}

/* ==== what stays ==== */

static base_status_t open_inputs(planned_t *p)
{
    tr_memory_plan_t *args = p->args;
    base_error_list_t errors;

    base_error_list_init(&errors, p->ctx);
    const base_status_t st =
        tr_inputs_open(p->ctx, args->config, args->config->words, &errors, &p->inputs);
    if (st < 0 && base_ctx_rank(p->ctx) == 0 && errors.count > 1) {
        base_error_list_print(&errors, args->err);
        args->reported = true;
    }
    base_error_list_deinit(&errors);
    return st;
}

/* The ranks are taken to be those of one host, where `auto` takes copy engines. */
static tr_driver_case_t driver_case(const planned_t *p)
{
    return (tr_driver_case_t){.device = tr_setup_device(p->args->config),
                              .num_ranks = comm_group_size(p->group),
                              .is_trainer = p->trainer != NULL && p->trainer->index >= 0,
                              .uses_nccl =
                                  p->args->config->train.transport == BASE_CONFIG_TRANSPORT_NCCL};
}

/* Of the device that the run is for, which need not be here: --memory is then that of a GPU for each
 * rank, of which the run finds free what CUDA has left. */
static int64_t free_bytes(const planned_t *p, base_device_t *dev)
{
    const tr_memory_limit_t *limit = p->args->limit;

    if (tr_setup_device(p->args->config) != BASE_DEVICE_CUDA) return 0;
    if (limit == NULL) return base_device_free_bytes(dev);
    const tr_driver_case_t of = driver_case(p);
    return larger(1, limit->bytes / comm_group_size(p->group) - tr_driver_memory_before(&of));
}

static base_status_t build(planned_t *p, base_device_t *dev, int64_t tokens_per_trainer,
                           tr_lot_options_t *lots, tr_trainer_t **trainer)
{
    tr_build_t args = tr_setup_build(p->inputs, p->topology, p->adapters, free_bytes(p, dev));

    args.tokens_per_trainer = tokens_per_trainer;
    args.layout_only = 1;
    return tr_build_trainer(p->ctx, dev, p->group, &args, lots, trainer);
}

static base_status_t make_loop(planned_t *p, tr_trainer_t *trainer, const tr_lot_options_t *lots,
                               tr_train_t **train)
{
    const tr_train_options_t options = {
        .full = p->full, .rank_columns = p->full ? 0 : p->args->config->batch.max_rank_columns};
    const tr_train_events_t events = {0};

    return tr_train_create(p->ctx, trainer, p->inputs->jobs, p->inputs->num_jobs, lots, &options,
                           &events, train);
}

static base_status_t make_all(planned_t *p, base_device_t *dev)
{
    BASE_TRY(open_inputs(p));
    BASE_TRY(tr_setup_topology(p->ctx, p->args->config, p->group, &p->topology));
    BASE_TRY(tr_setup_adapters(p->inputs, &p->adapters));
    const int64_t before = host_bytes(p);
    BASE_TRY(build(p, dev, p->args->config->batch.tokens_per_trainer, &p->lots, &p->trainer));
    BASE_TRY(measure_stream(p, dev));
    p->before_loop = host_bytes(p);
    BASE_TRY(make_loop(p, p->trainer, &p->lots, &p->train));
    p->host = host_bytes(p) - before;
    return BASE_OK;
}

static tr_memory_rank_t count(const planned_t *p)
{
    const base_memory_t *memory = base_ctx_memory(p->ctx);
    const tr_hf_load_bytes_t load = loading(p);
    const int64_t host = base_memory_bytes(memory, BASE_RESOURCE_HOST);
    const int64_t peak = base_memory_peak(memory, BASE_RESOURCE_HOST);
    const int64_t loads = load.slots + load.convert + load.num_streams * p->stream_bytes;
    const int64_t before = p->before_loop + larger(loads, beginning(p));
    const int64_t after = host + larger(exporting(p), saving(p));
    const tr_driver_case_t of = driver_case(p);
    const tr_driver_memory_t driver = tr_driver_memory(&of);

    return (tr_memory_rank_t){.device = base_arena_bytes(p->trainer->arena) + load.device +
                                        base_memory_bytes(memory, BASE_RESOURCE_DEVICE) +
                                        base_memory_bytes(memory, BASE_RESOURCE_PINNED),
                              .driver = tr_driver_memory_total(&driver),
                              .host = host,
                              .transient = larger(peak, larger(before, after)) - host};
}

/* How many rows would fit: what a trainer takes grows with its rows along a line, of which half the
 * rows are another point; the loop's own lists are nearly in proportion to them. 0: not even the
 * longest document. */
static base_status_t suggest(planned_t *p, base_device_t *dev, const tr_memory_report_t *report,
                             int64_t *rows)
{
    const int64_t step = 2 * DATA_ROW_ALIGN, now = p->lots.plans.tokens_per_trainer;
    const int64_t trainers = p->topology->num_trainers;
    const int64_t apart = p->topology->placement == AS_LOCAL ? 1 : trainers;
    const int64_t least = ((p->inputs->longest + apart - 1) / apart + step - 1) / step * step;
    tr_lot_options_t lots;
    tr_trainer_t *trainer;
    tr_train_t *train;

    *rows = 0;
    if (now <= least) return BASE_OK;
    const int64_t other = larger(least, now / 2 / step * step);
    int64_t fewer = host_bytes(p) + p->host;
    BASE_TRY(build(p, dev, other, &lots, &trainer));
    const base_status_t st = make_loop(p, trainer, &lots, &train);
    fewer += base_arena_bytes(p->trainer->arena) - base_arena_bytes(trainer->arena) - host_bytes(p);
    if (st >= 0) tr_train_destroy(train);
    tr_trainer_destroy(trainer);
    BASE_TRY(st);
    const double each = (double)fewer / (double)(now - other);
    const double over = (double)(report->total - report->limit.bytes);
    const double fit = (double)now - over / (each * (double)trainers);
    if (fit >= (double)least) *rows = (int64_t)fit / step * step;
    return BASE_OK;
}

/* ==== the rank ==== */

static base_status_t plan(planned_t *p, base_device_t *dev)
{
    tr_memory_plan_t *args = p->args;
    const int rank = base_ctx_rank(p->ctx);
    tr_memory_report_t report = {.plan = args, .num_ranks = comm_group_size(p->group)};

    BASE_TRY(make_all(p, dev));
    args->ranks[rank] = count(p);
    BASE_TRY(comm_barrier(p->group)); /* all counts are there */
    if (rank != 0) return BASE_OK;
    report.limit = args->limit != NULL ? *args->limit : tr_memory_limit();
    report.inputs = p->inputs;
    report.trainer = p->trainer;
    report.lots = &p->lots;
    for (int r = 0; r < report.num_ranks; r++)
        report.total += tr_memory_rank_total(&args->ranks[r]);
    args->fits = report.total <= report.limit.bytes;
    BASE_TRY(tr_epoch_estimate(p->ctx, p->inputs->jobs, p->inputs->num_jobs,
                               p->full ? 0 : args->config->batch.max_rank_columns, &p->lots,
                               &report.epoch));
    if (!args->fits) BASE_TRY(suggest(p, dev, &report, &report.would_fit));
    if (args->json) return tr_memory_report_json(p->ctx, &report);
    tr_memory_report_text(&report);
    return BASE_OK;
}

base_status_t tr_memory_plan_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    tr_memory_plan_t *args = user;
    planned_t p = {.args = args,
                   .ctx = ctx,
                   .group = group,
                   .full = args->config->train.mode == BASE_CONFIG_MODE_FULL};
    base_error_t error;

    const base_status_t st = plan(&p, dev);
    if (st < 0 && base_ctx_error(ctx, &error)) comm_group_stop(group, &error);
    tr_train_destroy(p.train);
    tr_trainer_destroy(p.trainer);
    base_free(ctx, p.adapters);
    as_topology_destroy(p.topology);
    tr_inputs_close(p.inputs);
    return st;
}
