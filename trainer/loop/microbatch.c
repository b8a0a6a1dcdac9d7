#include "trainer/loop/microbatch.h"

#include "base/memory.h"

/* What the steps are called in a trace. */
static const char *const NAMES[][DATA_NUM_HALVES][2] = {
    [TR_STEP_FINISH] = {{"finish ping forward", "finish ping backward"},
                        {"finish pong forward", "finish pong backward"}},
    [TR_STEP_DENSE] = {{"dense ping forward", "dense ping backward"},
                       {"dense pong forward", "dense pong backward"}},
    [TR_STEP_BEGIN] = {{"begin ping forward", "begin ping backward"},
                       {"begin pong forward", "begin pong backward"}},
    [TR_STEP_SERVE] = {{"serve ping forward", "serve ping backward"},
                       {"serve pong forward", "serve pong backward"}},
    [TR_STEP_SETTLE] = {{"settle ping forward", "settle ping backward"},
                        {"settle pong forward", "settle pong backward"}}};

typedef struct runner {
    tr_trainer_t *trainer;
    int64_t microbatch;
    int evaluate;
} runner_t;

static base_status_t enter(const runner_t *r, const tr_step_t *step)
{
    static const char *const KEYS[BASE_TRACE_NOTES] = {"layer", "microbatch"};
    const base_trace_note_t note = {.part = step->kind == TR_STEP_DENSE ? BASE_PART_DENSE
                                                                        : BASE_PART_ATTENTION,
                                    .keys = KEYS,
                                    .values = {step->layer, r->microbatch}};

    return base_stream_begin(r->trainer->stream, NAMES[step->kind][step->half][step->direction],
                             &note);
}

static base_status_t leave(const runner_t *r)
{
    return base_stream_end(r->trainer->stream);
}

static base_status_t run_dense(void *user, const tr_step_t *step)
{
    const runner_t *r = user;
    const tr_graph_t *graph = &r->trainer->graph;

    BASE_TRY(enter(r, step));
    if (step->direction == AS_FORWARD)
        BASE_TRY(tr_graph_forward(graph, step->half, step->layer, r->evaluate));
    else
        BASE_TRY(tr_graph_backward(graph, step->half, step->layer));
    return leave(r);
}

static base_status_t run_begin(void *user, const tr_step_t *step)
{
    const runner_t *r = user;
    const tr_trainer_t *t = r->trainer;
    as_tensors_t tensors;

    BASE_TRY(enter(r, step));
    if (t->index >= 0)
        tensors = tr_graph_tensors(&t->graph, step->half, step->layer, step->direction);
    BASE_TRY(as_attention_begin(t->attention, step->half, step->layer, step->direction,
                                t->index >= 0 ? &tensors : NULL));
    return leave(r);
}

static base_status_t run_serve(void *user, const tr_step_t *step)
{
    const runner_t *r = user;

    BASE_TRY(enter(r, step));
    BASE_TRY(as_attention_serve(r->trainer->attention, step->half, step->layer, step->direction));
    return leave(r);
}

static base_status_t run_finish(void *user, const tr_step_t *step)
{
    const runner_t *r = user;

    BASE_TRY(enter(r, step));
    BASE_TRY(as_attention_finish(r->trainer->attention, step->half));
    return leave(r);
}

static base_status_t run_settle(void *user, const tr_step_t *step)
{
    const runner_t *r = user;

    BASE_TRY(enter(r, step));
    BASE_TRY(as_attention_settle(r->trainer->attention, step->half));
    return leave(r);
}

static base_status_t run_program(tr_trainer_t *trainer, const data_batch_t *batch, int evaluate)
{
    const tr_static_program_t *p = trainer->program;
    const tr_static_program_ops_t ops = {.dense = trainer->index < 0 ? NULL : run_dense,
                                         .begin = run_begin,
                                         .serve = run_serve,
                                         .finish = run_finish,
                                         .settle = run_settle};
    runner_t r = {.trainer = trainer, .microbatch = batch->microbatch, .evaluate = evaluate};

    return tr_static_program_run(p, evaluate ? p->num_forward_steps : p->num_steps, &ops, &r);
}

/* The adapters of the batch, ascending. */
static int32_t list_used(tr_trainer_t *t, const data_batch_t *batch)
{
    int32_t n = 0;

    for (int32_t a = 0; a < t->num_adapters; a++) {
        int32_t d = 0;
        while (d < batch->num_documents && batch->documents[d].adapter != a)
            d++;
        if (d < batch->num_documents) t->used[n++] = a;
    }
    return n;
}

static base_status_t install_adapters(tr_trainer_t *t, const data_batch_t *batch, int evaluate)
{
    const int32_t num_used = list_used(t, batch);
    lora_route_rows_t rows;

    for (int h = 0; h < DATA_NUM_HALVES; h++) {
        rows.documents[h] = tr_rows_documents(t->rows, (data_half_t)h);
        rows.positions[h] = tr_rows_positions(t->rows, (data_half_t)h);
    }
    BASE_TRY(lora_adapter_set_place(t->adapters, batch->microbatch, t->used, num_used, t->stream));
    return lora_route_install(t->route, batch, t->index, t->used, num_used, &rows, evaluate);
}

static base_status_t install(tr_trainer_t *t, const data_batch_t *batch,
                             const as_plan_t *const *plans, int evaluate)
{
    if (batch->num_trainers != t->topology->num_trainers)
        return BASE_FAIL(t->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %lld: laid out for %d trainers, the job has %d",
                         (long long)batch->microbatch, batch->num_trainers,
                         t->topology->num_trainers);
    BASE_TRY(as_attention_microbatch(t->attention, batch, plans));
    if (t->index < 0) return BASE_OK;
    BASE_TRY(tr_rows_install(t->rows, batch, t->index));
    return t->adapters == NULL ? BASE_OK : install_adapters(t, batch, evaluate);
}

base_status_t tr_microbatch_run(tr_trainer_t *trainer, const data_batch_t *batch,
                                const as_plan_t *const *plans)
{
    const base_device_t *dev = base_stream_device(trainer->stream);
    const base_memory_t *memory = base_ctx_memory(trainer->ctx);
    const int64_t waits = base_device_waits(dev) + base_device_event_waits(dev),
                  calls = base_memory_calls(memory);
    tr_stalls_t *stalls = &trainer->stalls;

    BASE_TRY(install(trainer, batch, plans, 0));
    BASE_TRY(run_program(trainer, batch, 0));
    if (stalls->microbatches++ < TR_WARM_MICROBATCHES) return BASE_OK;
    stalls->counted++;
    stalls->waits += base_device_waits(dev) + base_device_event_waits(dev) - waits;
    stalls->allocations += base_memory_calls(memory) - calls;
    return BASE_OK;
}

base_status_t tr_microbatch_evaluate(tr_trainer_t *trainer, const data_batch_t *batch,
                                     const as_plan_t *const *plans)
{
    BASE_TRY(install(trainer, batch, plans, 1));
    return run_program(trainer, batch, 1);
}
