/* A document on which core attention is tried: whole, or cut into tasks, with every task's memory
 * of its own.
 *
 * Host arrays hold doubles, in the layouts T rows, G KV heads, R heads each, D:
 *   q, dq (G, T, R, D)   k, v, dk, dv (G, T, D)   o, d_o (T, G R D)   lse, delta (G, T, R)
 * attention_doc_run gives each task copies of exactly the rows that it may read, NaN between the
 * copies, and gathers what the tasks return; dk and dv are the sums over tasks in the order of the
 * list. */
#ifndef CADRE_TESTS_SUPPORT_ATTENTION_DOC_H
#define CADRE_TESTS_SUPPORT_ATTENTION_DOC_H

#include "tests/support/op_fixture.h"

#include "kernels/cases/op_cases.h"

typedef struct attention_doc {
    op_fixture_t *fx;
    kern_dtype_t dtype;
    int64_t T, W;
    int32_t G, R, D;
    double scale;
    double *q, *k, *v, *d_o;                /* given */
    double *o, *lse, *delta, *dq, *dk, *dv; /* results */
} attention_doc_t;

/* Rows [row0, row0 + rows) and KV heads [head0, head0 + heads). */
typedef struct attention_cut {
    int64_t row0, rows;
    int32_t head0, heads;
} attention_cut_t;

/* Random values, rounded to dtype. */
attention_doc_t attention_doc(op_fixture_t *fx, const kern_case_attention_t *c, kern_dtype_t dtype);
void attention_doc_end(attention_doc_t *doc);

int64_t attention_doc_q_count(const attention_doc_t *doc);   /* q, dq, o, d_o */
int64_t attention_doc_kv_count(const attention_doc_t *doc);  /* k, v, dk, dv */
int64_t attention_doc_lse_count(const attention_doc_t *doc); /* lse, delta */

/* Forward (o, lse), and with `backward` also delta, dq, dk, dv. */
void attention_doc_run(attention_doc_t *doc, const attention_cut_t *cuts, int num_cuts,
                       int backward);
void attention_doc_run_whole(attention_doc_t *doc, int backward);

/* The same by the definition, O(T^2) in double. */
void attention_doc_reference(attention_doc_t *doc);

#endif
