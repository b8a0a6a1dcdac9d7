/* A batch of documents on which the CUDA attention ops are tried, and the ways to cut and place
 * it.
 *
 * Master tensors hold each document whole; a run copies what each task may read into pools whose
 * every other byte is NaN, calls the ops, gathers the results and sees that nothing else was
 * written. */
#ifndef CADRE_TESTS_GPU_ATTENTION_CASE_CUH
#define CADRE_TESTS_GPU_ATTENTION_CASE_CUH

#include "tests/gpu/attention_reference.cuh"
#include "tests/gpu/attention_try.h"
#include "tests/gpu/gpu_fixture.cuh"

#include "kernels/op.h"

#include <vector>

struct attention_shape {
    int G, R, D;
    int64_t window;
    double scale;
    float q_deviation; /* 1: soft rows; more: peaked ones */
};

/* Results of one run in the layouts of attention_reference.cuh; dk, dv summed over tasks. */
struct attention_results {
    __nv_bfloat16 *o, *dq, *dk, *dv;
    float *lse;
};

struct attention_document {
    int64_t T, q_begin;
    reference_doc reference; /* inputs and the definition's results */
    float *delta;            /* of the ops, (G, nq, R) */
    attention_results results[2];
};

/* Rows [row0, row0 + rows) and heads [head0, head0 + heads) of a document; where its pieces are. */
struct attention_cut {
    int document;
    int64_t row0, rows, kv_row0;
    int head0, heads;
};

struct attention_bench; /* pools and master memory, made once */
/* ops: what is tried as "the ops" (attention_try.h); borrowed. */
attention_bench *attention_bench_make(gpu_fixture *fx, const tr_attention_ops_t *ops);
void attention_bench_free(attention_bench *bench);

/* Documents of {T, q_begin} with random contents; replaces those before. False: too large for
 * the memory. */
bool attention_documents(attention_bench *bench, const attention_shape &shape,
                         const std::vector<std::pair<int64_t, int64_t>> &documents, uint64_t seed);
/* What runs: the ops, with or without a workspace, or their kernels on mma.sync. */
enum class attention_kernels { op, op_without_workspace, mma };
void attention_choose(attention_bench *bench, attention_kernels kernels);
/* Every backward once, without comparison of real tasks, whose dk and dv are then no results: for tools
 * under which it takes long. */
void attention_once(attention_bench *bench);
std::vector<attention_document> &attention_documents_of(attention_bench *bench);
/* The definition of every document: forward, and then backward from the ops' own delta or from
 * the exact one. */
void attention_run_forward(attention_bench *bench);
void attention_run_backward(attention_bench *bench, bool given_delta);

/* The lowest kv_row0 that a task may have at most, and what a task's pieces take. */
int64_t attention_kv_limit(const attention_shape &shape, int64_t row0);
std::vector<attention_cut> attention_whole(const attention_bench *bench);
std::vector<attention_cut> attention_random_cuts(const attention_bench *bench, uint64_t *seed);

/* Runs all cuts in `calls` calls of each op into results[slot]; some tasks are `real` in the backward
 * and run once more as they are not. Returns the number of bytes written where nothing belongs (in units of 16), and of
 * elements of dk and dv that real tasks had other than a sum of the others rounds to. */
int64_t attention_run(attention_bench *bench, const std::vector<attention_cut> &cuts, int calls,
                      int slot, uint64_t *seed);

#endif
