/* A driver for HDF5 files that are written: it survives a full disk.
 *
 * When a write fails, libhdf5 1.10 cannot close the file: its buffers stay full, its objects stay
 * open, and the process dies of that when it exits. This driver (H5FD) keeps the first failure to
 * itself, writes nothing from then on and lets the library end in peace; the caller asks afterwards
 * and removes the file.
 *
 *   data_h5_sink_t sink;
 *   const hid_t file = data_h5_sink_create(ctx, path, &sink);   < 0: the library says why
 *   ... H5Dcreate2, H5Dwrite ..., H5Fclose(file)
 *   const int failed = data_h5_sink_end(&sink);              errno of the first failure; 0: none
 *
 * The file is an ordinary one of version 1.8, without locks; its root group keeps no times. One thread a file. The library has to
 * be quiet (dataset_h5.h). */
#ifndef CADRE_DATA_H5_SINK_H
#define CADRE_DATA_H5_SINK_H

#include "base/context.h"

#include <hdf5.h>

typedef struct data_h5_sink {
    hid_t driver, access;
    int failure; /* private until the end */
} data_h5_sink_t;

/* `sink` is the caller's and stays where it is until data_h5_sink_end, which follows in any case. */
hid_t data_h5_sink_create(base_ctx_t *ctx, const char *path, data_h5_sink_t *sink);
int data_h5_sink_end(data_h5_sink_t *sink);

#endif
