#include "trainer/bench/bench_plan_profile.h"

#include "attention_server/cost.h"
#include "base/file.h"
#include "base/philox.h"
#include "base/version.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#define TILE DATA_ROW_ALIGN

/* ==== which tasks ==== */

/* The first three give the constant of a task: two of one tile row against one of both. The next
 * two give what a tile costs of which few rows are there: a few, and all. Then what keys take once: one tile row
 * against many that end with it. */
enum { FIRST, SECOND, BOTH, FEW, ALL, ONE, MANY, NUM_CONSTANT };
#define FEW_ROWS 16

/* Points come after what they are made with. */
static int32_t first_point(const tr_profile_device_t *device)
{
    return device->many > 0 ? NUM_CONSTANT : ONE;
}

/* A point is the middle one of some tile rows: one by itself finds its operands in the caches, and on a GPU a task
 * of few rows has the device wait for memory, so that its clock is not that of work. */
static int32_t list_tasks(const tr_bench_profile_t *o, const tr_profile_device_t *device,
                          tr_timed_t *tasks)
{
    const int64_t half = o->max_keys / 2 / TILE * TILE;
    const int64_t many = half / TILE < device->many ? half / TILE : device->many;
    const int64_t last = o->max_keys / TILE - 1, side = device->each_side;
    const int64_t most = (last > 2 * side ? last - side + 1 : last) * TILE;
    const int32_t points = first_point(device);
    int32_t count = points;

    tasks[FIRST] = (tr_timed_t){.q0 = 0, .q1 = TILE};
    tasks[SECOND] = (tr_timed_t){.q0 = TILE, .q1 = 2 * TILE};
    tasks[BOTH] = (tr_timed_t){.q0 = 0, .q1 = 2 * TILE};
    tasks[FEW] = (tr_timed_t){.q0 = half, .q1 = half + FEW_ROWS};
    tasks[ALL] = (tr_timed_t){.q0 = half, .q1 = half + TILE};
    tasks[ONE] = (tr_timed_t){.q0 = half - TILE, .q1 = half};
    tasks[MANY] = (tr_timed_t){.q0 = half - many * TILE, .q1 = half};
    for (int64_t keys = 2 * TILE; count < points + AS_PROFILE_MAX_POINTS - 1; keys *= 2) {
        if (keys > most) keys = most;
        int64_t rows = keys / TILE - 1;
        if (rows > side) rows = side;
        if (rows > last - keys / TILE + 1) rows = last - keys / TILE + 1;
        tasks[count++] = (tr_timed_t){.q0 = keys - (rows + 1) * TILE, .q1 = keys + rows * TILE};
        if (keys == most) break;
    }
    return count;
}

/* Random rows that begin where a task may. */
static void list_held_out(const tr_bench_profile_t *o, int64_t max_rows, tr_timed_t *tasks)
{
    const int64_t tiles = o->max_keys / TILE;

    for (int32_t i = 0; i < o->num_held_out; i++) {
        const base_philox_t x = base_philox(base_philox_key(77), (uint32_t)i, 0, 0, 0);
        const int64_t q0 = (int64_t)base_philox_below(x.word[0], x.word[1], (uint64_t)tiles) * TILE;
        int64_t room = o->max_keys - q0;

        if (room > max_rows) room = max_rows;
        tasks[i].q0 = q0;
        tasks[i].q1 =
            q0 + TILE / 2 +
            (int64_t)base_philox_below(x.word[2], x.word[3], (uint64_t)(room - TILE / 2 + 1));
    }
}

static int64_t positive(int64_t ps)
{
    return ps > 0 ? ps : 1;
}

/* What the tile rows of a task took. */
static int64_t rows_ps(const as_profile_t *p, int direction, const tr_timed_t *t)
{
    return t->ns[direction] * 1000 - p->task_ps[direction] -
           as_tile_ceil(t->q1) * p->key_ps[direction];
}

/* What is left for tile row 0 of the first two and of the first three tile rows, and between the two: two find
 * their operands in the caches, three do not, and documents have either. */
