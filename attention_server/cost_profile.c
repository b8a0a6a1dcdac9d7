#include "attention_server/cost_profile.h"

#include "data/batch.h"
#include "data/json_read.h"

#include <inttypes.h>
#include <string.h>

#define MAX_FILE_BYTES (INT64_C(1) << 20)
#define MAX_KEY_PS     (AS_PROFILE_MAX_PS / (DATA_MAX_ROWS / DATA_ROW_ALIGN))

/* ==== reading ==== */

static void copy_text(const data_json_object_t *root, const char *key, char *to, size_t room)
{
    const char *text;

    if (!data_json_text(root, key, &text)) return;
    if (strlen(text) >= room)
        data_json_fault(root, BASE_MSG_DATA_04, key, "is longer than %zu bytes", room - 1);
    else
        memcpy(to, text, strlen(text) + 1);
}

static void read_words(const data_json_object_t *root, as_profile_t *p)
{
    const char *text;

    if (data_json_text(root, "format", &text) && strcmp(text, AS_PROFILE_FORMAT) != 0)
        data_json_fault(root, BASE_MSG_DATA_04, "format", "is \"%s\", want \"%s\"", text,
                        AS_PROFILE_FORMAT);
    if (data_json_text(root, "origin", &text)) {
        p->derived = strcmp(text, "derived") == 0;
        if (!p->derived && strcmp(text, "measured") != 0)
            data_json_fault(root, BASE_MSG_DATA_04, "origin",
                            "is \"%s\", want \"measured\" or \"derived\"", text);
    }
    copy_text(root, "device", p->device, sizeof p->device);
    copy_text(root, "source", p->source, sizeof p->source);
    copy_text(root, "dtype", p->dtype, sizeof p->dtype);
}

static void read_numbers(const data_json_object_t *root, as_profile_t *p)
{
    int64_t v;

    if (data_json_int(root, "group", 1, 1024, &v)) p->group = (int32_t)v;
    if (data_json_int(root, "head_dim", 1, 1024, &v)) p->head_dim = (int32_t)v;
    if (data_json_int(root, "row_grain", 1, DATA_ROW_ALIGN, &v)) {
        p->row_grain = (int32_t)v;
        if (DATA_ROW_ALIGN % v != 0)
            data_json_fault(root, BASE_MSG_DATA_04, "row_grain",
                            "is %" PRId64 ", want a divisor of %d", v, DATA_ROW_ALIGN);
    }
    if (data_json_int(root, "forward_idle_per_mille", 0, 1000, &v))
        p->idle_per_mille[AS_PROFILE_FORWARD] = (int32_t)v;
    if (data_json_int(root, "backward_idle_per_mille", 0, 1000, &v))
        p->idle_per_mille[AS_PROFILE_BACKWARD] = (int32_t)v;
    if (data_json_int(root, "task_forward_ps", 0, AS_PROFILE_MAX_PS, &v))
        p->task_ps[AS_PROFILE_FORWARD] = v;
    if (data_json_int(root, "task_backward_ps", 0, AS_PROFILE_MAX_PS, &v))
        p->task_ps[AS_PROFILE_BACKWARD] = v;
    if (data_json_has(root, "key_forward_ps") &&
        data_json_int(root, "key_forward_ps", 0, MAX_KEY_PS, &v))
        p->key_ps[AS_PROFILE_FORWARD] = v;
    if (data_json_has(root, "key_backward_ps") &&
        data_json_int(root, "key_backward_ps", 0, MAX_KEY_PS, &v))
        p->key_ps[AS_PROFILE_BACKWARD] = v;
}

/* `want` elements, or 2 to AS_PROFILE_MAX_POINTS when it is 0. Gives the number, 0 after a fault. */
static int32_t read_array(const data_json_object_t *root, const char *key, int32_t want,
                          int64_t max, int64_t *values)
{
    int64_t count;

    if (!data_json_array(root, key, &count)) return 0;
    if (want != 0 ? count != want : count < 2 || count > AS_PROFILE_MAX_POINTS) {
        data_json_fault(root, BASE_MSG_DATA_04, key,
                        "has %" PRId64 " elements, want as many as \"keys\", 2 to %d", count,
                        AS_PROFILE_MAX_POINTS);
        return 0;
    }
    for (int64_t i = 0; i < count; i++)
        if (!data_json_array_int(root, key, i, 1, max, &values[i])) return 0;
    return (int32_t)count;
}

