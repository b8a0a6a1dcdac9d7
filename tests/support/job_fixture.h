/* Jobs on small datasets, without a trainer. */
#ifndef CADRE_TESTS_SUPPORT_JOB_FIXTURE_H
#define CADRE_TESTS_SUPPORT_JOB_FIXTURE_H

#include "tests/support/ctx_fixture.h"

#include "tests/support/train_case.h"

#include <stdlib.h>

#define JOB_VOCAB 50

/* Writes a dataset with documents of these lengths; every token but the first is a target. */
static inline void job_dataset(base_ctx_t *ctx, const char *path, const int64_t *rows,
                               int32_t count)
{
    data_document_t *documents = calloc((size_t)count, sizeof *documents);
    int64_t most = 0;

    for (int32_t d = 0; d < count; d++)
        most = rows[d] > most ? rows[d] : most;
    int32_t *tokens = calloc((size_t)most, sizeof *tokens);
    uint8_t *mask = calloc((size_t)most, sizeof *mask);
    assert_true(documents != NULL && tokens != NULL && mask != NULL);
    for (int64_t i = 0; i < most; i++) {
        tokens[i] = (int32_t)(3 + i % (JOB_VOCAB - 3));
        mask[i] = 1;
    }
    for (int32_t d = 0; d < count; d++)
        documents[d] = (data_document_t){.rows = rows[d], .tokens = tokens, .loss_mask = mask};
    assert_int_equal(train_write_dataset(ctx, path, documents, count, JOB_VOCAB), BASE_OK);
    free(documents);
    free(tokens);
    free(mask);
}

static inline tr_job_t *job_open(base_ctx_t *ctx, const base_config_adapter_t *config)
{
    base_error_list_t errors;
    tr_job_t *job = NULL;

    base_error_list_init(&errors, ctx);
    assert_int_equal(tr_job_open(ctx, config, config->name, config->data, config->eval,
                                 TRAIN_CASE_SHA, JOB_VOCAB, &errors, &job),
                     BASE_OK);
    assert_int_equal(errors.count, 0);
    assert_non_null(job);
    base_error_list_deinit(&errors);
    return job;
}

/* Notes a step with this loss, on a batch of two documents of ten rows. */
static inline void job_step(tr_job_t *job, double loss)
{
    tr_job_step_given(job);
    tr_job_stepped(job, &(tr_step_result_t){.loss = loss, .norm = 1.0}, 2, 20, 18);
}

#endif
