/* A run's sequence of microbatches without a trainer: jobs on small datasets, a lot, and what was
 * planned so far, checked document by document. */
#ifndef CADRE_TESTS_SUPPORT_HORIZON_CASE_H
#define CADRE_TESTS_SUPPORT_HORIZON_CASE_H

#include "tests/support/job_fixture.h"

#include "trainer/loop/horizon.h"

#include <errno.h>

#define HORIZON_JOBS      4
#define HORIZON_DOCUMENTS 16 /* of each job's dataset */

typedef struct horizon_case {
    base_ctx_t *ctx;
    as_topology_t *topology;
    tr_lot_options_t lots;
    tr_lot_t *lot;
    tr_horizon_t *horizon;
    tr_entry_t entry;
    tr_entry_part_t parts[HORIZON_JOBS];
    base_config_adapter_t configs[HORIZON_JOBS];
    tr_job_t *jobs[HORIZON_JOBS];
    int64_t given[HORIZON_JOBS][HORIZON_DOCUMENTS]; /* times that a document was trained on */
    int64_t steps[HORIZON_JOBS], evaluations[HORIZON_JOBS];
    int64_t batch[HORIZON_JOBS]; /* documents of the batch at work that came */
    int64_t microbatches, rows;
    double spread; /* the largest distance of two running jobs, as a share of a run */
    uint64_t hash; /* of all of it, in order */
} horizon_case_t;

typedef struct horizon_options {
    as_placement_t placement;
    int32_t ranks;
    int64_t tokens, rank_columns;
    int64_t epochs[HORIZON_JOBS], batches[HORIZON_JOBS], adapter_ranks[HORIZON_JOBS];
    int64_t longest[HORIZON_JOBS]; /* rows; 0: 61 */
    int alike;                     /* 1: all documents have so many */
    int eval;                      /* 1: the first two jobs hold out three documents */
    int exact;                     /* 1: the exact packer too */
} horizon_options_t;

static inline void horizon_begin(horizon_case_t *c, const horizon_options_t *o)
{
    static const char *const names[HORIZON_JOBS] = {"a", "b", "c", "d"};
    static char paths[HORIZON_JOBS][64];

    memset(c, 0, sizeof *c);
    c->ctx = fixture_ctx();
    c->entry.parts = c->parts;
    assert_int_equal(as_topology_create(c->ctx, o->placement, o->ranks, NULL, 1, &c->topology),
                     BASE_OK);
    c->lots = (tr_lot_options_t){.plans = {.topology = c->topology,
                                           .dtype = KERN_F32,
                                           .group = 1,
                                           .head_dim = 16,
                                           .num_kv_heads = 2,
                                           .num_layers = 1,
                                           .num_kinds = 1,
                                           .tokens_per_trainer = o->tokens},
                                 .tokens = 1};
    assert_int_equal(tr_lot_create(c->ctx, &c->lots, NULL, &c->lot), BASE_OK);
    for (int32_t j = 0; j < HORIZON_JOBS; j++) {
        const int64_t longest = o->longest[j] > 0 ? o->longest[j] : 61;
        int64_t rows[HORIZON_DOCUMENTS];

        for (int d = 0; d < HORIZON_DOCUMENTS; d++)
            rows[d] = o->alike ? longest : 2 + (d * 37 + j * 11) % (longest - 1);
        /* Tests that run at the same time have files of their own. */
        (void)snprintf(paths[j], sizeof paths[j], "%s_%d.h5", program_invocation_short_name, j);
        job_dataset(c->ctx, paths[j], rows, HORIZON_DOCUMENTS);
        c->configs[j] = train_config(names[j], paths[j], 0, o->batches[j], 1e-3);
        c->configs[j].epochs = o->epochs[j];
        c->configs[j].rank = o->adapter_ranks[j];
        c->configs[j].order = BASE_CONFIG_ORDER_SHUFFLE;
        c->configs[j].seed = j;
        if (o->eval && j < 2) c->configs[j].eval_documents = 3;
        if (o->eval && j < 2) c->configs[j].eval_every_steps = 2 + j;
        c->jobs[j] = job_open(c->ctx, &c->configs[j]);
    }
    assert_int_equal(tr_horizon_create(c->ctx, c->jobs, HORIZON_JOBS, o->rank_columns, &c->horizon),
                     BASE_OK);
    tr_horizon_set_exact(c->horizon, o->exact);
}

