/* A document, its definition's results and the ops', as a file that attention_accuracy.py holds to
 * cuDNN's on the same input. */
#ifndef CADRE_TESTS_GPU_ATTENTION_DUMP_CUH
#define CADRE_TESTS_GPU_ATTENTION_DUMP_CUH

#include "tests/gpu/attention_case.cuh"

/* Runs documents of `rows` rows, head dims 64 and 128, 2 KV heads with 4 query heads each, random
 * normal values, and writes FOLDER/64.bin and FOLDER/128.bin:
 *   int64 T, G, R, D
 *   bf16 q (G, T, R, D), k, v (G, T, D), d_o (T, G, R, D)
 *   bf16 o (as d_o), dq (as q), dk, dv (as k), of the ops
 *   double the same four, of the exact forward and its gradient */
void attention_dump(gpu_fixture *fx, const tr_attention_ops_t *ops, int64_t rows,
                    const char *folder);

#endif
