#include "trainer/loop/static_program.h"

#include "base/memory.h"

static void add(tr_static_program_t *p, tr_step_kind_t kind, as_direction_t direction,
                data_half_t half, int32_t layer, int32_t phase)
{
    p->steps[p->num_steps++] = (tr_step_t){
        .kind = kind, .direction = direction, .half = half, .layer = layer, .phase = phase};
}

static void add_exchange(tr_static_program_t *p, tr_step_kind_t kind, as_direction_t direction,
                         data_half_t half, int32_t layer, int32_t phase)
{
    add(p, kind, direction, half, layer, phase);
    if (p->serial) add(p, TR_STEP_SETTLE, direction, half, layer, phase);
}

/* One layer of either direction; `first` is the half that goes first. The layers -1 and L have no
 * attention: L ends the forward, -1 the backward. */
static void add_layer(tr_static_program_t *p, as_direction_t direction, data_half_t first,
                      int32_t layer)
{
    const data_half_t halves[DATA_NUM_HALVES] = {first, first == DATA_PING ? DATA_PONG : DATA_PING};
    const int32_t before = direction == AS_FORWARD ? layer - 1 : layer + 1;
    const int32_t phase = direction == AS_FORWARD ? layer : 2 * p->num_layers - layer;
    const int attends = layer >= 0 && layer < p->num_layers;

    for (int i = 0; i < DATA_NUM_HALVES; i++) {
        if (before >= 0 && before < p->num_layers)
            add(p, TR_STEP_FINISH, direction, halves[i], before, phase);
        add(p, TR_STEP_DENSE, direction, halves[i], layer, phase);
        if (attends) add_exchange(p, TR_STEP_BEGIN, direction, halves[i], layer, phase);
    }
    for (int i = 0; i < DATA_NUM_HALVES && attends; i++)
        add_exchange(p, TR_STEP_SERVE, direction, halves[i], layer, phase);
}

base_status_t tr_static_program_create(base_ctx_t *ctx, int32_t num_layers, int serial,
                                       tr_static_program_t **program_p)
{
    /* Both directions: at most 8 steps a layer, 12 when serial, and 4 at the end. */
    const int64_t most = 2 * (12 * (int64_t)num_layers + 4);

    tr_static_program_t *p = base_calloc(ctx, 1, sizeof *p, "static program");
    if (p == NULL) return BASE_ERR_NOMEM;
    p->ctx = ctx;
    p->num_layers = num_layers;
    p->serial = serial;
    p->steps = base_calloc(ctx, most, sizeof *p->steps, "static program");
    if (p->steps == NULL) {
        tr_static_program_destroy(p);
        return BASE_ERR_NOMEM;
    }
    for (int32_t l = 0; l <= num_layers; l++)
        add_layer(p, AS_FORWARD, DATA_PING, l);
    p->num_forward_steps = p->num_steps;
    for (int32_t l = num_layers - 1; l >= -1; l--)
        add_layer(p, AS_BACKWARD, DATA_PONG, l);
    *program_p = p;
    return BASE_OK;
}

void tr_static_program_destroy(tr_static_program_t *program)
{
    if (program == NULL) return;
    base_free(program->ctx, program->steps);
    base_free(program->ctx, program);
}

base_status_t tr_static_program_run(const tr_static_program_t *program, int32_t num_steps,
                                    const tr_static_program_ops_t *ops, void *user)
{
    for (int32_t i = 0; i < num_steps; i++) {
        const tr_step_t *step = &program->steps[i];

        base_ctx_at(program->ctx, step->layer, (int32_t)step->half);
        switch (step->kind) {
        case TR_STEP_FINISH:
            BASE_TRY(ops->finish(user, step));
            break;
        case TR_STEP_DENSE:
            if (ops->dense != NULL) BASE_TRY(ops->dense(user, step));
            break;
        case TR_STEP_BEGIN:
            BASE_TRY(ops->begin(user, step));
            break;
        case TR_STEP_SERVE:
            BASE_TRY(ops->serve(user, step));
            break;
        case TR_STEP_SETTLE:
            BASE_TRY(ops->settle(user, step));
            break;
        }
    }
    return BASE_OK;
}
