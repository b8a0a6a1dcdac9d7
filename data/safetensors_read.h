/* Safetensors files: opened, checked to the last byte of their header, read in pieces.
 *
 *   data_safetensors_t *file;
 *   BASE_TRY(data_safetensors_open(ctx, path, NULL, &file));
 *   const data_safetensors_entry_t *q = data_safetensors_find(file, name);     NULL: none
 *   BASE_TRY(data_safetensors_read_rows(file, q, row, num_rows, bytes));
 *   data_safetensors_close(file);
 *
 * The format: 8 bytes N (little-endian), N bytes of JSON, then the data up to the end of the file.
 * Open demands what the format demands: N at most 100 000 000 and within the file; the JSON begins
 * with '{' and holds no key twice; each tensor has a known dtype, a shape whose size does not
 * overflow, and a range of exactly that size; sorted by their begin the ranges follow each other
 * from 0 to the end of the file without overlap or hole; __metadata__ maps strings to strings. A
 * tensor's object may hold dtype, shape and data_offsets and nothing else. Element types of less
 * than a byte are not read (DATA-05).
 *
 * Faults of the header are all reported in one pass: DATA-02 is no JSON, DATA-03 and DATA-04 a
 * key of a tensor, DATA-06 the rest, with file, tensor, numbers found and wanted.
 *
 * Reads go through pread: no position is shared, so threads may read one file at the same time.
 * Nothing is kept in memory but the list. The open file is counted (BASE_RESOURCE_FILE). */
#ifndef CADRE_DATA_SAFETENSORS_READ_H
#define CADRE_DATA_SAFETENSORS_READ_H

#include "base/config/error_list.h"
#include "data/tensor_dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DATA_SAFETENSORS_MAX_HEADER INT64_C(100000000)
#define DATA_SAFETENSORS_MAX_RANK   8

typedef struct data_safetensors data_safetensors_t;

/* One tensor of a file. Row-major; a scalar has rank 0; a tensor may be empty. */
typedef struct data_safetensors_entry {
    const char *name;
    data_dtype_t dtype;
    int32_t rank;
    int64_t shape[DATA_SAFETENSORS_MAX_RANK];
    int64_t offset; /* from the start of the file */
    int64_t bytes;
} data_safetensors_entry_t;

/* Opens and checks a file. `errors` gets the faults and the caller finishes it; with NULL the first
 * fault is recorded in the context. BASE_ERR_FORMAT; BASE_ERR_IO (IO-01, recorded at once) when the
 * file cannot be read; BASE_ERR_NOMEM. The caller closes *file_p. */
base_status_t data_safetensors_open(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                    data_safetensors_t **file_p) BASE_MUST_CHECK;
void data_safetensors_close(data_safetensors_t *file); /* NULL is legal */

/* The rest borrows from the open file. */
const char *data_safetensors_path(const data_safetensors_t *file);
int64_t data_safetensors_count(const data_safetensors_t *file);
/* Tensor 0 <= index < count, in the order of names. */
const data_safetensors_entry_t *data_safetensors_entry(const data_safetensors_t *file,
                                                       int64_t index);
const data_safetensors_entry_t *data_safetensors_find(const data_safetensors_t *file,
                                                      const char *name); /* NULL: none */

/* Reads `bytes` raw bytes of a tensor from its byte `from` on. A range outside the tensor is
 * BASE_ERR_ARG; a file that has become shorter since it was opened BASE_ERR_FORMAT (DATA-06). */
base_status_t data_safetensors_read(const data_safetensors_t *file,
                                    const data_safetensors_entry_t *entry, int64_t from,
                                    int64_t bytes, void *to) BASE_MUST_CHECK;
/* The same in rows: along the first dimension, each with all elements of the others. A scalar is
 * one row. */
base_status_t data_safetensors_read_rows(const data_safetensors_t *file,
                                         const data_safetensors_entry_t *entry, int64_t row,
                                         int64_t num_rows, void *to) BASE_MUST_CHECK;

/* Elements of a tensor. */
int64_t data_safetensors_elements(const data_safetensors_entry_t *entry);
/* Writes "[3, 64]" and returns `text`. */
const char *data_safetensors_shape_text(int32_t rank, const int64_t *shape, char *text,
                                        size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
