/* Where checkpoints lie, and whether one is whole: the files, without a look at their content.
 *
 *   checkpoints/mb-000412/            after 412 microbatches
 *     config.yaml  state.h5           written by rank 0
 *     gradients-0000.h5 ...           by each trainer
 *     SHA256SUMS                      of all of them, as sha256sum writes it
 *   checkpoints/mb-000450.tmp/        being written
 *   checkpoints/mb-000400.damaged/    found damaged by --resume, put aside
 *
 * A checkpoint is written under its temporary name, synced, and renamed: under its own name it is
 * complete. What a killed run left is removed by the next one that saves. Rank 0, except where it
 * says so. Messages: RUN-06 for reading; RUN-07 for writing, with BASE_ERR_SPACE where space, a
 * quota or the largest size of a file is the reason. One thread. */
#ifndef CADRE_TRAINER_RUN_CHECKPOINT_FOLDER_H
#define CADRE_TRAINER_RUN_CHECKPOINT_FOLDER_H

#include "base/context.h"
#include "base/sha256.h"

#define TR_CHECKPOINT_CONFIG     "config.yaml"
#define TR_CHECKPOINT_STATE      "state.h5"
#define TR_CHECKPOINT_FILE_BYTES 32

/* "gradients-0000.h5". */
void tr_checkpoint_gradients_name(int32_t trainer, char name[TR_CHECKPOINT_FILE_BYTES]);

/* "ROOT/mb-000412", with `temporary` "ROOT/mb-000412.tmp". The caller frees *path_p (base_free).
 * Any rank. */
base_status_t tr_checkpoint_path(base_ctx_t *ctx, const char *root, int64_t microbatch,
                                 int temporary, char **path_p) BASE_MUST_CHECK;
/* "FOLDER/NAME". The same. */
base_status_t tr_checkpoint_file(base_ctx_t *ctx, const char *folder, const char *name,
                                 char **path_p) BASE_MUST_CHECK;

/* Microbatches of the checkpoints below `root`, ascending. The caller frees *list_p. A folder that
 * is not there has none. */
base_status_t tr_checkpoint_list(base_ctx_t *ctx, const char *root, int64_t **list_p,
                                 int64_t *count) BASE_MUST_CHECK;

/* Makes `root` and the temporary folder; removes other temporary ones. */
base_status_t tr_checkpoint_begin(base_ctx_t *ctx, const char *root,
                                  int64_t microbatch) BASE_MUST_CHECK;
/* SHA-256 of a file in the folder, which is made last (fsync). Any rank, of its own files. */
base_status_t tr_checkpoint_seal(base_ctx_t *ctx, const char *folder, const char *name,
                                 char sum[BASE_SHA256_HEX_BYTES]) BASE_MUST_CHECK;
/* `names` and `sums` of all files: the checkpoint gets its name. Of older ones `keep` - 1 stay. */
base_status_t tr_checkpoint_finish(base_ctx_t *ctx, const char *root, int64_t microbatch,
                                   int64_t keep, int32_t num_files,
                                   char (*names)[TR_CHECKPOINT_FILE_BYTES],
                                   char (*sums)[BASE_SHA256_HEX_BYTES]) BASE_MUST_CHECK;
/* Removes the temporary folder: its space is free again. Says nothing of failures. */
void tr_checkpoint_discard(base_ctx_t *ctx, const char *root, int64_t microbatch);

/* Reads every file. BASE_ERR_FORMAT names the first that is missing, is not listed or has another
 * content. */
base_status_t tr_checkpoint_verify(base_ctx_t *ctx, const char *folder) BASE_MUST_CHECK;
/* Puts a checkpoint that cannot be used aside: it does not count any more. */
base_status_t tr_checkpoint_set_aside(base_ctx_t *ctx, const char *root,
                                      int64_t microbatch) BASE_MUST_CHECK;

#endif