static inline void horizon_end(horizon_case_t *c)
{
    tr_horizon_destroy(c->horizon);
    for (int32_t j = 0; j < HORIZON_JOBS; j++)
        tr_job_close(c->jobs[j]);
    tr_lot_destroy(c->lot);
    as_topology_destroy(c->topology);
    fixture_ctx_end(c->ctx);
}

static inline void horizon_note_spread(horizon_case_t *c)
{
    double low = 1.0, high = 0.0;

    for (int32_t j = 0; j < HORIZON_JOBS; j++) {
        const double far = (double)c->steps[j] / (double)c->jobs[j]->total_steps;

        if (c->steps[j] == c->jobs[j]->total_steps) continue;
        low = far < low ? far : low;
        high = far > high ? far : high;
    }
    if (high - low > c->spread) c->spread = high - low;
}

/* Documents of the lot, of one batch each; what is complete has all of its documents. */
static inline void horizon_check_training(horizon_case_t *c, int64_t rank_columns)
{
    int64_t ranks = 0;
    int32_t documents = 0;

    assert_true(c->lot->num_documents > 0);
    for (int32_t i = 0; i < c->entry.num_parts; i++) {
        const tr_entry_part_t *part = &c->entry.parts[i];
        const int32_t j = part->job, before = documents;

        assert_true(i == 0 || j > c->entry.parts[i - 1].job);
        ranks += c->configs[j].rank;
        for (int32_t d = 0; d < c->lot->num_documents; d++) {
            const data_document_t *doc = &c->lot->documents[d];

            if (doc->adapter != j) continue;
            assert_true(doc->row_weight == 1.0 / (double)part->batch_supervised);
            c->given[j][doc->index]++;
            c->batch[j]++;
            documents++;
        }
        assert_true(documents > before);
        assert_int_equal(part->completes, c->batch[j] == part->batch_documents);
        if (!part->completes) continue;
        c->steps[j]++;
        c->batch[j] = 0;
    }
    assert_int_equal(documents, c->lot->num_documents);
    if (rank_columns > 0) assert_true(ranks <= rank_columns);
    c->rows += c->lot->rows;
    horizon_note_spread(c);
}

/* 0: there is nothing left. */
static inline int horizon_step(horizon_case_t *c, int64_t rank_columns)
{
    assert_int_equal(tr_horizon_next(c->horizon, c->lot, &c->entry), BASE_OK);
    if (c->entry.kind == TR_ENTRY_END) return 0;
    assert_int_equal(c->entry.microbatch, c->microbatches);
    assert_int_equal(c->lot->batch->microbatch, c->microbatches++);
    c->hash = c->hash * 31 + data_batch_hash(c->lot->batch) + tr_lot_plans(c->lot)[0]->hash;
    if (c->entry.kind == TR_ENTRY_TRAIN)
        horizon_check_training(c, rank_columns);
    else
        c->evaluations[c->entry.parts[0].job] += c->entry.parts[0].completes;
    assert_true(c->microbatches < 2000);
    return 1;
}

/* Each document of every job once an epoch. */
static inline void horizon_check_all_given(const horizon_case_t *c, const int64_t *epochs)
{
    for (int32_t j = 0; j < HORIZON_JOBS; j++) {
        int64_t documents = 0;

        assert_int_equal(c->steps[j], c->jobs[j]->total_steps);
        for (int d = 0; d < HORIZON_DOCUMENTS; d++) {
            assert_true(c->given[j][d] == epochs[j] || c->given[j][d] == 0);
            documents += c->given[j][d];
        }
        assert_int_equal(documents, epochs[j] * c->jobs[j]->training_documents);
        assert_int_equal(documents, tr_horizon_documents(c->horizon, j));
    }
}

#endif
