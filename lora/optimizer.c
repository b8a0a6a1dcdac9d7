#include "lora/optimizer.h"

#include <assert.h>
#include <math.h>

base_status_t lora_optimizer_declare(lora_optimizer_t *optimizer, base_arena_t *arena,
                                     kern_dtype_t acc, int32_t num_subjects)
{
    const struct {
        const char *name;
        int64_t bytes;
        base_region_t *region;
    } values[] = {
        {"optimizer.sum", (int64_t)sizeof(double), &optimizer->sum},
        {"optimizer.norm", (int64_t)sizeof(double), &optimizer->norm},
        {"optimizer.factor", (int64_t)sizeof(double), &optimizer->factor},
        {"optimizer.nonfinite", num_subjects * (int64_t)sizeof(int32_t), &optimizer->nonfinite}};

    optimizer->arena = arena;
    optimizer->acc = acc;
    optimizer->num_subjects = num_subjects;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        BASE_TRY(base_arena_declare(arena, "lora", values[i].name, values[i].bytes,
                                    BASE_LIFETIME_RUN, values[i].region));
    return BASE_OK;
}

base_status_t lora_optimizer_start(const lora_optimizer_t *optimizer, base_stream_t *stream)
{
    const base_range_t found = {.mem = base_arena_mem(optimizer->arena, optimizer->nonfinite),
                                .row_bytes = optimizer->num_subjects * (int64_t)sizeof(int32_t),
                                .rows = 1};

    return base_fill(stream, &found, 0);
}

static kern_mat_t value(const lora_optimizer_t *o, base_region_t region, kern_dtype_t dtype)
{
    return kern_vec(base_arena_mem(o->arena, region), 1, dtype);
}

static kern_mat_t nonfinite_of(const lora_optimizer_t *o, int32_t subject)
{
    assert(subject >= 0 && subject < o->num_subjects);
    return kern_vec(
        base_mem_at(base_arena_mem(o->arena, o->nonfinite), subject * (int64_t)sizeof(int32_t)), 1,
        KERN_I32);
}

static base_status_t adamw(const lora_optimizer_t *o, const lora_optimizer_step_t *step,
                           int64_t first, int64_t count, double weight_decay, base_stream_t *stream)
{
    const kern_adamw_t args = {.dtype = step->dtype,
                               .num_tensors = count,
                               .tensors = step->tensors + first,
                               .learning_rate = step->learning_rate,
                               .beta1 = step->beta1,
                               .beta2 = step->beta2,
                               .eps = step->eps,
                               .weight_decay = weight_decay,
                               .step = step->step,
                               .clip = value(o, o->factor, o->acc),
                               .skip = nonfinite_of(o, step->subject)};

    return count == 0 ? BASE_OK : kern_adamw_run(stream, &args);
}

base_status_t lora_optimizer_step(const lora_optimizer_t *optimizer,
                                  const lora_optimizer_step_t *step, base_stream_t *stream)
{
    const lora_optimizer_t *o = optimizer;
    const kern_mat_t sum = value(o, o->sum, o->acc);
    const kern_grad_norm_t norm = {
        .num_gradients = step->num_gradients, .gradients = step->gradients, .sum = sum};
    const kern_clip_factor_t clip = {.sum = sum,
                                     .norm = value(o, o->norm, o->acc),
                                     .factor = value(o, o->factor, o->acc),
                                     .clip = step->clip_norm > 0.0 ? step->clip_norm
                                                                   : (double)INFINITY};
    const kern_finite_check_t finite = {.dtype = o->acc,
                                        .num_tensors = step->num_gradients,
                                        .tensors = step->gradients,
                                        .count = nonfinite_of(o, step->subject),
                                        .keep = 1};

    BASE_TRY(kern_grad_norm_run(stream, &norm));
    BASE_TRY(kern_clip_factor_run(stream, &clip));
    BASE_TRY(kern_finite_check_run(stream, &finite));
    BASE_TRY(adamw(o, step, 0, step->num_decayed, step->weight_decay, stream));
    return adamw(o, step, step->num_decayed, step->num_tensors - step->num_decayed, 0.0, stream);
}

base_status_t lora_optimizer_download(const lora_optimizer_t *optimizer, int32_t subject,
                                      base_stream_t *stream, lora_optimizer_landing_t *landing)
{
    const lora_optimizer_t *o = optimizer;
    const kern_mat_t found = nonfinite_of(o, subject);

    BASE_TRY(base_download(stream, &landing->norm, base_arena_mem(o->arena, o->norm),
                           kern_dtype_bytes(o->acc)));
    return base_download(stream, &landing->nonfinite, found.mem,
                         (int64_t)sizeof landing->nonfinite);
}

lora_optimizer_result_t lora_optimizer_landed(const lora_optimizer_t *optimizer,
                                              const lora_optimizer_landing_t *landing)
{
    return (lora_optimizer_result_t){
        .norm = optimizer->acc == KERN_F64 ? landing->norm.wide : (double)landing->norm.single,
        .nonfinite = landing->nonfinite};
}

void lora_optimizer_adapter(lora_adapter_set_t *set, int32_t adapter, lora_optimizer_step_t *step)
{
    lora_adapter_t *a = &set->adapters[adapter];
    lora_adapter_lists_t *lists = &a->lists[a->next_lists];

    a->next_lists = (a->next_lists + 1) % LORA_ADAPTER_LISTS;
    for (int64_t m = 0; m < a->layout->num_modules; m++) {
        kern_adamw_tensor_t *down = &lists->tensors[2 * m], *up = down + 1;

        *down = (kern_adamw_tensor_t){.w = lora_module_a(set, adapter, m, a->weights),
                                      .m = lora_module_a(set, adapter, m, a->moment1),
                                      .v = lora_module_a(set, adapter, m, a->moment2),
                                      .gradient = lora_module_a(set, adapter, m, a->gradient)};
        *up = (kern_adamw_tensor_t){.w = lora_module_b(set, adapter, m, a->weights),
                                    .m = lora_module_b(set, adapter, m, a->moment1),
                                    .v = lora_module_b(set, adapter, m, a->moment2),
                                    .gradient = lora_module_b(set, adapter, m, a->gradient)};
        if (a->column < 0) continue; /* no place: the next one copies the masters */
        down->copy = lora_placed_a(set, adapter, m);
        up->copy = lora_placed_b(set, adapter, m);
    }
    lists->gradient = lora_adapter_set_vector(set, adapter, a->gradient);
    step->dtype = set->dtype;
    step->subject = adapter;
    step->num_gradients = 1;
    step->gradients = &lists->gradient;
    step->num_tensors = step->num_decayed = a->num_tensors;
    step->tensors = lists->tensors;
}
