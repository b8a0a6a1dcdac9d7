/* The whole model in one call: seeded documents, packed, planned, run on R ranks (threads of this
 * process), and what came out: losses, all gradients, final hidden states in document order, and a
 * hash of all their bits. Two results of the same documents and model compare bit by bit
 * (model_result_same) or by norm (model_distance), whoever computed what.
 *
 *   model_documents_t docs;
 *   const model_documents_options_t o = {.seed = 7, .count = 5, .vocab = 61, .adapters = 2};
 *   model_documents_random(&o, &docs);
 *   model_case_t c = model_case_default(&docs);           one rank, cpu, double, two layers
 *   c.num_ranks = 3, c.placement = AS_POOL, c.servers_per_host = 1, c.plan = my_plan;
 *   model_result_t r;
 *   if (model_case_run(&c, &r) < 0) print r.error.text
 *   model_result_free(&r);
 *   model_documents_free(&docs);
 *
 * Memory of documents and results is malloc's; that of a run is counted in the ranks' contexts. */
#ifndef CADRE_TESTS_SUPPORT_MODEL_CASE_H
#define CADRE_TESTS_SUPPORT_MODEL_CASE_H

#include "comm/threads.h"
#include "trainer/loop/gradients.h"
#include "trainer/loop/microbatch.h"

/* ==== documents ==== */

typedef struct model_documents {
    int32_t count, adapters, vocab;
    data_document_t *list;
    int32_t *tokens; /* of all, one after the other: list[i].tokens points in here */
    uint8_t *masks;
} model_documents_t;

typedef struct model_documents_options {
    uint64_t seed;
    int32_t count, vocab, adapters;
    int64_t min_rows, max_rows; /* 0: 1 and 2000 */
    int edges;                  /* 1: every second length is 1, 2, 127, 128, 129, 255, 256 or 257 */
} model_documents_options_t;

/* Tokens from [1, vocab), so that token 0 is that of pad rows alone; about two rows of three are
 * supervised; row_weight is 1 / supervised tokens of the adapter. Aborts the test program when
 * there is no memory. */
void model_documents_random(const model_documents_options_t *options, model_documents_t *documents);
void model_documents_free(model_documents_t *documents);
/* A deep copy with the same row weights, to be changed. */
void model_documents_copy(const model_documents_t *from, model_documents_t *to);

/* ==== the case ==== */

/* Fills and finishes `plan` for one attention kind, as as_plan_token does. May be called from one
 * thread only. */
typedef base_status_t (*model_plan_fn)(void *user, int64_t window, const data_batch_t *batch,
                                       const as_topology_t *topology, as_plan_t *plan);
/* Fills and finishes `batch` with documents [first, first + count), as lora_pack_fast does. */
typedef base_status_t (*model_layout_fn)(void *user, const model_documents_t *documents,
                                         int32_t first, int32_t count, int32_t num_trainers,
                                         data_batch_t *batch);
/* May change a weight (rows x cols doubles) before the first microbatch: returns 1 if it did.
 * Called on every trainer's thread. */
typedef int (*model_weight_fn)(void *user, const tr_weight_spec_t *spec, double *values);

typedef struct model_case {
    /* what is computed */
    const model_documents_t *documents;
    tr_model_config_t model;
    uint64_t weight_seed;
    int32_t documents_per_microbatch; /* 0: all in one */
    int32_t repeat;                   /* the microbatches so many times over; 0: once */
    model_weight_fn change;
    tr_recompute_t recompute;
    /* where */
    as_placement_t placement; /* AS_LOCAL packs whole documents */
    int32_t num_ranks, servers_per_host;
    base_device_kind_t device;
    uint64_t device_seed;
    int64_t delay_ns, deadline_ms;
    int64_t tokens_per_trainer; /* 0: the least that fits */
    model_layout_fn layout;     /* NULL: lora_pack_fast */
    model_plan_fn plan;         /* NULL: as_plan_token */
    int32_t retain;             /* for as_plan_token */
    int32_t sums_per_server;    /* as_attention_config_t */
    void *user;                 /* for change, layout and plan */
} model_case_t;

/* One rank in place on the cpu device, double, 2 layers (the second with a window of 100), GQA 4:2,
 * extra columns 64. */
model_case_t model_case_default(const model_documents_t *documents);

typedef struct model_result {
    int32_t num_documents, adapters, num_weights;
    double *losses; /* [adapters] weighted sums */
    double loss;    /* their sum */
    int64_t num_parameters;
    int64_t *weight_at; /* [num_weights + 1] where a weight's gradient begins in `gradients` */
    char (*names)[TR_WEIGHT_NAME_BYTES]; /* [num_weights] */
    double *gradients;                   /* [num_parameters], summed over trainers */
    int64_t hidden_cols;
    int64_t *document_at;  /* [documents + 1] first row of a document in `hidden` */
    double *hidden;        /* [all rows][hidden_cols] final normed states */
    uint64_t hash;         /* of losses, gradients, hidden */
    int64_t pad_rows;      /* of all microbatches */
    int64_t late_requests; /* for memory, by tr_microbatch_run after the second call; all ranks */
    base_error_t error;    /* when the run failed */
} model_result_t;

/* Runs it and checks on the way that all trainers end with the same bits of losses and gradients
 * (BASE_ERR_MISMATCH) and that nothing outlives the ranks (BASE_ERR_INTERNAL). On failure the
 * result holds the error alone. Free it either way. */
base_status_t model_case_run(const model_case_t *c, model_result_t *result);
void model_result_free(model_result_t *result);

/* 1 when losses, gradients and hidden states have the same bits; else 0, and `what` (of `bytes`
 * bytes) names the first difference. */
int model_result_same(const model_result_t *a, const model_result_t *b, char *what, size_t bytes);

/* ||a - b|| / ||b||, or ||a|| when b is zero; infinite when one of them holds a NaN. */
double model_distance(const double *a, const double *b, int64_t count);
/* The largest distance over losses (together), every weight's gradient, and hidden states. */
double model_result_distance(const model_result_t *a, const model_result_t *b, char *what,
                             size_t bytes);

#endif
