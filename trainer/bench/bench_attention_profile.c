#include "trainer/bench/bench_attention_profile.h"

#include "base/memory.h"

#include <stdio.h>

#define TILE DATA_ROW_ALIGN
/* Tile rows and heads of a call that fills the device: eight for each of a GPU's 132 processors. */
#define GPU_ITEMS  1056
#define CPU_ITEMS  4
#define MAX_EQUAL  1056
#define MAX_BYTES  (INT64_C(48) << 30)
#define HEADS      8 /* of the profile's tasks */
#define GRID_TIMES 3

typedef struct busy {
    base_ctx_t *ctx;
    tr_attention_rig_t *rig;
    const tr_attention_profile_t *options;
} busy_t;

/* Fills `set` with equal tasks, as many as fill the device and fit. */
static base_status_t make_equal(const busy_t *b, const tr_attention_shape_t *shape, int64_t q0,
                                int64_t q1, tr_attention_set_t *set)
{
    const int64_t items = tr_attention_rig_is_gpu(b->rig) ? GPU_ITEMS : CPU_ITEMS;
    const int64_t each = (q1 - q0 + TILE - 1) / TILE * shape->kv_heads;
    as_task_t task = {.h1 = shape->kv_heads, .q0 = q0, .q1 = q1};
    const tr_attention_set_t one = {1, 1, &task};
    const int64_t room =
        MAX_BYTES / tr_attention_set_bytes(tr_attention_rig_dtype(b->rig), shape, &one);
    int64_t count = (items + each - 1) / each;

    if (count > room) count = room;
    if (count > MAX_EQUAL) count = MAX_EQUAL;
    if (count < 1) count = 1;
    *set = (tr_attention_set_t){.num_tasks = (int32_t)count, .num_documents = (int32_t)count};
    set->tasks = base_calloc(b->ctx, count, sizeof *set->tasks, "bench: tasks");
    if (set->tasks == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < set->num_tasks; i++) {
        set->tasks[i] = task;
        set->tasks[i].document = i;
    }
    return BASE_OK;
}

/* The least of `times` times of one task and one head, and how many were in a call. */
static base_status_t time_equal(const busy_t *b, int32_t heads, int32_t times, tr_timed_t *timed,
                                int32_t *count)
{
    const tr_attention_shape_t shape = {heads, b->options->group, b->options->head_dim, 0};
    tr_attention_set_t set;
    base_status_t st;

    BASE_TRY(make_equal(b, &shape, timed->q0, timed->q1, &set));
    *count = set.num_tasks;
    st = tr_attention_rig_load(b->rig, &shape, &set);
    tr_attention_set_free(b->ctx, &set);
    BASE_TRY(st);
    for (int32_t i = 0; i < times; i++)
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
            tr_attention_time_t time;

            /* A GPU's clock follows what it does: once for the clock, then for the time. */
            if (tr_attention_rig_is_gpu(b->rig)) BASE_TRY(tr_attention_rig_time(b->rig, d, &time));
            BASE_TRY(tr_attention_rig_time(b->rig, d, &time));
            const int64_t ns = time.call_ns / ((int64_t)*count * heads);
            if (timed->ns[d] == 0 || ns < timed->ns[d]) timed->ns[d] = ns > 0 ? ns : 1;
        }
    return BASE_OK;
}

static base_status_t time_task(void *rig, tr_timed_t *timed)
{
    const busy_t *b = rig;
    int32_t count;

    return time_equal(b, tr_attention_rig_is_gpu(b->rig) ? HEADS : 1, 1, timed, &count);
}

base_status_t tr_attention_profile_make(base_ctx_t *ctx, tr_attention_rig_t *rig,
                                        const tr_attention_profile_t *options,
                                        as_profile_t *profile,
                                        tr_held_out_t held_out[TR_ATTENTION_HELD_OUT])
{
    const bool gpu = tr_attention_rig_is_gpu(rig), packed = gpu && TILE % options->group == 0;
    busy_t busy = {ctx, rig, options};
    const tr_profile_device_t device = {
        .name = tr_attention_rig_device(rig),
        .dtype = kern_dtype_name(tr_attention_rig_dtype(rig)),
        .command = "cadre bench attention --profile",
        .row_grain = packed ? TILE / options->group : 1,
        .rounds = gpu ? 3 : 1,
        .max_held_rows = gpu ? 4096 : 512,
        .each_side = gpu ? 4 : 1,
        .many = gpu ? 16 : 0,
        .time = time_task,
        .rig = &busy,
    };
    const tr_bench_profile_t wanted = {.group = options->group,
                                       .head_dim = options->head_dim,
                                       .max_keys = options->max_keys,
                                       .num_held_out = TR_ATTENTION_HELD_OUT};

    return tr_profile_make(ctx, &wanted, &device, profile, held_out);
}

/* ==== the grid ==== */

static void write_cell(base_json_t *j, const tr_timed_t *timed, int32_t heads, int32_t count)
{
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {
        {"rows", timed->q1 - timed->q0},
        {"prefix", timed->q0},
        {"kv_heads", heads},
        {"equal_tasks", count},
        {"forward_ns", timed->ns[AS_PROFILE_FORWARD]},
        {"backward_ns", timed->ns[AS_PROFILE_BACKWARD]},
    };

    base_json_begin_object(j);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        base_json_put_int(j, numbers[i].key, numbers[i].value);
    }
    base_json_end(j);
}

base_status_t tr_attention_grid(base_ctx_t *ctx, tr_attention_rig_t *rig,
                                const tr_attention_profile_t *options, base_json_t *j)
{
    static const int64_t rows[] = {TILE, 512, 2048, 4096};
    static const int64_t prefixes[] = {0, 4096, 16384, 65536, 126976};
    static const int32_t heads[] = {1, HEADS};
    const busy_t busy = {ctx, rig, options};

    base_json_begin_array(j);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        for (size_t p = 0; p < sizeof prefixes / sizeof prefixes[0]; p++)
            for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) {
                tr_timed_t timed = {prefixes[p], prefixes[p] + rows[r], {0, 0}};
                int32_t count;

                if (timed.q1 > options->max_keys) continue;
                BASE_TRY(time_equal(&busy, heads[h], GRID_TIMES, &timed, &count));
                write_cell(j, &timed, heads[h], count);
            }
    base_json_end(j);
    return BASE_OK;
}
