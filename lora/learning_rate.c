#include "lora/learning_rate.h"

#include <math.h>

int64_t lora_learning_rate_warmup(const base_config_adapter_t *config, int64_t total_steps)
{
    if (config->warmup_steps > 0) return config->warmup_steps;
    return (int64_t)ceil(config->warmup_ratio * (double)total_steps);
}

double lora_learning_rate_at(base_config_schedule_t schedule, double highest, int64_t done,
                             int64_t warmup, int64_t total_steps)
{
    static const double pi = 3.14159265358979323846;
    const int64_t rest = total_steps - warmup > 1 ? total_steps - warmup : 1;
    double factor = 1.0;

    if (done < warmup) return highest * (double)done / (double)(warmup > 1 ? warmup : 1);
    if (schedule == BASE_CONFIG_SCHEDULE_LINEAR)
        factor = (double)(total_steps - done) / (double)rest;
    if (schedule == BASE_CONFIG_SCHEDULE_COSINE)
        factor = 0.5 * (1.0 + cos(pi * (double)(done - warmup) / (double)rest));
    return highest * (factor > 0.0 ? factor : 0.0);
}
