#include "tests/gpu/attention_try.h"

#include "tests/gpu/checked_ops.h"

#include <string.h>

static const tr_attention_ops_t PRODUCT = {"product", checked_attention_fwd, checked_attention_bwd,
                                           kern_attention_bwd_workspace},
                                PLAIN = {"mma", checked_attention_fwd_mma,
                                         checked_attention_bwd_mma, kern_attention_bwd_workspace};
static const tr_attention_ops_t *const ALL[] = {&PRODUCT, &PLAIN};

const tr_attention_ops_t *const *gpu_attention_ops(int *count)
{
    *count = sizeof ALL / sizeof ALL[0];
    return ALL;
}

const tr_attention_ops_t *gpu_attention_ops_find(const char *name)
{
    for (size_t i = 0; i < sizeof ALL / sizeof ALL[0]; i++)
        if (strcmp(ALL[i]->name, name) == 0) return ALL[i];
    return NULL;
}
