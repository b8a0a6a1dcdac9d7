#include "trainer/model/activations.h"

#include "base/memory.h"

#include <stdio.h>

typedef struct slot_info {
    const char *name;
    tr_scope_t scope;
    int64_t width;
    int extra, acc;
    tr_lifetime_t lifetime;
    tr_made_t made;
} slot_info_t;

const char *tr_recompute_name(tr_recompute_t recompute)
{
    static const char *const names[] = {[TR_RECOMPUTE_NOTHING] = "none",
                                        [TR_RECOMPUTE_QKV] = "qkv",
                                        [TR_RECOMPUTE_BLOCK] = "block"};

    return names[recompute];
}

static slot_info_t declared_info(const tr_model_t *m, tr_slot_t slot)
{
    switch (slot) {
#define X(slot_, name_, scope_, width_, extra_, acc_, lifetime_, made_)                            \
    case TR_SLOT_##slot_:                                                                          \
        return (slot_info_t){.name = name_,                                                        \
                             .scope = scope_,                                                      \
                             .width = width_,                                                      \
                             .extra = extra_,                                                      \
                             .acc = acc_,                                                          \
                             .lifetime = lifetime_,                                                \
                             .made = made_};
        TR_SLOT_MAP(X)
#undef X
    case TR_SLOT_COUNT:
        break;
    }
    return (slot_info_t){.name = "", .scope = TR_SHARED};
}

/* What a policy makes again does not stay: the backward has it one layer at a time. */
static slot_info_t slot_info(const tr_activations_t *a, tr_slot_t slot)
{
    slot_info_t info = declared_info(a->model, slot);
    const int qkv = a->recompute != TR_RECOMPUTE_NOTHING;
    const int block = a->recompute == TR_RECOMPUTE_BLOCK;

    switch (info.made) {
    case TR_MADE_QKV:
        if (qkv) info.scope = TR_PER_HALF;
        if (qkv) info.lifetime = TR_LIVES_RUN;
        break;
    case TR_MADE_PRE:
        if (block) info.scope = TR_PER_HALF;
        if (block) info.lifetime = TR_LIVES_RUN;
        break;
    case TR_MADE_POST:
        if (block) info.scope = TR_SHARED;
        if (block) info.lifetime = TR_LIVES_RUN;
        break;
    case TR_MADE_SCRATCH:
        if (qkv) info.lifetime = TR_LIVES_RUN;
        break;
    case TR_MADE_ONCE:
        break;
    }
    return info;
}

static base_lifetime_t phases(tr_lifetime_t lifetime, int32_t layer, int32_t num_layers)
{
    switch (lifetime) {
    case TR_LIVES_FROM_PRE:
        return (base_lifetime_t){layer, 2 * num_layers - layer + 1};
    case TR_LIVES_FROM_POST:
        return (base_lifetime_t){layer + 1, 2 * num_layers - layer};
    case TR_LIVES_FORWARD:
        return (base_lifetime_t){0, num_layers};
    case TR_LIVES_HEAD:
        return (base_lifetime_t){num_layers, num_layers};
    case TR_LIVES_GRADIENT:
        return (base_lifetime_t){num_layers, 2 * num_layers + 1};
    case TR_LIVES_BACKWARD:
        return (base_lifetime_t){num_layers + 1, 2 * num_layers + 1};
    case TR_LIVES_RUN:
        break;
    }
    return BASE_LIFETIME_RUN;
}

static int32_t scope_layers(const tr_activations_t *a, tr_scope_t scope)
{
    return scope == TR_PER_LAYER ? a->model->config.num_layers : 1;
}

static int32_t scope_halves(tr_scope_t scope)
{
    return scope == TR_SHARED ? 1 : DATA_NUM_HALVES;
}

/* Where half and layer do not matter to the slot they are 0. */
static base_region_t *region_of(const tr_activations_t *a, tr_slot_t slot, data_half_t half,
                                int32_t layer)
{
    const tr_scope_t scope = slot_info(a, slot).scope;
    const int64_t l = scope == TR_PER_LAYER ? layer : 0;
    const int64_t h = scope == TR_SHARED ? 0 : (int64_t)half;

    return &a->regions[((int64_t)slot * a->model->config.num_layers + l) * DATA_NUM_HALVES + h];
}

int64_t tr_activations_pitch(const tr_activations_t *activations, tr_slot_t slot)
{
    const slot_info_t info = slot_info(activations, slot);

    return info.extra ? tr_model_pitch(activations->model, info.width) : info.width;
}

