#include "trainer/simulate/draw_samples.h"

#include "base/philox.h"

#include <math.h>

static const struct {
    double median, sigma;
} datasets[] = {{460.0, 0.5}, {860.0, 0.5}, {1500.0, 0.6}};
enum { NUM_DATASETS = sizeof datasets / sizeof datasets[0] };

const char *tr_samples_name(tr_samples_t samples)
{
    static const char *const names[TR_NUM_SAMPLES] = {"xsum", "cnn", "wikisum", "mix", "het"};

    return names[samples];
}

int64_t tr_draw_sample(tr_samples_t samples, uint64_t seed, int32_t adapter, uint32_t index)
{
    const base_philox_key_t key = base_philox_key(seed);
    const uint32_t who = (uint32_t)adapter;
    double normal[2];

    if (samples == TR_SAMPLES_HET) samples = (tr_samples_t)(adapter % (int32_t)TR_SAMPLES_HET);
    if (samples == TR_SAMPLES_MIX) {
        const base_philox_t r = base_philox(key, index, who, 1, 0);

        samples = (tr_samples_t)base_philox_below(r.word[0], r.word[1], NUM_DATASETS);
    }
    base_philox_normal2(base_philox(key, index, who, 0, 0), normal);
    const double rows = datasets[samples].median * exp(datasets[samples].sigma * normal[0]);

    if (rows < 1.0) return 1;
    return rows > TR_SAMPLES_LONGEST ? TR_SAMPLES_LONGEST : (int64_t)rows;
}
