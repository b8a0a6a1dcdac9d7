/* Attention profile: how long a device takes for core attention, as a file.
 *
 * The time of a CA-task is, for each of its KV heads, the sum over its tile rows of the time of one
 * tile row and what its keys take once, however few rows see them; and a constant per task. What keys take
 * is counted in tiles of KERN_ATTENTION_TILE: a kernel fetches them for the task, and stores their gradients.
 * A tile row is KERN_ATTENTION_TILE query rows, on the
 * document's grid, of all query heads of one KV head; its time depends on the number of keys it
 * sees and is interpolated linearly between the points of the profile. Of a tile row that a task
 * holds in part, rows are charged in multiples of row_grain, and of the rest the part `idle` that
 * the kernel spends on rows that are not there: a kernel that packs the query heads of a KV head
 * into its tiles has row_grain 128 / group and idle 0, one that computes zero-filled tiles has an
 * idle of up to 1. Times are those of a device kept busy: its total time for many tasks divided by
 * their tile rows.
 *
 * The file is JSON; all keys but the last two are needed and no others are read:
 *
 *   {
 *     "format": "cadre-attention-profile-1",
 *     "device": "NVIDIA H200",              text, for reports
 *     "origin": "measured",                 or "derived": computed from figures of somebody else
 *     "source": "cadre bench profile ...",  the command, or where the figures are from
 *     "dtype": "bf16",                      text, for reports
 *     "group": 4,                           query heads of a KV head
 *     "head_dim": 128,
 *     "row_grain": 32,                      a divisor of 128
 *     "forward_idle_per_mille": 0,          0 to 1000
 *     "backward_idle_per_mille": 0,
 *     "keys": [128, 1024, 32768],           ascending, 2 to 32 points, the first 128
 *     "forward_ps": [...],                  time of a tile row that sees so many keys, picoseconds
 *     "backward_ps": [...],
 *     "task_forward_ps": 2000000,           time of a task beside its tile rows
 *     "task_backward_ps": 5000000,
 *     "key_forward_ps": 0,                  time of each 128 keys of a task; these two may be
 *     "key_backward_ps": 60000              missing, which is 0
 *   }
 *
 * Beyond the last point the last two are continued. Errors: IO-01, IO-03 when the file cannot be
 * read; DATA-02 to DATA-04 as in data/json_read.h (BASE_ERR_FORMAT), all in one pass. */
#ifndef CADRE_ATTENTION_SERVER_COST_PROFILE_H
#define CADRE_ATTENTION_SERVER_COST_PROFILE_H

#include "base/config/error_list.h"
#include "base/context.h"
#include "base/json_write.h"

#ifdef __cplusplus
extern "C" {
#endif

#define AS_PROFILE_FORMAT     "cadre-attention-profile-1"
#define AS_PROFILE_MAX_POINTS 32
#define AS_PROFILE_TEXT_BYTES 256
/* No tile row and no task takes longer: keeps the sums of a microbatch in 63 bits. */
#define AS_PROFILE_MAX_PS (INT64_C(1) << 48)

enum { AS_PROFILE_FORWARD, AS_PROFILE_BACKWARD, AS_PROFILE_DIRECTIONS };

typedef struct as_profile {
    char device[AS_PROFILE_TEXT_BYTES], source[AS_PROFILE_TEXT_BYTES];
    char dtype[16];
    int32_t derived; /* 1: not measured on the device */
    int32_t group, head_dim, row_grain;
    int32_t idle_per_mille[AS_PROFILE_DIRECTIONS];
    int32_t num_points;
    int64_t keys[AS_PROFILE_MAX_POINTS];
    int64_t tile_row_ps[AS_PROFILE_DIRECTIONS][AS_PROFILE_MAX_POINTS];
    int64_t task_ps[AS_PROFILE_DIRECTIONS];
    int64_t key_ps[AS_PROFILE_DIRECTIONS]; /* of a tile of keys */
} as_profile_t;

/* Reads and checks a file; every fault goes to `errors` (borrowed) and the first is recorded. */
base_status_t as_profile_read(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                              as_profile_t *profile) BASE_MUST_CHECK;
/* Writes the profile as one JSON object, which as_profile_read takes. */
void as_profile_write(const as_profile_t *profile, base_json_t *json);

/* Every pair costs the same: one nanosecond for a tile of 128 x 128 pairs. For callers that have no
 * profile; balances pairs instead of time. */
void as_profile_pairs(as_profile_t *profile);

/* Picoseconds of one tile row of one KV head that sees `keys` keys; AS_PROFILE_TOO_LONG when they
 * are more than 63 bits hold. */
#define AS_PROFILE_TOO_LONG (INT64_MAX / 2)
int64_t as_profile_tile_row_ps(const as_profile_t *profile, int direction, int64_t keys);

#ifdef __cplusplus
}
#endif
#endif
