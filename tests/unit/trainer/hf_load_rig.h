/* A model folder of tests/golden, and the weights of a strict device that it is loaded to. */
#ifndef CADRE_TESTS_UNIT_TRAINER_HF_LOAD_RIG_H
#define CADRE_TESTS_UNIT_TRAINER_HF_LOAD_RIG_H

#include "tests/support/ctx_fixture.h"

#include "data/tensor_dtype.h"
#include "trainer/model/hf_load.h"
#include "trainer/model/hf_weights.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct loaded {
    base_ctx_t *ctx;
    data_hf_folder_t *folder;
    base_device_t *dev;
    base_stream_t *stream;
    base_arena_t *arena;
    tr_model_t *model;
    tr_weights_t *weights;
} loaded_t;

#define EXTRA 8 /* columns beside each weight */

static inline const char *golden(const char *relative, char *path, size_t bytes)
{
    const char *source = getenv("CADRE_SOURCE_DIR");

    assert_non_null(source);
    (void)snprintf(path, bytes, "%s/tests/golden/files/%s", source, relative);
    return path;
}

static inline void make(loaded_t *l, const char *path, kern_dtype_t dtype, uint64_t seed)
{
    double inv_freq[DATA_MODEL_MAX_HEAD_DIM / 2];
    tr_model_config_t config;

    l->ctx = fixture_ctx();
    assert_int_equal(data_hf_folder_open(l->ctx, path, NULL, &l->folder), BASE_OK);
    tr_hf_model_config(data_hf_folder_spec(l->folder), dtype, 1, inv_freq, &config);
    config.frozen = 1;
    config.extra_columns = EXTRA;
    assert_int_equal(base_device_open(l->ctx, BASE_DEVICE_STRICT, 0, &l->dev), BASE_OK);
    base_device_set_seed(l->dev, seed);
    assert_int_equal(base_stream_create(l->dev, BASE_STREAM_COMPUTE, "compute", &l->stream),
                     BASE_OK);
    assert_int_equal(base_arena_create(l->dev, BASE_MEMORY_DEVICE, "device", &l->arena), BASE_OK);
    assert_int_equal(tr_model_create(l->ctx, &config, &l->model), BASE_OK);
    assert_int_equal(tr_weights_create(l->model, l->arena, &l->weights), BASE_OK);
    assert_int_equal(base_arena_commit(l->arena), BASE_OK);
}

static inline void let_go(loaded_t *l)
{
    base_stream_destroy(l->stream);
    tr_weights_destroy(l->weights);
    base_arena_destroy(l->arena);
    tr_model_destroy(l->model);
    base_device_close(l->dev);
    data_hf_folder_close(l->folder);
    fixture_ctx_end(l->ctx);
}

/* The file's values, rounded to the weights' dtype. */
static inline double rounded(double value, kern_dtype_t dtype)
{
    return dtype == KERN_F64   ? value
           : dtype == KERN_F32 ? (double)(float)value
                               : (double)data_bf16_to_float(data_bf16_from_float((float)value));
}

static inline void check_tensor(loaded_t *l, int64_t index, kern_dtype_t dtype)
{
    data_model_tensor_t tensor;

    data_model_spec_tensor(data_hf_folder_spec(l->folder), index, &tensor);
    const int64_t rows = tensor.shape[0], cols = tensor.rank == 1 ? 1 : tensor.shape[1];
    double *want = calloc((size_t)(rows * cols), sizeof *want);
    double *have = calloc((size_t)(rows * cols), sizeof *have);
    assert_true(want != NULL && have != NULL);
    assert_int_equal(data_hf_folder_read_double(l->folder, index, 0, rows, want), BASE_OK);
    assert_int_equal(tr_hf_weights_read(l->weights, &tensor, 0, rows, l->stream, have), BASE_OK);
    for (int64_t i = 0; i < rows * cols; i++)
        if (have[i] != rounded(want[i], dtype))
            fail_msg("tensor %lld, element %lld: %.9g, the file has %.9g", (long long)index,
                     (long long)i, have[i], want[i]);
    free(want);
    free(have);
}

#endif
