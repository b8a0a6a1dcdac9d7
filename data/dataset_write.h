/* Writes a dataset (data/dataset.h, docs/formats.md) from arrays in memory: for tests and tools.
 * What users run is `cadre prepare`, which writes the same layout.
 *
 * The arrays are contiguous, the metadata carries checksums (HDF5 1.8 object headers), and no time
 * is stored: the same content gives the same bytes with one release of the library. h5py and h5dump
 * read it. Threads: as for opening a dataset. */
#ifndef CADRE_DATA_DATASET_WRITE_H
#define CADRE_DATA_DATASET_WRITE_H

#include "data/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct data_dataset_content {
    /* num_documents, vocab_size, eos_id, bos_id and the texts but content_sha256; num_tokens,
     * num_supervised and content_sha256 follow from the arrays and are not looked at. */
    data_dataset_attributes_t attributes;
    const int64_t *offsets;   /* num_documents + 1 */
    const int32_t *tokens;    /* offsets[num_documents] */
    const uint8_t *loss_mask; /* as many */
    const int64_t *line;      /* num_documents; NULL: 1, 2, 3, ... */
} data_dataset_content_t;

/* Replaces PATH, complete and synced; until then, and after a failure, PATH is as it was.
 * BASE_ERR_ARG (INT-01) for a content that data_dataset_open or data_dataset_read would refuse;
 * BASE_ERR_IO, or BASE_ERR_SPACE on a full disk (IO-02). */
base_status_t data_dataset_write(base_ctx_t *ctx, const char *path,
                                 const data_dataset_content_t *content) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