static int64_t first_tile_row_ps(const as_profile_t *p, int direction, const tr_timed_t *two,
                                 const tr_timed_t *three)
{
    const int64_t second = p->tile_row_ps[direction][1];
    const int64_t of_two = rows_ps(p, direction, two) - second;

    const int64_t of_three =
        rows_ps(p, direction, three) - second - as_profile_tile_row_ps(p, direction, three->q1);
    return positive((of_two + of_three) / 2);
}

/* Time of tile rows is as their keys; what is left of one is what its keys take once. */
static int64_t key_ps(const tr_timed_t *one, const tr_timed_t *many, int direction)
{
    const double rows = (double)((many->q1 - many->q0) / TILE), keys = (double)(one->q1 / TILE);
    const double more_pairs = rows * keys - rows * (rows - 1) / 2 - keys;

    if (more_pairs <= 0) return 0;
    const double more = (double)(many->ns[direction] - one->ns[direction]) * 1000;
    const double left = (double)one->ns[direction] * 1000 / keys - more / more_pairs;
    return left > 0 ? (int64_t)left : 0;
}

static void make_constants(as_profile_t *p, const tr_timed_t *tasks, bool has_many)
{
    const int64_t few_rows = (FEW_ROWS + p->row_grain - 1) / p->row_grain * p->row_grain;
    const double share = (double)few_rows / TILE; /* that is charged */

    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
        p->key_ps[d] = has_many ? key_ps(&tasks[ONE], &tasks[MANY], d) : 0;
        const int64_t ns = tasks[FIRST].ns[d] + tasks[SECOND].ns[d] - tasks[BOTH].ns[d];
        const int64_t ps = ns * 1000 - p->key_ps[d]; /* of one tile of keys more than of both */

        p->task_ps[d] = ps > 0 ? ps : 0;
        const double few =
            (double)rows_ps(p, d, &tasks[FEW]) / (double)positive(rows_ps(p, d, &tasks[ALL]));
        const double idle = share < 1 ? (few - share) / (1 - share) : 0;
        p->idle_per_mille[d] = idle <= 0 ? 0 : idle >= 1 ? 1000 : (int32_t)(1000 * idle);
    }
}

static void make_points(as_profile_t *p, const tr_timed_t *points, int32_t count,
                        const tr_timed_t *first_two)
{
    p->num_points = 1 + count;
    p->keys[0] = TILE;
    for (int32_t i = 1; i < p->num_points; i++) {
        const tr_timed_t *t = &points[i - 1];

        p->keys[i] = (t->q0 + t->q1 + TILE) / 2;
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
            p->tile_row_ps[d][i] = positive(rows_ps(p, d, t) / ((t->q1 - t->q0) / TILE));
    }
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
        p->tile_row_ps[d][0] = first_tile_row_ps(p, d, first_two, &points[0]);
}

static base_status_t predict(base_ctx_t *ctx, const tr_bench_profile_t *o, const as_profile_t *p,
                             const tr_timed_t *tasks, tr_held_out_t *held_out)
{
    as_cost_t *cost;

    BASE_TRY(as_cost_create(ctx, p, 0, o->max_keys, &cost));
    for (int32_t i = 0; i < o->num_held_out; i++) {
        tr_held_out_t *h = &held_out[i];

        h->q0 = tasks[i].q0;
        h->q1 = tasks[i].q1;
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
            h->measured_ns[d] = tasks[i].ns[d];
            h->predicted_ns[d] =
                cost->task_ns[d] + as_cost_rows(cost, (as_cost_kind_t)d, h->q0, h->q1);
        }
    }
    as_cost_destroy(cost);
    return BASE_OK;
}

/* Each task is timed once in each round: what slows the machine down for a while does not spoil all
 * times of one of them. */
