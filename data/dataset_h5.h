/* The HDF5 calls of datasets: attributes and one-dimensional arrays, read with reports, written.
 *
 * HDF5 prints its errors to stderr by itself; every use stands between data_h5_quiet_begin and
 * data_h5_quiet_end, and what it would have printed is found by data_h5_reason, before the next
 * call of the library clears it. For data/dataset*.c and trainer/run/checkpoint_h5.c.
 *
 * Threads: the library has one lock, if it was built with one (Debian's serial flavour is). Then
 * everything here may be called from several threads; otherwise by one thread of the process. */
#ifndef CADRE_DATA_DATASET_H5_H
#define CADRE_DATA_DATASET_H5_H

#include "base/config/error_list.h"

#include <hdf5.h>
#include <stdbool.h>

typedef struct data_h5_quiet {
    H5E_auto2_t report;
    void *arg;
} data_h5_quiet_t;

void data_h5_quiet_begin(data_h5_quiet_t *quiet);
void data_h5_quiet_end(const data_h5_quiet_t *quiet);

#define DATA_H5_REASON_BYTES 300

/* What the last call says of its failure, the innermost of its reasons. Returns `text`. */
const char *data_h5_reason(char text[DATA_H5_REASON_BYTES]);

/* ==== reading: true and the output set, or false and a report ==== */

/* A file that is looked at. */
typedef struct data_h5_place {
    base_ctx_t *ctx;
    hid_t file;
    const char *path;
    base_error_list_t *errors; /* DATA-12 for what is missing or of the wrong type */
    bool no_memory;            /* MEM-01 is recorded; set by the readers */
} data_h5_place_t;

/* Root attributes. A text may be stored with fixed or variable length; *text is owned (base_free).
 * A number is any integer type. */
bool data_h5_text(data_h5_place_t *at, const char *name, char **text);
bool data_h5_number(data_h5_place_t *at, const char *name, int64_t *value);

/* Whether the root has an attribute of that name. */
bool data_h5_has(const data_h5_place_t *at, const char *name);

/* An array of the file, opened. */
typedef struct data_h5_array {
    hid_t id;       /* -1: not open */
    int64_t count;  /* elements */
    int64_t offset; /* of its bytes in the file; -1: not contiguous, read by H5Dread */
} data_h5_array_t;

/* Opens the one-dimensional dataset `name`, which has to be stored as `type` exactly. `word` names
 * the type in messages. The caller closes *array. */
bool data_h5_array_open(data_h5_place_t *at, const char *name, hid_t type, const char *word,
                        data_h5_array_t *array);
void data_h5_array_close(data_h5_array_t *array); /* may be repeated */

/* Elements [from, from + count) through HDF5. False: not reported, `reason` says why. */
bool data_h5_array_read(const data_h5_array_t *array, hid_t type, int64_t from, int64_t count,
                        void *to, char reason[DATA_H5_REASON_BYTES]);

/* ==== writing: false: not reported, `reason` says why ==== */

/* Of fixed length. Texts of variable length lie in heaps that have no checksums: a changed byte there
 * can keep the library (1.10.8) in an endless loop. */
bool data_h5_put_text(hid_t file, const char *name, const char *text,
                      char reason[DATA_H5_REASON_BYTES]);
bool data_h5_put_number(hid_t file, const char *name, int64_t value,
                        char reason[DATA_H5_REASON_BYTES]);
/* A contiguous dataset; the memory holds elements of `type`. */
bool data_h5_put_array(hid_t file, const char *name, hid_t type, int64_t count, const void *data,
                       char reason[DATA_H5_REASON_BYTES]);

#endif
