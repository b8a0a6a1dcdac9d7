/* State of the horizon. Private to horizon.c and horizon_pack.c. */
#ifndef CADRE_TRAINER_LOOP_HORIZON_STATE_H
#define CADRE_TRAINER_LOOP_HORIZON_STATE_H

#include "lora/pack_process.h"
#include "lora/packer.h"
#include "trainer/loop/horizon.h"

/* Of a job; with `taken` all that is saved. */
typedef struct tr_horizon_job {
    int64_t cursor;    /* number in its order of the first document of the batch at work */
    int64_t step;      /* batches whose documents are all planned */
    int64_t documents; /* planned */
    int64_t eval_next; /* next document of the evaluation at hand; -1: none */
    int64_t state;     /* tr_job_state_t; DONE when all its steps and evaluations are planned */
} tr_horizon_job_t;

/* The batch at work: what follows from cursor and `taken`. */
typedef struct tr_horizon_batch {
    int64_t first; /* of its max_count entries in `taken` and `documents` */
    int64_t max_count;
    int64_t count, left; /* documents; of those, in no microbatch yet */
    int64_t rows, left_rows, supervised;
} tr_horizon_batch_t;

struct tr_horizon {
    base_ctx_t *ctx;
    int32_t num_jobs;
    tr_job_t *const *jobs;
    int64_t rank_columns;
    int exact;    /* 1: lora_pack_process too */
    int64_t next; /* microbatch */
    tr_horizon_job_t *state;
    uint8_t *taken; /* [num_documents] of a batch at work: it is in a microbatch */
    tr_horizon_batch_t *batch;
    int64_t *documents;       /* [num_documents] of a batch at work: its index in the dataset */
    int64_t num_documents;    /* of all batches at most */
    int64_t *eval_supervised; /* [num_jobs] of all documents of an evaluation */

    /* packing, of the microbatch at hand */
    lora_packer_t *packer;
    int32_t *order; /* [num_jobs] least far first */
    int64_t *far;   /* [num_jobs] */
    uint8_t *admitted, *in_lot;
    int64_t columns; /* that are left */
    lora_window_t window;
    lora_window_adapter_t *adapters;
    lora_window_batch_t *batches;
    int64_t *rows, *supervised; /* [num_documents] */
    int64_t *room;              /* [num_documents] what they take of the capacity */
    int32_t *microbatch;        /* [num_documents] the schedule */
    int32_t *window_job;        /* [num_jobs] job of a window's adapter */
    int64_t *place;             /* [num_documents] in `taken` */
    int32_t exactly[LORA_PACK_PROCESS_DOCUMENTS]; /* the schedule of the exact packer */
};

/* Fills the lot from the batches at work and notes what was taken; in_lot says of whom. There is a
 * job to train. */
base_status_t tr_horizon_pack(tr_horizon_t *h, tr_lot_t *lot) BASE_MUST_CHECK;

/* It has a batch at work. */
static inline int tr_horizon_trains(const tr_horizon_t *h, int32_t j)
{
    return h->state[j].state == TR_JOB_RUNNING && h->batch[j].left > 0;
}

#endif
