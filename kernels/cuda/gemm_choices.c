/* Plans of products as bytes: what a run found by timing, for the next one. They hold for the same
 * kind of GPU and the same version of cuBLASLt only. */
#include "base/device/device_host.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/stream_state.h"

#include <stdio.h>
#include <string.h>

#define MAGIC UINT64_C(0x32544c42554344a7)

typedef struct choices_head {
    uint64_t magic, version;
    char device[64]; /* "NVIDIA H200" */
    int64_t count, plan_bytes;
} choices_head_t;

/* Without the number of the GPU: "cuda:0 NVIDIA H200". */
static choices_head_t head_of(const kern_gemm_plans_t *plans)
{
    choices_head_t head;
    const char *space = strchr(plans->device, ' ');

    memset(&head, 0, sizeof head);
    head.magic = MAGIC;
    head.version = plans->lt.cublasLtGetVersion();
    head.plan_bytes = (int64_t)sizeof(kern_gemm_plan_t);
    (void)snprintf(head.device, sizeof head.device, "%s", space == NULL ? "" : space + 1);
    return head;
}

base_status_t kern_cuda_gemm_search_new(base_stream_t *s, int on)
{
    kern_gemm_plans_t *plans = NULL;

    BASE_TRY(kern_cuda_gemm_plans(s, &plans));
    plans->search_new = on;
    return BASE_OK;
}

base_status_t kern_cuda_gemm_choices_save(base_stream_t *s, void *to, int64_t room, int64_t *bytes)
{
    kern_gemm_plans_t *plans = NULL;
    unsigned char *at = to;

    BASE_TRY(kern_cuda_gemm_plans(s, &plans));
    choices_head_t head = head_of(plans);
    for (int i = 0; i < KERN_GEMM_MAX_PLANS; i++)
        head.count += plans->plans[i].key.used != 0 && plans->plans[i].searched;
    const int64_t all = (int64_t)sizeof head + head.count * head.plan_bytes;
    if (head.count == 0) return BASE_OK;
    if (all > room)
        return BASE_FAIL(plans->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "gemm: %lld bytes of choices, room for %lld", (long long)all,
                         (long long)room);
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    for (int i = 0; i < KERN_GEMM_MAX_PLANS; i++) {
        if (plans->plans[i].key.used == 0 || !plans->plans[i].searched) continue;
        memcpy(at, &plans->plans[i], sizeof plans->plans[i]);
        at += sizeof plans->plans[i];
    }
    *bytes = all;
    return BASE_OK;
}

base_status_t kern_cuda_gemm_choices_load(base_stream_t *s, const void *from, int64_t bytes,
                                          int64_t *taken)
{
    kern_gemm_plans_t *plans = NULL;
    const unsigned char *at = from;
    choices_head_t head;

    BASE_TRY(kern_cuda_gemm_plans(s, &plans));
    const choices_head_t ours = head_of(plans);
    if (bytes < (int64_t)sizeof head) return BASE_OK;
    memcpy(&head, at, sizeof head);
    at += sizeof head;
    if (head.magic != ours.magic || head.version != ours.version ||
        head.plan_bytes != ours.plan_bytes ||
        memcmp(head.device, ours.device, sizeof head.device) != 0 || head.count < 0 ||
        head.count > KERN_GEMM_MAX_PLANS ||
        bytes != (int64_t)sizeof head + head.count * head.plan_bytes)
        return BASE_OK;
    for (int64_t i = 0; i < head.count; i++) {
        kern_gemm_plan_t plan;

        memcpy(&plan, at + i * head.plan_bytes, sizeof plan);
        *taken += kern_gemm_plan_put(plans, &plan);
    }
    return BASE_OK;
}
