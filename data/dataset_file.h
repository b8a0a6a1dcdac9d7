/* What an open dataset holds. Private to data/dataset.c and data/dataset_open.c. */
#ifndef CADRE_DATA_DATASET_FILE_H
#define CADRE_DATA_DATASET_FILE_H

#include "data/dataset.h"
#include "data/dataset_h5.h"

#include <pthread.h>

struct data_dataset {
    base_ctx_t *ctx;
    char *path;
    data_dataset_attributes_t attributes; /* texts are owned */
    int64_t *offsets;                     /* num_documents + 1 */
    int32_t *supervised;                  /* NULL: offsets only */
    int64_t *line;                        /* NULL: offsets only */
    int64_t max_rows;
    int fd; /* for pread; -1: not open */
    /* Open only where HDF5 has to read an array; they are then used under the lock. */
    hid_t file;
    data_h5_array_t tokens, mask; /* .offset also when closed */
    pthread_mutex_t *lock;        /* owned; a pointer, since readers see a const dataset */
};

#endif
