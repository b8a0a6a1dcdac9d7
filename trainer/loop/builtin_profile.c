#include "trainer/loop/builtin_profile.h"

#include "data/batch.h"
#include "trainer/simulate/derived_profile.h"

#define CPU_LANES  (INT64_C(4) * 128) /* of the measurement: query heads times lanes */
#define H200_LANES 128                /* its query heads are looked after there */

/* Ascending keys; picoseconds of a tile row. */
static const int64_t cpu_points[][1 + AS_PROFILE_DIRECTIONS] = {
    {128, 385047000, 835967334},     {256, 949782000, 1973310666},
    {512, 1857492000, 3963032333},   {1024, 3757143333, 8018288333},
    {2048, 7687761000, 15959465666}, {3968, 15836378666, 30967816000},
};
#define CPU_TASK_FORWARD_PS  79649000
#define CPU_TASK_BACKWARD_PS 62212000
#define CPU_FORWARD_IDLE     717
#define CPU_BACKWARD_IDLE    917

static void scale(as_profile_t *p, int64_t by, int64_t over)
{
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
        for (int32_t i = 0; i < p->num_points; i++) {
            const int64_t ps = p->tile_row_ps[d][i] / over * by;

            p->tile_row_ps[d][i] = ps > 0 ? ps : 1;
        }
}

static void cpu_profile(int32_t group, int32_t head_dim, as_profile_t *p)
{
    *p = (as_profile_t){
        .device = "a CPU",
        .source = "built in, from docs/measurements/2026-11-22-planner",
        .dtype = "fp32",
        .derived = 1,
        .row_grain = 1,
        .idle_per_mille = {CPU_FORWARD_IDLE, CPU_BACKWARD_IDLE},
        .num_points = sizeof cpu_points / sizeof cpu_points[0],
        .task_ps = {CPU_TASK_FORWARD_PS, CPU_TASK_BACKWARD_PS},
    };
    for (int32_t i = 0; i < p->num_points; i++) {
        p->keys[i] = cpu_points[i][0];
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
            p->tile_row_ps[d][i] = cpu_points[i][1 + d];
    }
    scale(p, (int64_t)group * head_dim, CPU_LANES);
}

void tr_builtin_profile(kern_dtype_t dtype, int32_t group, int32_t head_dim, as_profile_t *profile)
{
    if (dtype == KERN_BF16) {
        tr_derived_h200(group, profile);
        scale(profile, head_dim, H200_LANES);
    } else {
        cpu_profile(group, head_dim, profile);
    }
    profile->group = group;
    profile->head_dim = head_dim;
}
