#include "trainer/loop/adapter_step.h"

static void take_options(const tr_step_options_t *options, lora_optimizer_step_t *step)
{
    step->learning_rate = options->learning_rate;
    step->beta1 = options->beta1;
    step->beta2 = options->beta2;
    step->eps = options->eps;
    step->weight_decay = options->weight_decay;
    step->clip_norm = options->clip_norm;
}

/* The step has been given to the stream: what came out follows it. */
static base_status_t download(tr_trainer_t *t, int32_t adapter, tr_step_landing_t *landing)
{
    BASE_TRY(lora_optimizer_download(&t->optimizer, adapter, t->stream, &landing->optimizer));
    return tr_gradients_download_loss(t, adapter, &landing->loss);
}

tr_step_result_t tr_step_landed(const tr_trainer_t *trainer, const tr_step_landing_t *landing)
{
    const lora_optimizer_result_t step =
        lora_optimizer_landed(&trainer->optimizer, &landing->optimizer);

    return (tr_step_result_t){
        .loss = trainer->model->acc == KERN_F64 ? landing->loss.wide : (double)landing->loss.single,
        .norm = step.norm,
        .nonfinite = step.nonfinite};
}

base_status_t tr_adapter_step(tr_trainer_t *trainer, int32_t adapter,
                              const tr_step_options_t *options, const tr_step_hook_t *hook,
                              tr_step_landing_t *landing)
{
    lora_optimizer_step_t step;

    BASE_TRY(tr_gradients_reduce_adapter(trainer, adapter));
    if (trainer->index < 0) return BASE_OK;
    if (hook->fn != NULL) BASE_TRY(hook->fn(hook->user, adapter));
    lora_adapter_t *a = &trainer->adapters->adapters[adapter];
    take_options(options, &step);
    lora_optimizer_adapter(trainer->adapters, adapter, &step);
    step.step = (int64_t)++a->step;
    BASE_TRY(lora_optimizer_step(&trainer->optimizer, &step, trainer->stream));
    BASE_TRY(download(trainer, adapter, landing));
    return tr_gradients_zero_adapter(trainer, adapter);
}

/* ==== the model itself ==== */

static int is_decayed(tr_weight_kind_t kind)
{
    switch (kind) {
    case TR_WEIGHT_QKV:
    case TR_WEIGHT_O:
    case TR_WEIGHT_GATE_UP:
    case TR_WEIGHT_DOWN:
    case TR_WEIGHT_EMBEDDING:
    case TR_WEIGHT_LM_HEAD:
        return 1;
    default:
        return 0;
    }
}

static kern_mat_t moment(const tr_trainer_t *t, int32_t weight, int which)
{
    const tr_weight_spec_t *spec = &t->model->weights[weight];

    return kern_mat(base_arena_mem(t->arena, t->moments[2 * weight + which]), spec->rows,
                    spec->cols, spec->cols, t->model->acc);
}

/* Fills the trainer's lists, once: decayed weights first. Returns their number. */
static int64_t list_weights(tr_trainer_t *t)
{
    int64_t n = 0, decayed = 0;

    for (int pass = 1; pass >= 0; pass--) {
        for (int32_t i = 0; i < t->model->num_weights; i++) {
            if (is_decayed(t->model->weights[i].kind) != pass) continue;
            t->full_tensors[n++] =
                (kern_adamw_tensor_t){.w = tr_weights_mat(t->weights, i),
                                      .m = moment(t, i, 0),
                                      .v = moment(t, i, 1),
                                      .gradient = tr_weights_gradient(t->weights, i)};
        }
        if (pass == 1) decayed = n;
    }
    for (int32_t i = 0; i < t->model->num_weights; i++)
        t->full_gradients[i] = tr_weights_gradient(t->weights, i);
    return decayed;
}

base_status_t tr_full_step(tr_trainer_t *trainer, int64_t step, const tr_step_options_t *options,
                           const tr_step_hook_t *hook, tr_step_landing_t *landing)
{
    BASE_TRY(tr_gradients_reduce(trainer));
    if (trainer->index < 0) return BASE_OK;
    if (hook->fn != NULL) BASE_TRY(hook->fn(hook->user, 0));
    if (trainer->full_decayed == 0) trainer->full_decayed = list_weights(trainer);
    lora_optimizer_step_t args = {.dtype = trainer->model->config.dtype,
                                  .num_gradients = trainer->model->num_weights,
                                  .gradients = trainer->full_gradients,
                                  .num_tensors = trainer->model->num_weights,
                                  .num_decayed = trainer->full_decayed,
                                  .tensors = trainer->full_tensors,
                                  .step = step};

    take_options(options, &args);
    BASE_TRY(lora_optimizer_step(&trainer->optimizer, &args, trainer->stream));
    BASE_TRY(download(trainer, 0, landing));
    return tr_gradients_zero(trainer);
}
