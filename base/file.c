#include "base/file.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX_BYTES 32

struct base_file {
    base_ctx_t *ctx;
    FILE *stream;
    char *path;
    char *temporary;
};

base_status_t base_file_status(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? BASE_ERR_SPACE : BASE_ERR_IO;
}

static base_status_t fail_read(base_ctx_t *ctx, const char *path, const char *what)
{
    return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: %s: %s", path, what, strerror(errno));
}

static base_status_t fail_write(base_ctx_t *ctx, const char *path, const char *what)
{
    return BASE_FAIL(ctx, base_file_status(errno), BASE_MSG_IO_02, "%s: %s: %s", path, what,
                     strerror(errno));
}

/* ==== sync, rename, folders ==== */

base_status_t base_file_sync(base_ctx_t *ctx, const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    base_status_t st = BASE_OK;

    if (fd < 0) return fail_write(ctx, path, "cannot open to sync");
    /* EINVAL: a file system that cannot sync folders has nothing to sync. */
    if (fsync(fd) != 0 && errno != EINVAL) st = fail_write(ctx, path, "cannot sync");
    (void)close(fd);
    return st;
}

static base_status_t sync_parent(base_ctx_t *ctx, const char *path)
{
    char *parent = base_strdup(ctx, path, "path");
    char *slash;
    base_status_t st;

    if (parent == NULL) return BASE_ERR_NOMEM;
    slash = strrchr(parent, '/');
    if (slash == NULL)
        st = base_file_sync(ctx, ".");
    else {
        slash[slash == parent ? 1 : 0] = '\0';
        st = base_file_sync(ctx, parent);
    }
    base_free(ctx, parent);
    return st;
}

base_status_t base_file_rename(base_ctx_t *ctx, const char *from, const char *to)
{
    if (rename(from, to) != 0)
        return BASE_FAIL(ctx, base_file_status(errno), BASE_MSG_IO_02,
                         "%s: cannot rename %s to it: %s", to, from, strerror(errno));
    return sync_parent(ctx, to);
}

base_file_kind_t base_file_kind(const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0) return BASE_FILE_NONE;
    if (S_ISREG(info.st_mode)) return BASE_FILE_REGULAR;
    return S_ISDIR(info.st_mode) ? BASE_FILE_FOLDER : BASE_FILE_OTHER;
}

/* Another rank may create the folder at the same time, so "exists" is looked at after mkdir and not
 * before. */
static base_status_t make_dir(base_ctx_t *ctx, const char *path)
{
    if (mkdir(path, 0777) == 0) return BASE_OK;
    if (errno == EEXIST && base_file_kind(path) == BASE_FILE_FOLDER) return BASE_OK;
    return fail_write(ctx, path, "cannot create the folder");
}

base_status_t base_file_make_dirs(base_ctx_t *ctx, const char *path)
{
    char *prefix;
    base_status_t st = BASE_OK;

    if (base_file_kind(path) == BASE_FILE_FOLDER) return BASE_OK;
    prefix = base_strdup(ctx, path, "path");
    if (prefix == NULL) return BASE_ERR_NOMEM;
    for (char *p = prefix; *p != '\0' && st >= 0; p++) {
        if (*p != '/' || p == prefix || p[1] == '/' || p[1] == '\0') continue;
        *p = '\0';
        /* Parents may exist in a folder where we may not create; so look first. */
        if (base_file_kind(prefix) != BASE_FILE_FOLDER) st = make_dir(ctx, prefix);
        *p = '/';
    }
    if (st >= 0) st = make_dir(ctx, prefix);
    base_free(ctx, prefix);
    return st;
}

base_status_t base_file_remove_folder(base_ctx_t *ctx, const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    base_status_t st = BASE_OK;

    if (dir == NULL) return errno == ENOENT ? BASE_OK : fail_write(ctx, path, "cannot remove");
    while (st >= 0 && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) != 0)
            st = fail_write(ctx, path, "cannot remove what is in it");
    }
    (void)closedir(dir);
    if (st >= 0 && rmdir(path) != 0) st = fail_write(ctx, path, "cannot remove");
    return st;
}

/* ==== writing ==== */

static void file_free(base_file_t *file)
{
    base_ctx_t *ctx = file->ctx;

    base_free(ctx, file->temporary);
    base_free(ctx, file->path);
    base_free(ctx, file);
}

base_status_t base_file_create(base_ctx_t *ctx, const char *path, base_file_t **file_p)
{
    const size_t room = strlen(path) + SUFFIX_BYTES;
    base_status_t st = BASE_ERR_NOMEM;
    base_file_t *file = base_calloc(ctx, 1, sizeof *file, path);

    if (file == NULL) return BASE_ERR_NOMEM;
    file->ctx = ctx;
    file->path = base_strdup(ctx, path, path);
    if (file->path == NULL) goto err_free_file;
    file->temporary = base_alloc(ctx, room, path);
    if (file->temporary == NULL) goto err_free_file;
    (void)snprintf(file->temporary, room, "%s.tmp-%04d", path, base_ctx_rank(ctx));
    file->stream = fopen(file->temporary, "we");
    if (file->stream == NULL) {
        st = fail_write(ctx, path, "cannot create");
        goto err_free_file;
    }
    base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_FILE);
    *file_p = file;
    return BASE_OK;
