/* Inside of attention_bench, for attention_case.cu (documents and cuts) and attention_run.cu
 * (placement and runs). */
#ifndef CADRE_TESTS_GPU_ATTENTION_BENCH_CUH
#define CADRE_TESTS_GPU_ATTENTION_BENCH_CUH

#include "tests/gpu/attention_case.cuh"

struct attention_bench {
    gpu_fixture *fx;
    attention_shape shape;
    base_buffer_t *master;
    int64_t master_used;
    std::vector<attention_document> documents;
    attention_kernels kernels;
    bool once;                     /* real tasks do not run a second time */
    const tr_attention_ops_t *ops; /* when kernels is not mma */
    gpu_pool q, o, d_o, dq, k, v, dk, dv, lse, delta, workspace;
    gpu_pool real[2],
        rounded[2]; /* dk, dv of tasks that are real; what a sum makes of them otherwise */

    std::vector<gpu_pool *> pools()
    {
        return {&q,   &o,     &d_o,       &dq,      &k,       &v,          &dk,        &dv,
                &lse, &delta, &workspace, &real[0], &real[1], &rounded[0], &rounded[1]};
    }
};

#endif
