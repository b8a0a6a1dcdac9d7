/* Host memory for uploads and downloads that do not wait: pinned where the device is a GPU, plain
 * elsewhere. Unlike a PINNED buffer it is the host's, to be read and written between two uses of it
 * by a stream; it is given to base_upload and base_download by address.
 *
 *   base_staging_t staging;
 *   BASE_TRY(base_staging_create(dev, bytes, "rows", &staging));
 *   ... fill staging.memory; BASE_TRY(base_staging_upload(s, &rows, &staging, 0)); ...
 *   base_staging_destroy(&staging);                 when no stream uses it any more */
#ifndef CADRE_BASE_DEVICE_STAGING_H
#define CADRE_BASE_DEVICE_STAGING_H

#include "base/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_staging {
    void *memory; /* 16-byte aligned at least; NULL: none */
    /* private */
    int64_t bytes;
    base_buffer_t *pinned; /* NULL: plain memory of the context */
    base_ctx_t *ctx;
} base_staging_t;

/* Borrows dev. Zeroed. MEM-01. */
base_status_t base_staging_create(base_device_t *dev, int64_t bytes, const char *what,
                                  base_staging_t *staging) BASE_MUST_CHECK;
/* Contents undefined, for what is written before it is read. */
base_status_t base_staging_create_raw(base_device_t *dev, int64_t bytes, const char *what,
                                      base_staging_t *staging) BASE_MUST_CHECK;
void base_staging_destroy(base_staging_t *staging); /* NULL and {0} are legal */
/* Rows that lie side by side from byte `at` on, to rows that may lie apart: one copy, and, other than
 * base_upload of the same memory, no question to the driver where it lies. */
base_status_t base_staging_upload(base_stream_t *s, const base_range_t *dst,
                                  const base_staging_t *staging, int64_t at) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