err_free_file:
    file_free(file);
    return st;
}

FILE *base_file_stream(base_file_t *file)
{
    return file->stream;
}

/* Everything up to the close; the stream is closed whatever happens. */
static base_status_t finish_stream(base_file_t *file)
{
    base_status_t st = BASE_OK;

    /* A write failed earlier and its caller did not look: errno is lost, another one brings it back. */
    if (ferror(file->stream)) {
        errno = EIO;
        (void)fputc('\n', file->stream);
        (void)fflush(file->stream);
        st = fail_write(file->ctx, file->path, "cannot write");
    } else if (fflush(file->stream) != 0)
        st = fail_write(file->ctx, file->path, "cannot write");
    else if (fsync(fileno(file->stream)) != 0 && errno != EINVAL)
        st = fail_write(file->ctx, file->path, "cannot sync");
    if (fclose(file->stream) != 0 && st >= 0)
        st = fail_write(file->ctx, file->path, "cannot close");
    base_memory_count_close(base_ctx_memory(file->ctx), BASE_RESOURCE_FILE);
    return st;
}

base_status_t base_file_commit(base_file_t *file)
{
    base_status_t st = finish_stream(file);

    if (st >= 0 && rename(file->temporary, file->path) != 0)
        st = fail_write(file->ctx, file->path, "cannot replace");
    if (st >= 0)
        st = sync_parent(file->ctx, file->path);
    else
        (void)unlink(file->temporary);
    file_free(file);
    return st;
}

void base_file_discard(base_file_t *file)
{
    if (file == NULL) return;
    (void)fclose(file->stream);
    base_memory_count_close(base_ctx_memory(file->ctx), BASE_RESOURCE_FILE);
    (void)unlink(file->temporary);
    file_free(file);
}

base_status_t base_file_write(base_ctx_t *ctx, const char *path, const void *data, size_t bytes)
{
    base_file_t *file;

    BASE_TRY(base_file_create(ctx, path, &file));
    if (bytes > 0 && fwrite(data, 1, bytes, file->stream) != bytes) {
        const base_status_t st = fail_write(ctx, path, "cannot write");

        base_file_discard(file);
        return st;
    }
    return base_file_commit(file);
}

/* ==== reading ==== */

/* Reads to the end of the stream: st_size is only a first guess (0 for /proc, and the file may
 * grow). */
static base_status_t read_all(base_ctx_t *ctx, const char *path, FILE *stream, size_t guess,
                              size_t max_bytes, char **data_p, size_t *bytes)
{
    size_t room = guess < max_bytes ? guess + 1 : max_bytes + 1;
    size_t used = 0;
    char *data = base_alloc(ctx, room + 1, path);

    if (data == NULL) return BASE_ERR_NOMEM;
    for (;;) {
        char *larger;

        used += fread(data + used, 1, room - used, stream);
        if (used > max_bytes || used < room) break;
        room = room > max_bytes / 2 ? max_bytes + 1 : room * 2;
        larger = base_realloc(ctx, data, (int64_t)room + 1, 1, path);
        if (larger == NULL) {
            base_free(ctx, data);
            return BASE_ERR_NOMEM;
        }
        data = larger;
    }
    if (ferror(stream) || used > max_bytes) {
        const base_status_t st =
            ferror(stream)
                ? fail_read(ctx, path, "cannot read")
                : BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_IO_03,
                            "%s: more than the %zu bytes that are allowed here", path, max_bytes);

        base_free(ctx, data);
        return st;
    }
    data[used] = '\0';
    *data_p = data;
    *bytes = used;
    return BASE_OK;
}

base_status_t base_file_read(base_ctx_t *ctx, const char *path, int64_t max_bytes, char **data_p,
                             size_t *bytes)
{
    struct stat info;
    FILE *stream;
    base_status_t st;

    if (max_bytes < 0 || max_bytes > INT64_MAX / 4)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: limit of %" PRId64 " bytes", path,
                         max_bytes);
    stream = fopen(path, "re");
    if (stream == NULL) return fail_read(ctx, path, "cannot open");
    if (fstat(fileno(stream), &info) != 0) {
        st = fail_read(ctx, path, "cannot look at it");
    } else if (S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        st = fail_read(ctx, path, "cannot read");
    } else if (info.st_size > max_bytes) {
        st = BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_IO_03,
                       "%s: %" PRId64 " bytes, at most %" PRId64 " are allowed here", path,
                       (int64_t)info.st_size, max_bytes);
    } else {
        st = read_all(ctx, path, stream, (size_t)info.st_size, (size_t)max_bytes, data_p, bytes);
    }
    (void)fclose(stream);
    return st;
}
