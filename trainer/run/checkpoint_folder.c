#include "trainer/run/checkpoint_folder.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/sort.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUMS           "SHA256SUMS"
#define SUMS_MAX_BYTES (INT64_C(1) << 20)

/* ==== names ==== */

void tr_checkpoint_gradients_name(int32_t trainer, char name[TR_CHECKPOINT_FILE_BYTES])
{
    (void)snprintf(name, TR_CHECKPOINT_FILE_BYTES, "gradients-%04" PRId32 ".h5", trainer);
}

base_status_t tr_checkpoint_file(base_ctx_t *ctx, const char *folder, const char *name,
                                 char **path_p)
{
    const size_t room = strlen(folder) + strlen(name) + 2;
    char *path = base_alloc(ctx, room, "checkpoint");

    if (path == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(path, room, "%s/%s", folder, name);
    *path_p = path;
    return BASE_OK;
}

static base_status_t path_with(base_ctx_t *ctx, const char *root, int64_t microbatch,
                               const char *ending, char **path_p)
{
    char name[64];

    (void)snprintf(name, sizeof name, "mb-%06" PRId64 "%s", microbatch, ending);
    return tr_checkpoint_file(ctx, root, name, path_p);
}

base_status_t tr_checkpoint_path(base_ctx_t *ctx, const char *root, int64_t microbatch,
                                 int temporary, char **path_p)
{
    return path_with(ctx, root, microbatch, temporary ? ".tmp" : "", path_p);
}

/* The microbatch of "mb-000412ENDING"; -1: another name. */
static int64_t parse_name(const char *name, const char *ending)
{
    char *end;

    if (strncmp(name, "mb-", 3) != 0 || name[3] < '0' || name[3] > '9') return -1;
    errno = 0;
    const int64_t microbatch = strtoll(name + 3, &end, 10);
    return errno == 0 && strcmp(end, ending) == 0 ? microbatch : -1;
}

/* ==== listing and removing ==== */

static int ascending(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return base_compare_i64(*(const int64_t *)a, *(const int64_t *)b);
}

/* Of the names with that ending. */
static base_status_t list_names(base_ctx_t *ctx, const char *root, const char *ending,
                                int64_t **list_p, int64_t *count)
{
    DIR *dir = opendir(root);
    const struct dirent *entry;
    int64_t *list = NULL, room = 0, n = 0;

    *list_p = NULL;
    *count = 0;
    if (dir == NULL && errno == ENOENT) return BASE_OK;
    if (dir == NULL)
        return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot list: %s", root,
                         strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        const int64_t microbatch = parse_name(entry->d_name, ending);

        if (microbatch < 0) continue;
        if (n == room) {
            room = room == 0 ? 16 : 2 * room;
            int64_t *more = base_realloc(ctx, list, room, sizeof *list, "checkpoints");
            if (more == NULL) {
                (void)closedir(dir);
                base_free(ctx, list);
                return BASE_ERR_NOMEM;
            }
            list = more;
        }
        list[n++] = microbatch;
    }
    (void)closedir(dir);
    if (n > 0) base_sort(list, n, sizeof *list, ascending, NULL);
    *list_p = list;
    *count = n;
    return BASE_OK;
}

base_status_t tr_checkpoint_list(base_ctx_t *ctx, const char *root, int64_t **list_p,
                                 int64_t *count)
{
    return list_names(ctx, root, "", list_p, count);
}

static base_status_t remove_named(base_ctx_t *ctx, const char *root, int64_t microbatch,
                                  const char *ending)
{
    char *path;

    BASE_TRY(path_with(ctx, root, microbatch, ending, &path));
    const base_status_t st = base_file_remove_folder(ctx, path);
    base_free(ctx, path);
    return st;
}