static void read_points(const data_json_object_t *root, as_profile_t *p)
{
    p->num_points = read_array(root, "keys", 0, DATA_MAX_ROWS, p->keys);
    if (p->num_points == 0) return;
    if (p->keys[0] != DATA_ROW_ALIGN)
        data_json_fault(root, BASE_MSG_DATA_04, "keys", "begins with %" PRId64 ", want %d",
                        p->keys[0], DATA_ROW_ALIGN);
    for (int32_t i = 1; i < p->num_points; i++)
        if (p->keys[i] <= p->keys[i - 1])
            data_json_fault(root, BASE_MSG_DATA_04, "keys",
                            "has %" PRId64 " after %" PRId64 ", want ascending", p->keys[i],
                            p->keys[i - 1]);
    (void)read_array(root, "forward_ps", p->num_points, AS_PROFILE_MAX_PS,
                     p->tile_row_ps[AS_PROFILE_FORWARD]);
    (void)read_array(root, "backward_ps", p->num_points, AS_PROFILE_MAX_PS,
                     p->tile_row_ps[AS_PROFILE_BACKWARD]);
}

base_status_t as_profile_read(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                              as_profile_t *profile)
{
    as_profile_t p = {0};
    data_json_t *json = NULL;
    const base_status_t st = data_json_read(ctx, path, MAX_FILE_BYTES, errors, &json);

    if (st < 0) return st == BASE_ERR_FORMAT ? data_errors_finish(errors) : st;
    const data_json_object_t root = data_json_root(json);

    read_words(&root, &p);
    read_numbers(&root, &p);
    read_points(&root, &p);
    data_json_close(json);
    BASE_TRY(data_errors_finish(errors));
    *profile = p;
    return BASE_OK;
}

/* ==== writing ==== */

void as_profile_write(const as_profile_t *p, base_json_t *j)
{
    base_json_begin_object(j);
    base_json_put_string(j, "format", AS_PROFILE_FORMAT);
    base_json_put_string(j, "device", p->device);
    base_json_put_string(j, "origin", p->derived ? "derived" : "measured");
    base_json_put_string(j, "source", p->source);
    base_json_put_string(j, "dtype", p->dtype);
    base_json_put_int(j, "group", p->group);
    base_json_put_int(j, "head_dim", p->head_dim);
    base_json_put_int(j, "row_grain", p->row_grain);
    base_json_put_int(j, "forward_idle_per_mille", p->idle_per_mille[AS_PROFILE_FORWARD]);
    base_json_put_int(j, "backward_idle_per_mille", p->idle_per_mille[AS_PROFILE_BACKWARD]);
    base_json_put_ints(j, "keys", p->keys, p->num_points);
    base_json_put_ints(j, "forward_ps", p->tile_row_ps[AS_PROFILE_FORWARD], p->num_points);
    base_json_put_ints(j, "backward_ps", p->tile_row_ps[AS_PROFILE_BACKWARD], p->num_points);
    base_json_put_int(j, "task_forward_ps", p->task_ps[AS_PROFILE_FORWARD]);
    base_json_put_int(j, "task_backward_ps", p->task_ps[AS_PROFILE_BACKWARD]);
    base_json_put_int(j, "key_forward_ps", p->key_ps[AS_PROFILE_FORWARD]);
    base_json_put_int(j, "key_backward_ps", p->key_ps[AS_PROFILE_BACKWARD]);
    base_json_end(j);
}

/* ==== use ==== */

void as_profile_pairs(as_profile_t *profile)
{
    *profile = (as_profile_t){.device = "any",
                              .source = "pairs",
                              .dtype = "any",
                              .derived = 1,
                              .group = 1,
                              .head_dim = 1,
                              .row_grain = DATA_ROW_ALIGN,
                              .num_points = 2,
                              .keys = {DATA_ROW_ALIGN, 2 * DATA_ROW_ALIGN},
                              .tile_row_ps = {{1000, 2000}, {1000, 2000}}};
}

int64_t as_profile_tile_row_ps(const as_profile_t *p, int direction, int64_t keys)
{
    const int64_t *ps = p->tile_row_ps[direction];
    int32_t i = 1;

    while (i < p->num_points - 1 && keys > p->keys[i])
        i++;
    /* (keys - k0) * (t1 - t0) may pass 63 bits: whole steps first. */
    const int64_t k0 = p->keys[i - 1], step = p->keys[i] - k0, rise = ps[i] - ps[i - 1];
    const int64_t at = keys - k0;
    int64_t whole, t;

    if (__builtin_mul_overflow(at, rise / step, &whole) ||
        __builtin_add_overflow(ps[i - 1] + at * (rise % step) / step, whole, &t))
        return (at > 0) == (rise > 0) ? AS_PROFILE_TOO_LONG : 0;
    return t > 0 ? t : 0;
}
