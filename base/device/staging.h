/* Host memory for uploads and downloads that do not wait: pinned where the device is a GPU, plain
 * elsewhere. Unlike a PINNED buffer it is the host's, to be read and written between two uses of it
 * by a stream; it is given to base_upload and base_download by address.
 *
 *   base_staging_t staging;
 *   BASE_TRY(base_staging_create(dev, bytes, "rows", &staging));
 *   ... fill staging.memory; BASE_TRY(base_upload(s, place, staging.memory, bytes)); ...
 *   base_staging_destroy(&staging);                 when no stream uses it any more */
#ifndef CADRE_BASE_DEVICE_STAGING_H
#define CADRE_BASE_DEVICE_STAGING_H

#include "base/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_staging {
    void *memory; /* 16-byte aligned at least, zeroed; NULL: none */
    /* private */
    base_buffer_t *pinned; /* NULL: plain memory of the context */
    base_ctx_t *ctx;
} base_staging_t;

/* Borrows dev. MEM-01. */
base_status_t base_staging_create(base_device_t *dev, int64_t bytes, const char *what,
                                  base_staging_t *staging) BASE_MUST_CHECK;
void base_staging_destroy(base_staging_t *staging); /* NULL and {0} are legal */

#ifdef __cplusplus
}
#endif
#endif