static base_status_t measure(base_ctx_t *ctx, const tr_bench_profile_t *o,
                             const tr_profile_device_t *device, as_profile_t *p,
                             tr_held_out_t *held_out)
{
    tr_timed_t tasks[NUM_CONSTANT + AS_PROFILE_MAX_POINTS + TR_MAX_HELD_OUT] = {{0, 0, {0, 0}}};
    const int32_t first = first_point(device), held = list_tasks(o, device, tasks);
    const int32_t count = held + o->num_held_out;

    list_held_out(o, device->max_held_rows, tasks + held);
    for (int round = 0; round < device->rounds; round++)
        for (int32_t i = 0; i < count; i++)
            BASE_TRY(device->time(device->rig, &tasks[i]));
    make_constants(p, tasks, device->many > 0);
    make_points(p, tasks + first, held - first, &tasks[BOTH]);
    return predict(ctx, o, p, tasks + held, held_out);
}

base_status_t tr_profile_make(base_ctx_t *ctx, const tr_bench_profile_t *options,
                              const tr_profile_device_t *device, as_profile_t *profile,
                              tr_held_out_t *held_out)
{
    as_profile_t p = {
        .group = options->group, .head_dim = options->head_dim, .row_grain = device->row_grain};

    if (options->num_held_out > TR_MAX_HELD_OUT)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "bench profile: %d tasks held out",
                         (int)options->num_held_out);
    (void)snprintf(p.device, sizeof p.device, "%s", device->name);
    (void)snprintf(p.dtype, sizeof p.dtype, "%s", device->dtype);
    (void)snprintf(p.source, sizeof p.source, "%s, %s", device->command, base_version_commit());
    BASE_TRY(measure(ctx, options, device, &p, held_out));
    *profile = p;
    return BASE_OK;
}

/* ==== this CPU ==== */

static base_status_t time_on_cpu(void *rig, tr_timed_t *timed)
{
    return tr_rig_time(rig, timed);
}

base_status_t tr_bench_profile(base_ctx_t *ctx, const tr_bench_profile_t *options,
                               as_profile_t *profile, tr_held_out_t *held_out)
{
    char name[AS_PROFILE_TEXT_BYTES];
    tr_profile_device_t device = {.name = name,
                                  .dtype = "fp32",
                                  .command = "cadre bench profile",
                                  .row_grain = 1,
                                  .rounds = 20,
                                  .max_held_rows = 512,
                                  .each_side = 1,
                                  .time = time_on_cpu};
    tr_rig_t *rig = NULL;
    base_status_t st;

    base_version_cpu(name, sizeof name);
    BASE_TRY(tr_rig_open(ctx, options->group, options->head_dim, options->max_keys, &rig));
    device.rig = rig;
    st = tr_profile_make(ctx, options, &device, profile, held_out);
    tr_rig_close(rig);
    return st;
}

/* ==== what comes of it ==== */

double tr_held_out_print(FILE *out, const tr_held_out_t *held_out, int32_t count)
{
    static const char *const names[] = {"forward", "backward"};
    double worst = 0;

    (void)fprintf(out, "held out: rows [q0, q1), measured and foretold microseconds, error\n");
    for (int32_t i = 0; i < count; i++)
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
            const tr_held_out_t *h = &held_out[i];
            const double measured = (double)h->measured_ns[d];
            const double error = 100 * ((double)h->predicted_ns[d] - measured) / measured;

            (void)fprintf(out, "%-8s [%6" PRId64 ", %6" PRId64 ") %10.1f %10.1f %+5.1f %%\n",
                          names[d], h->q0, h->q1, measured / 1e3, (double)h->predicted_ns[d] / 1e3,
                          error);
            if (error > worst || -error > worst) worst = error > 0 ? error : -error;
        }
    (void)fprintf(out, "worst: %.1f %%\n", worst);
    return worst;
}

base_status_t tr_profile_save(base_ctx_t *ctx, const char *path, FILE *out,
                              const as_profile_t *profile)
{
    char text[4096];
    base_json_t j;

    base_json_to_buffer(&j, text, sizeof text);
    base_json_set_indent(&j, 2);
    as_profile_write(profile, &j);
    base_json_newline(&j);
    BASE_TRY(base_json_finish(&j, ctx, path != NULL ? path : "profile"));
    if (path != NULL) return base_file_write(ctx, path, text, strlen(text));
    (void)fputs(text, out);
    return BASE_OK;
}