/* Removes all but the last `keep` with that ending. */
static base_status_t prune(base_ctx_t *ctx, const char *root, const char *ending, int64_t keep)
{
    int64_t *list, count;
    base_status_t st;

    st = list_names(ctx, root, ending, &list, &count);
    for (int64_t i = 0; st >= 0 && i < count - keep; i++)
        st = remove_named(ctx, root, list[i], ending);
    base_free(ctx, list);
    return st;
}

/* ==== writing ==== */

base_status_t tr_checkpoint_begin(base_ctx_t *ctx, const char *root, int64_t microbatch)
{
    char *path;

    BASE_TRY(base_file_make_dirs(ctx, root));
    BASE_TRY(prune(ctx, root, ".tmp", 0));
    BASE_TRY(tr_checkpoint_path(ctx, root, microbatch, 1, &path));
    const base_status_t st = base_file_make_dirs(ctx, path);
    base_free(ctx, path);
    return st;
}

void tr_checkpoint_discard(base_ctx_t *ctx, const char *root, int64_t microbatch)
{
    base_error_t earlier;
    const int had = base_ctx_error(ctx, &earlier);

    if (remove_named(ctx, root, microbatch, ".tmp") < 0 && !had) base_ctx_clear_error(ctx);
}

base_status_t tr_checkpoint_seal(base_ctx_t *ctx, const char *folder, const char *name,
                                 char sum[BASE_SHA256_HEX_BYTES])
{
    char *path;
    base_status_t st;

    BASE_TRY(tr_checkpoint_file(ctx, folder, name, &path));
    st = base_sha256_file(ctx, path, sum);
    if (st >= 0) st = base_file_sync(ctx, path);
    base_free(ctx, path);
    return st;
}

static base_status_t write_sums(base_ctx_t *ctx, const char *folder, int32_t num_files,
                                char (*names)[TR_CHECKPOINT_FILE_BYTES],
                                char (*sums)[BASE_SHA256_HEX_BYTES])
{
    base_file_t *file;
    char *path;

    BASE_TRY(tr_checkpoint_file(ctx, folder, SUMS, &path));
    base_status_t st = base_file_create(ctx, path, &file);
    base_free(ctx, path);
    BASE_TRY(st);
    for (int32_t i = 0; i < num_files; i++)
        (void)fprintf(base_file_stream(file), "%s  %s\n", sums[i], names[i]);
    return base_file_commit(file);
}

/* One of that name can only be a checkpoint of steps that --resume has taken back. */
static base_status_t give_name(base_ctx_t *ctx, const char *root, int64_t microbatch,
                               const char *folder)
{
    char *path;
    base_status_t st;

    BASE_TRY(tr_checkpoint_path(ctx, root, microbatch, 0, &path));
    st = base_file_remove_folder(ctx, path);
    if (st >= 0) st = base_file_rename(ctx, folder, path);
    base_free(ctx, path);
    return st;
}

/* The new one is there whether or not the old ones go. */
static void forget_older(base_ctx_t *ctx, const char *root, int64_t keep)
{
    base_error_t error;

    if (prune(ctx, root, "", keep) >= 0) return;
    if (base_ctx_error(ctx, &error))
        base_log_warn(base_ctx_log(ctx), "old-checkpoints", "%s", error.text);
    base_ctx_clear_error(ctx);
}

base_status_t tr_checkpoint_finish(base_ctx_t *ctx, const char *root, int64_t microbatch,
                                   int64_t keep, int32_t num_files,
                                   char (*names)[TR_CHECKPOINT_FILE_BYTES],
                                   char (*sums)[BASE_SHA256_HEX_BYTES])
{
    char *folder;
    base_status_t st;

    BASE_TRY(tr_checkpoint_path(ctx, root, microbatch, 1, &folder));
    st = write_sums(ctx, folder, num_files, names, sums);
    if (st >= 0) st = give_name(ctx, root, microbatch, folder);
    base_free(ctx, folder);
    if (st >= 0) forget_older(ctx, root, keep);
    return st;
}

/* ==== verifying ==== */

