/* Files: written so that a reader, or a run that died, finds the old content or the new and nothing
 * between.
 *
 * Writing goes to PATH.tmp-RRRR (RRRR: the rank) beside PATH, is synced, renamed over PATH, and the
 * folder is synced. At one time one thread of a rank, and one rank, may write a path. Messages
 * carry the path and the system's reason: IO-01 for reading, IO-02 for writing (BASE_ERR_SPACE, else
 * BASE_ERR_IO), IO-03 for size. */
#ifndef CADRE_BASE_FILE_H
#define CADRE_BASE_FILE_H

#include "base/context.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a write that failed with this errno is: BASE_ERR_SPACE for a full disk, a quota or the
 * largest size of a file, else BASE_ERR_IO. */
base_status_t base_file_status(int error);

/* Replaces PATH by these bytes. */
base_status_t base_file_write(base_ctx_t *ctx, const char *path, const void *data,
                              size_t bytes) BASE_MUST_CHECK;

/* The same for content that is produced piece by piece:
 *
 *   BASE_TRY(base_file_create(ctx, path, &file));
 *   ... base_file_stream(file) ...
 *   return base_file_commit(file);
 *
 * or, when something went wrong in between, base_file_discard(file): PATH stays as it was. */
typedef struct base_file base_file_t;
base_status_t base_file_create(base_ctx_t *ctx, const char *path,
                               base_file_t **file_p) BASE_MUST_CHECK;
FILE *base_file_stream(base_file_t *file); /* borrowed; do not close it */
/* Takes `file`, also when it fails (then PATH is as before and the temporary file is gone). */
base_status_t base_file_commit(base_file_t *file) BASE_MUST_CHECK;
void base_file_discard(base_file_t *file); /* NULL is legal */

/* Reads a whole file into memory of the context (base_free), terminated by a zero that *bytes does
 * not count. A file of more than max_bytes is BASE_ERR_FORMAT (IO-03): no length of a file is
 * believed. */
base_status_t base_file_read(base_ctx_t *ctx, const char *path, int64_t max_bytes, char **data_p,
                             size_t *bytes) BASE_MUST_CHECK;

/* Creates the folder and its parents; one that is there already is fine. */
base_status_t base_file_make_dirs(base_ctx_t *ctx, const char *path) BASE_MUST_CHECK;

/* Renames a file or folder and syncs the folder of `to`: how a finished checkpoint gets its name.
 */
base_status_t base_file_rename(base_ctx_t *ctx, const char *from, const char *to) BASE_MUST_CHECK;

/* Removes a folder and the files in it; one that is not there is fine. IO-02 when it holds folders,
 * or cannot be removed. */
base_status_t base_file_remove_folder(base_ctx_t *ctx, const char *path) BASE_MUST_CHECK;

/* Makes the content of a closed file, or the entries of a folder, last (fsync). */
base_status_t base_file_sync(base_ctx_t *ctx, const char *path) BASE_MUST_CHECK;

typedef enum base_file_kind {
    BASE_FILE_NONE,
    BASE_FILE_REGULAR,
    BASE_FILE_FOLDER,
    BASE_FILE_OTHER
} base_file_kind_t;
/* What stands there, links followed. NONE also where it cannot be looked at. */
base_file_kind_t base_file_kind(const char *path);

#ifdef __cplusplus
}
#endif
#endif
