/* Initial values of an adapter: B = 0, and A as PEFT draws it.
 *
 *   kaiming   uniform in +-1/sqrt(in), which is kaiming_uniform_ with a = sqrt(5)
 *   gaussian  normal with deviation 1/rank
 *
 * Element i of A of module m is a pure function of (seed, m, i), drawn in double: the same on every
 * rank and machine, not the same numbers as PEFT's generator gives. Philox 4x32-10 with key {low,
 * high word of seed}, counter {low, high word of i / 2 (two normals) or i / 2 (two uniforms), m,
 * 0x41}. */
#ifndef CADRE_LORA_ADAPTER_INIT_H
#define CADRE_LORA_ADAPTER_INIT_H

#include "lora/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lora_init { LORA_INIT_KAIMING, LORA_INIT_GAUSSIAN } lora_init_t;

/* layout->count doubles. */
void lora_adapter_init(const lora_layout_t *layout, lora_init_t kind, uint64_t seed,
                       double *values);

#ifdef __cplusplus
}
#endif
#endif
