/* The attention seam alone: every rank fills its rows of q, k, v and d_o with values that depend on
 * the document, its row and the layer only, runs the static program without dense layers, and puts
 * its rows of o, lse, dq, dk, dv into arrays in document order. Two cases with the same documents
 * can then be compared bit by bit, whatever ranks, cuts and servers they had. */
#ifndef CADRE_TESTS_SUPPORT_SEAM_CASE_H
#define CADRE_TESTS_SUPPORT_SEAM_CASE_H

#include "attention_server/attention.h"
#include "comm/threads.h"

#define SEAM_MAX_DOCUMENTS 16

typedef enum seam_plan {
    SEAM_PLAN_UNCUT,
    SEAM_PLAN_RANDOM,
    SEAM_PLAN_TOKEN,
    SEAM_PLAN_OWN_SERVER /* uncut; trainer t's tasks on server t mod servers, all retained */
} seam_plan_t;

typedef struct seam_case {
    /* what is computed */
    kern_dtype_t dtype;
    int32_t num_q_heads, num_kv_heads, head_dim, num_layers;
    int64_t window; /* of every second layer; 0: all layers full */
    int32_t num_documents;
    int64_t rows[SEAM_MAX_DOCUMENTS];
    int32_t adapter[SEAM_MAX_DOCUMENTS];
    /* where */
    as_placement_t placement;
    int32_t num_ranks, servers_per_host;
    const int32_t *rank_host; /* NULL: one host */
    base_device_kind_t device;
    seam_plan_t plan;
    uint64_t cut_seed, assign_seed, device_seed;
    int32_t sums_per_server;  /* as_attention_config_t */
    int32_t bf16_values;      /* inputs are numbers that bf16 has, whatever the dtype */
    int32_t num_microbatches; /* the same documents again, with other servers */
    int64_t delay_ns;
    int32_t slow_rank; /* sleeps before each serve; -1: none */
    int64_t slow_ns;
} seam_case_t;

/* What a case contained, counted on rank 0: a property test that never meets one of these proves
 * less than it says. */
typedef struct seam_facts {
    int64_t spanning;        /* documents in both halves */
    int64_t on_all_trainers; /* documents on every trainer, of several */
    int64_t idle_trainers;   /* trainers without a row of any document */
    int64_t pad_rows;
    int64_t tasks, remote, head_cut, off_grid; /* off_grid: q0 is no multiple of 128 */
    int64_t retained, resent;                  /* remote tasks */
    int64_t windowed;                          /* tasks whose keys begin behind the document's */
} seam_facts_t;

/* Arrays in document order: [layer][row][heads x dim], dtype of the case; lse in its acc dtype. */
typedef struct seam_result {
    int64_t total_rows, element_bytes, lse_bytes;
    int64_t o_elements, lse_elements, kv_elements; /* of o and dq; lse; dk and dv */
    void *o, *lse, *dq, *dk, *dv;
    /* requests for memory in the last microbatch, summed over ranks (same plan as before) */
    int64_t steady_allocations;
    seam_facts_t facts;
    /* as_attention_stats of the last microbatch, summed over ranks, and what the plans hold */
    int64_t served, served_local, planned, planned_local, sent_bytes;
    base_error_t error;
} seam_result_t;

/* Runs it. On failure result->error says why. The caller frees the result. */
base_status_t seam_case_run(const seam_case_t *c, seam_result_t *result);
void seam_result_free(seam_result_t *result);

/* ||a - b|| / ||b|| over `count` elements of so many bytes (8: double, 4: float, 2: bf16). */
double seam_distance(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes, int64_t count);

#endif