static base_status_t damaged(base_ctx_t *ctx, const char *folder, const char *name,
                             const char *what)
{
    return BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_06, "%s: %s %s", folder, name, what);
}

/* The next line, "SUM  NAME", which is cut in two; NULL at the end. *bad when it is none. */
static char *next_line(char **at, char **name, int *bad)
{
    char *line = *at, *end = strchr(line, '\n');

    if (*line == '\0') return NULL;
    *bad = end == NULL || end - line < BASE_SHA256_HEX_BYTES + 2 ||
           strncmp(line + BASE_SHA256_HEX_BYTES - 1, "  ", 2) != 0;
    if (*bad) return NULL;
    *end = line[BASE_SHA256_HEX_BYTES - 1] = '\0';
    *name = line + BASE_SHA256_HEX_BYTES + 1;
    *bad = !base_sha256_is_hex(line) || strchr(*name, '/') != NULL;
    *at = end + 1;
    return *bad ? NULL : line;
}

static base_status_t verify_file(base_ctx_t *ctx, const char *folder, const char *name,
                                 const char *want)
{
    char sum[BASE_SHA256_HEX_BYTES];
    char *path;
    base_status_t st;

    BASE_TRY(tr_checkpoint_file(ctx, folder, name, &path));
    if (base_file_kind(path) != BASE_FILE_REGULAR)
        st = damaged(ctx, folder, name, "is missing");
    else {
        st = base_sha256_file(ctx, path, sum);
        if (st >= 0 && strcmp(sum, want) != 0)
            st = damaged(ctx, folder, name, "is not what " SUMS " says: cut off, or changed");
    }
    base_free(ctx, path);
    return st;
}

/* How many files there are beside SHA256SUMS. */
static int64_t count_files(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    int64_t count = -1;

    if (dir == NULL) return 0;
    while ((entry = readdir(dir)) != NULL)
        count += entry->d_name[0] != '.';
    (void)closedir(dir);
    return count;
}

static base_status_t verify_listed(base_ctx_t *ctx, const char *folder, char *text)
{
    int bad = 0, config = 0, state = 0;
    char *at = text, *name, *sum;
    int64_t files = 0;

    while ((sum = next_line(&at, &name, &bad)) != NULL) {
        BASE_TRY(verify_file(ctx, folder, name, sum));
        config |= strcmp(name, TR_CHECKPOINT_CONFIG) == 0;
        state |= strcmp(name, TR_CHECKPOINT_STATE) == 0;
        files++;
    }
    if (bad) return damaged(ctx, folder, SUMS, "has a line that is none: cut off, or changed");
    if (!config || !state || files != count_files(folder))
        return damaged(ctx, folder, SUMS, "does not list all files");
    return BASE_OK;
}

base_status_t tr_checkpoint_verify(base_ctx_t *ctx, const char *folder)
{
    char *path, *text = NULL;
    size_t bytes;
    base_status_t st;

    BASE_TRY(tr_checkpoint_file(ctx, folder, SUMS, &path));
    if (base_file_kind(path) != BASE_FILE_REGULAR)
        st = damaged(ctx, folder, SUMS, "is missing");
    else
        st = base_file_read(ctx, path, SUMS_MAX_BYTES, &text, &bytes);
    if (st >= 0) st = verify_listed(ctx, folder, text);
    base_free(ctx, text);
    base_free(ctx, path);
    return st;
}

base_status_t tr_checkpoint_set_aside(base_ctx_t *ctx, const char *root, int64_t microbatch)
{
    char *from, *to;
    base_status_t st;

    BASE_TRY(remove_named(ctx, root, microbatch, ".damaged"));
    BASE_TRY(tr_checkpoint_path(ctx, root, microbatch, 0, &from));
    st = path_with(ctx, root, microbatch, ".damaged", &to);
    if (st >= 0) {
        st = base_file_rename(ctx, from, to);
        base_free(ctx, to);
    }
    base_free(ctx, from);
    return st;
}
