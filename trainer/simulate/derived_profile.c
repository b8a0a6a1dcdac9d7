#include "trainer/simulate/derived_profile.h"

#include "data/batch.h"

/* Of 4 query heads of 128 lanes: causal attention of n tile rows takes n a + 128 b n (n + 1) / 2. */
#define FORWARD_A_PS  151600
#define FORWARD_B_FS  370300 /* femtoseconds a key */
#define BACKWARD_A_PS 633000
#define BACKWARD_B_FS 1085100
#define FIT_GROUP     4

void tr_derived_h200(int32_t group, as_profile_t *profile)
{
    static const int64_t keys[] = {DATA_ROW_ALIGN, 2048, 32768, 524288};
    as_profile_t p = {
        .device = "NVIDIA H200",
        .source = "cuDNN 9.19 on H200 (cudnn-frontend, llama3.1, 2 k and 32 k)",
        .dtype = "bf16",
        .derived = 1,
        .group = group,
        .head_dim = 128,
        .row_grain = group <= DATA_ROW_ALIGN && DATA_ROW_ALIGN % group == 0 ? DATA_ROW_ALIGN / group
                                                                            : DATA_ROW_ALIGN,
        .num_points = sizeof keys / sizeof keys[0],
    };

    for (int32_t i = 0; i < p.num_points; i++) {
        p.keys[i] = keys[i];
        p.tile_row_ps[AS_PROFILE_FORWARD][i] =
            (FORWARD_A_PS + keys[i] * FORWARD_B_FS / 1000) * group / FIT_GROUP;
        p.tile_row_ps[AS_PROFILE_BACKWARD][i] =
            (BACKWARD_A_PS + keys[i] * BACKWARD_B_FS / 1000) * group / FIT_GROUP;
    }
    *profile = p;
}
