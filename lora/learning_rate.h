/* The learning rate of each optimizer step, as transformers' get_*_schedule_with_warmup: with n
 * steps in all, w of warm-up, and i steps done,
 *
 *   i < w     i / max(1, w)                                       (the first step has rate 0)
 *   constant  1
 *   linear    (n - i) / max(1, n - w)
 *   cosine    (1 + cos(pi (i - w) / max(1, n - w))) / 2
 *
 * times the highest rate; never below 0. */
#ifndef CADRE_LORA_LEARNING_RATE_H
#define CADRE_LORA_LEARNING_RATE_H

#include "base/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Steps of warm-up: warmup_steps, or ceil(warmup_ratio total). */
int64_t lora_learning_rate_warmup(const base_config_adapter_t *config, int64_t total_steps);

/* The rate of the step that is made when `done` steps are done. */
double lora_learning_rate_at(base_config_schedule_t schedule, double highest, int64_t done,
                             int64_t warmup, int64_t total_steps);

#ifdef __cplusplus
}
#endif
#endif
