#include "lora/adapter_folder.h"

#include "base/file.h"
#include "base/memory.h"
#include "lora/layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX_BYTES 32

static const char *const own_files[] = {LORA_FOLDER_CONFIG, LORA_FOLDER_WEIGHTS, LORA_FOLDER_PICKLE,
                                        LORA_FOLDER_README};
#define NUM_OWN_FILES (sizeof own_files / sizeof *own_files)

/* ==== names ==== */

void lora_module_name(int32_t layer, int32_t target, char *name)
{
    (void)snprintf(name, DATA_MODEL_NAME_BYTES, "model.layers.%" PRId32 ".%s.%s", layer,
                   lora_target_parent(target), lora_target_name(target));
}

void lora_tensor_name(int32_t layer, int32_t target, bool is_b, char *name)
{
    char module[DATA_MODEL_NAME_BYTES];

    lora_module_name(layer, target, module);
    (void)snprintf(name, LORA_TENSOR_NAME_BYTES, LORA_TENSOR_PREFIX "%s%s", module,
                   is_b ? LORA_TENSOR_B_SUFFIX : LORA_TENSOR_A_SUFFIX);
}

/* ==== what stands in a folder ==== */

/* One of our files, or what base/file.h leaves of one when its process dies. */
static bool is_own(const char *name)
{
    for (size_t i = 0; i < NUM_OWN_FILES; i++) {
        const size_t n = strlen(own_files[i]);

        if (strncmp(name, own_files[i], n) != 0) continue;
        if (name[n] == '\0' || strncmp(name + n, ".tmp-", 5) == 0) return true;
    }
    return false;
}

/* Removes our files and the folder, when nothing else stands in it. */
static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;

    if (folder == NULL) return;
    while ((entry = readdir(folder)) != NULL)
        if (is_own(entry->d_name)) (void)unlinkat(dirfd(folder), entry->d_name, 0);
    (void)closedir(folder);
    (void)rmdir(path);
}

static base_status_t refuse(base_ctx_t *ctx, const char *dir, const char *why, const char *entry)
{
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_DATA_48, "%s: %s%.200s", dir, why, entry);
}

/* *exists: there is a folder that may be replaced. */
static base_status_t check_in_the_way(base_ctx_t *ctx, const char *dir, bool *exists)
{
    base_status_t st = BASE_OK;
    bool config = false, empty = true;
    const struct dirent *entry;
    struct stat info;
    DIR *folder;

    *exists = false;
    if (lstat(dir, &info) != 0) return BASE_OK;
    if (S_ISLNK(info.st_mode)) return refuse(ctx, dir, "is a link", "");
    if (!S_ISDIR(info.st_mode)) return refuse(ctx, dir, "is a file", "");
    folder = opendir(dir);
    if (folder == NULL)
        return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot list: %s", dir,
                         strerror(errno));
    while (st >= 0 && (entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        empty = false;
        if (strcmp(entry->d_name, LORA_FOLDER_CONFIG) == 0) config = true;
        if (!is_own(entry->d_name))
            st = refuse(ctx, dir, "holds what no adapter folder has: ", entry->d_name);
    }
    (void)closedir(folder);
    if (st >= 0 && !empty && !config)
        st = refuse(ctx, dir, "is no adapter folder: it has no " LORA_FOLDER_CONFIG, "");
    *exists = st >= 0;
    return st;
}

/* ==== begin and end ==== */

static void folder_free(lora_folder_t *f)
{
    base_free(f->ctx, f->temporary);
    base_free(f->ctx, f->dir);
    *f = (lora_folder_t){0};
}

base_status_t lora_folder_begin(base_ctx_t *ctx, const char *dir, lora_folder_t *f)
{
    const size_t room = strlen(dir) + SUFFIX_BYTES;
    base_status_t st = BASE_ERR_NOMEM;
    bool exists;

    *f = (lora_folder_t){.ctx = ctx};
    f->dir = base_strdup(ctx, dir, dir);
    f->temporary = base_alloc(ctx, room, dir);
    if (f->dir == NULL || f->temporary == NULL) goto err_free;
    for (size_t n = strlen(f->dir); n > 1 && f->dir[n - 1] == '/'; n--)
        f->dir[n - 1] = '\0';
    (void)snprintf(f->temporary, room, "%s.tmp-%04d", f->dir, base_ctx_rank(ctx));
    BASE_TRY_GOTO(check_in_the_way(ctx, f->dir, &exists), st, err_free);
    remove_folder(f->temporary);
    if (base_file_kind(f->temporary) != BASE_FILE_NONE) {
        st = BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_02,
                       "%s: is in the way, and holds files that are not of an adapter",
                       f->temporary);
        goto err_free;
    }
    BASE_TRY_GOTO(base_file_make_dirs(ctx, f->temporary), st, err_free);
    return BASE_OK;
err_free:
    folder_free(f);
    return st;
}

void lora_folder_discard(lora_folder_t *f)
{
    if (f->ctx == NULL) return;
    remove_folder(f->temporary);
    folder_free(f);
}

/* base/file.h's rename can fail after it has renamed: here the steps are made and synced once. */
static base_status_t move(const lora_folder_t *f, const char *from, const char *to)
{
    if (rename(from, to) == 0) return BASE_OK;
    return BASE_FAIL(f->ctx, base_file_status(errno), BASE_MSG_IO_02,
                     "%s: cannot rename %s to it: %s", to, from, strerror(errno));
}

/* Where the file system cannot exchange: two renames, the first one taken back when the second
 * fails. */
static base_status_t replace_by_two(const lora_folder_t *f)
{
    const size_t room = strlen(f->dir) + SUFFIX_BYTES;
    char *old = base_alloc(f->ctx, room, f->dir);
    base_status_t st;

    if (old == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(old, room, "%s.old-%04d", f->dir, base_ctx_rank(f->ctx));
    remove_folder(old);
    BASE_TRY_GOTO(move(f, f->dir, old), st, out_free);
    st = move(f, f->temporary, f->dir);
    if (st >= 0)
        remove_folder(old);
    else
        (void)rename(old, f->dir);
out_free:
    base_free(f->ctx, old);
    return st;
}

static base_status_t take_place(const lora_folder_t *f)
{
    bool exists;

    /* Someone may have put something there since the beginning. */
    BASE_TRY(check_in_the_way(f->ctx, f->dir, &exists));
    if (!exists) return move(f, f->temporary, f->dir);
    if (renameat2(AT_FDCWD, f->temporary, AT_FDCWD, f->dir, RENAME_EXCHANGE) == 0) return BASE_OK;
    return replace_by_two(f);
}

static base_status_t sync_parent(const lora_folder_t *f)
{
    char *slash = strrchr(f->dir, '/');
    base_status_t st;

    if (slash == NULL) return base_file_sync(f->ctx, ".");
    if (slash == f->dir) return base_file_sync(f->ctx, "/");
    *slash = '\0';
    st = base_file_sync(f->ctx, f->dir);
    *slash = '/';
    return st;
}

base_status_t lora_folder_commit(lora_folder_t *f)
{
    base_status_t st = take_place(f);

    if (st >= 0) st = sync_parent(f);
    /* After an exchange the temporary name is the old folder's. */
    lora_folder_discard(f);
    return st;
}