static kern_dtype_t slot_dtype(const tr_activations_t *a, const slot_info_t *info)
{
    return info->acc ? a->model->acc : a->model->config.dtype;
}

static base_status_t declare(tr_activations_t *a, base_arena_t *arena, tr_slot_t slot,
                             int32_t layer, data_half_t half)
{
    const slot_info_t info = slot_info(a, slot);
    const kern_dtype_t dtype = slot_dtype(a, &info);
    const int64_t bytes = a->max_rows * tr_activations_pitch(a, slot) * kern_dtype_bytes(dtype);
    const char *half_name = half == DATA_PING ? "ping" : "pong";
    char name[64];

    if (info.scope == TR_PER_LAYER)
        (void)snprintf(name, sizeof name, "%s.layer%d.%s", info.name, layer, half_name);
    else if (info.scope == TR_PER_HALF)
        (void)snprintf(name, sizeof name, "%s.%s", info.name, half_name);
    else
        (void)snprintf(name, sizeof name, "%s", info.name);
    return base_arena_declare(arena, "trainer", name, bytes,
                              phases(info.lifetime, layer, a->model->config.num_layers),
                              region_of(a, slot, half, layer));
}

base_status_t tr_activations_create(const tr_model_t *model, base_arena_t *arena, int64_t max_rows,
                                    tr_recompute_t recompute, tr_activations_t **activations_p)
{
    base_ctx_t *ctx = model->ctx;
    base_status_t st;

    tr_activations_t *a = base_calloc(ctx, 1, sizeof *a, "activations");
    if (a == NULL) return BASE_ERR_NOMEM;
    a->ctx = ctx;
    a->model = model;
    a->arena = arena;
    a->max_rows = max_rows;
    a->recompute = recompute;
    a->regions =
        base_calloc(ctx, (int64_t)TR_SLOT_COUNT * model->config.num_layers * DATA_NUM_HALVES,
                    sizeof *a->regions, "activation regions");
    if (a->regions == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    for (int32_t s = 0; s < TR_SLOT_COUNT; s++) {
        const tr_scope_t scope = slot_info(a, (tr_slot_t)s).scope;
        for (int32_t l = 0; l < scope_layers(a, scope); l++) {
            for (int32_t h = 0; h < scope_halves(scope); h++)
                BASE_TRY_GOTO(declare(a, arena, (tr_slot_t)s, l, (data_half_t)h), st, err_destroy);
        }
    }
    *activations_p = a;
    return BASE_OK;
err_destroy:
    tr_activations_destroy(a);
    return st;
}

void tr_activations_destroy(tr_activations_t *activations)
{
    if (activations == NULL) return;
    base_free(activations->ctx, activations->regions);
    base_free(activations->ctx, activations);
}

base_status_t tr_activations_fill(const tr_activations_t *activations, base_stream_t *stream)
{
    for (int32_t s = 0; s < TR_SLOT_COUNT; s++) {
        const tr_scope_t scope = slot_info(activations, (tr_slot_t)s).scope;
        for (int32_t l = 0; l < scope_layers(activations, scope); l++) {
            for (int32_t h = 0; h < scope_halves(scope); h++) {
                const base_region_t region =
                    *region_of(activations, (tr_slot_t)s, (data_half_t)h, l);
                const base_range_t range = {.mem = base_arena_mem(activations->arena, region),
                                            .row_bytes =
                                                base_arena_region_bytes(activations->arena, region),
                                            .rows = 1};
                BASE_TRY(base_fill(stream, &range, 0xff)); /* all ones is a NaN in every dtype */
            }
        }
    }
    return BASE_OK;
}

kern_mat_t tr_activations_mat(const tr_activations_t *activations, tr_slot_t slot, data_half_t half,
                              int32_t layer, int64_t rows)
{
    const slot_info_t info = slot_info(activations, slot);
    const base_mem_t mem = tr_activations_mem(activations, slot, half, layer);
    const kern_dtype_t dtype = slot_dtype(activations, &info);

    if (slot == TR_SLOT_RSTD1 || slot == TR_SLOT_RSTD2 || slot == TR_SLOT_RSTD_LAST)
        return kern_vec(mem, rows, dtype);
    return kern_mat(mem, rows, info.width, tr_activations_pitch(activations, slot), dtype);
}

base_mem_t tr_activations_mem(const tr_activations_t *activations, tr_slot_t slot, data_half_t half,
                              int32_t layer)
{
    return base_arena_mem(activations->arena, *region_of(activations, slot, half, layer));
}
