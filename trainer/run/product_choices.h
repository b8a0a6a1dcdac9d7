/* Which algorithm each matrix product of a run takes on a GPU (kern_gemm_search), kept in the run's
 * folder: a run that goes on, or is repeated in a folder that has the file, takes the same ones, so
 * that its bits do not depend on a timing. On the CPU there is no choice and no file. */
#ifndef CADRE_TRAINER_RUN_PRODUCT_CHOICES_H
#define CADRE_TRAINER_RUN_PRODUCT_CHOICES_H

#include "kernels/op.h"

/* Takes what the file holds, if there is one that suits device and library, and searches whatever
 * shape is new from now on. */
base_status_t tr_product_choices_take(base_ctx_t *ctx, base_stream_t *stream,
                                      const char *path) BASE_MUST_CHECK;

/* Writes what has been found. */
base_status_t tr_product_choices_keep(base_ctx_t *ctx, base_stream_t *stream,
                                      const char *path) BASE_MUST_CHECK;

#endif
