#include "lora/adapter_init.h"

#include "base/philox.h"

#include <math.h>
#include <string.h>

static void draw_a(const lora_module_t *m, int64_t index, int32_t rank, lora_init_t kind,
                   uint64_t seed, double *a)
{
    const base_philox_key_t key = base_philox_key(seed);
    const double bound = 1.0 / sqrt((double)m->in);
    const int64_t count = rank * m->in;

    for (int64_t i = 0; i < count; i += 2) {
        const uint64_t pair = (uint64_t)i / 2;
        const base_philox_t r = base_philox(key, (uint32_t)(pair & 0xffffffffu),
                                            (uint32_t)(pair >> 32), (uint32_t)index, 0x41u);
        double two[2];

        if (kind == LORA_INIT_GAUSSIAN) {
            base_philox_normal2(r, two);
            two[0] /= rank;
            two[1] /= rank;
        } else {
            two[0] = bound * (2.0 * base_philox_double(r.word[0], r.word[1]) - 1.0);
            two[1] = bound * (2.0 * base_philox_double(r.word[2], r.word[3]) - 1.0);
        }
        a[i] = two[0];
        if (i + 1 < count) a[i + 1] = two[1];
    }
}

void lora_adapter_init(const lora_layout_t *layout, lora_init_t kind, uint64_t seed, double *values)
{
    memset(values, 0, (size_t)layout->count * sizeof *values);
    for (int64_t m = 0; m < layout->num_modules; m++)
        draw_a(&layout->modules[m], m, layout->rank, kind, seed, values + layout->modules[m].a);
}
