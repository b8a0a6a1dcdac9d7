/* One rank that trains adapters, for tests of the whole of trainer/loop: a model (a folder, or a
 * spec with random weights), adapters with given values, and a body that runs on the rank's thread
 * and does what the test is about.
 *
 *   train_case_t c = {.folder = path, .dtype = KERN_F64, .num_adapters = 2, .adapters = options,
 *                     .values = values, .tokens_per_trainer = 1024, .longest = 300,
 *                     .body = body, .user = &results};
 *   train_case_run(&c);                                    fails the test when the rank fails
 *
 * A body returns a status; it must not use cmocka's assertions, which are the main thread's. What
 * it wants to have checked it leaves in `user`. With several ranks it runs on each of them. */
#ifndef CADRE_TESTS_SUPPORT_TRAIN_CASE_H
#define CADRE_TESTS_SUPPORT_TRAIN_CASE_H

#include "comm/mpi.h"
#include "data/hf_folder.h"
#include "trainer/loop/build.h"
#include "trainer/loop/train.h"

#define TRAIN_CASE_SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

struct train_case;

/* What a body finds. */
typedef struct train_rank {
    const struct train_case *c;
    base_ctx_t *ctx;
    const data_model_spec_t *spec;
    const data_hf_folder_t *folder; /* NULL with a spec */
    tr_trainer_t *trainer;          /* weights and adapters written, gradients zero */
    tr_lot_options_t lots;
} train_rank_t;

typedef base_status_t (*train_body_fn)(train_rank_t *rank, void *user);

typedef struct train_case {
    const char *folder;            /* of the base; or */
    const data_model_spec_t *spec; /* with random weights */
    uint64_t weight_seed;
    kern_dtype_t dtype;
    tr_recompute_t recompute;
    base_device_kind_t device;
    uint64_t device_seed;
    int32_t num_adapters;
    const lora_adapter_options_t *adapters;
    const double *const *values; /* [num_adapters]; NULL, or one of them: train_values */
    int32_t rank_columns;        /* 0: the sum of the ranks */
    int64_t tokens_per_trainer, longest;
    int num_ranks;               /* 0: one */
    comm_mpi_t *mpi;             /* num_ranks of its processes; NULL: threads */
    as_placement_t placement;    /* with AS_POOL one server */
    const double *server_speeds; /* NULL: all alike */
    int64_t retain_bytes;        /* what a server may keep for the backward; 0: 65536 */
    int serial;                  /* without ping-pong */
    int64_t delay_ns;            /* of every message */
    train_body_fn body;
    void *user;
} train_case_t;

void train_case_run(const train_case_t *c);

/* A, B of every module normal with deviations 1/sqrt(in) and `spread`: a pure function of seed and
 * place in the vector. */
void train_values(const lora_layout_t *layout, uint64_t seed, double spread, double *values);

/* ==== documents ==== */

/* Writes a dataset of `count` documents; mask[0] is taken as 0. */
base_status_t train_write_dataset(base_ctx_t *ctx, const char *path,
                                  const data_document_t *documents, int32_t count, int64_t vocab);

/* Adds a document from memory, which is borrowed, to a lot that has been begun. */
void train_lot_add(tr_lot_t *lot, const data_document_t *document);

/* Finishes the lot and runs it; or evaluates it. */
base_status_t train_lot_run(train_rank_t *rank, tr_lot_t *lot, int evaluate);

/* ==== jobs ==== */

#define TRAIN_LOG_STEPS 64

/* What a job did, by the events of tr_train_run. */
typedef struct train_log {
    int64_t steps;
    double loss[TRAIN_LOG_STEPS], norm[TRAIN_LOG_STEPS], rate[TRAIN_LOG_STEPS];
    int64_t microbatches; /* until its last step, evaluations included */
    int64_t
        late_requests; /* job 0: for memory, between microbatches after the second, events aside */
    tr_train_waits_t waits;               /* job 0: after the run */
    int64_t evaluations, best_evaluation; /* number of the best, from 0 */
    double evaluation[TRAIN_LOG_STEPS];
    int ended;
    tr_job_state_t state;
    double *gradient; /* of the first step, if not NULL: layout->count */
    double *final;    /* tr_train_values after the run, if not NULL */
} train_log_t;

/* Runs jobs on the datasets to their end; logs[j] belongs to job j, configs[j].data is a path. Of
 * several ranks the first one writes the logs. */
base_status_t train_run_jobs(train_rank_t *rank, const base_config_adapter_t *configs,
                             int32_t num_jobs, train_log_t *logs);

/* A job with the defaults of base/config: AdamW 0.9, 0.999, 1e-8, constant rate, file order. */
base_config_adapter_t train_config(const char *name, const char *data, int64_t steps, int64_t batch,
                                   double rate);

#endif
