#include "base/shared_memory.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct base_shared {
    base_ctx_t *ctx;
    void *address;
    size_t map_bytes; /* to unmap */
    base_shared_name_t name;
    int file; /* the creator's stays open, since others find it there; -1: opened */
};

static base_status_t map_file(base_shared_t *s, int file, void *at)
{
    const int flags = MAP_SHARED | (at != NULL ? MAP_FIXED : 0);
    const size_t bytes = s->name.bytes > 0 ? (size_t)s->name.bytes : 1;

    s->map_bytes = at == NULL ? bytes : 0;
    s->address = mmap(at, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
    return s->address != MAP_FAILED ? BASE_OK : BASE_ERR_NOMEM;
}

base_status_t base_shared_create(base_ctx_t *ctx, int64_t bytes, void *at, const char *what,
                                 base_shared_t **shared_p)
{
    struct stat status;
    base_shared_t *s = base_calloc(ctx, 1, sizeof *s, "shared memory");

    if (s == NULL) return BASE_ERR_NOMEM;
    s->ctx = ctx;
    s->name = (base_shared_name_t){.process = (int64_t)getpid(), .bytes = bytes};
    s->file = s->name.file = memfd_create("cadre", MFD_CLOEXEC);
    if (s->file < 0 || ftruncate(s->file, bytes > 0 ? bytes : 1) != 0 ||
        fstat(s->file, &status) != 0 || map_file(s, s->file, at) < 0) {
        const int e = errno;

        if (s->file >= 0) (void)close(s->file);
        base_free(ctx, s);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "%s: no %" PRId64 " bytes of shared memory: %s", what, bytes, strerror(e));
    }
    s->name.device = (uint64_t)status.st_dev;
    s->name.inode = (uint64_t)status.st_ino;
    *shared_p = s;
    return BASE_OK;
}

base_status_t base_shared_open(base_ctx_t *ctx, const base_shared_name_t *name, void *at,
                               const char *what, base_shared_t **shared_p)
{
    struct stat status = {0};
    char path[64];
    base_shared_t *s = base_calloc(ctx, 1, sizeof *s, "shared memory");

    if (s == NULL) return BASE_ERR_NOMEM;
    s->ctx = ctx;
    s->name = *name;
    s->file = -1;
    (void)snprintf(path, sizeof path, "/proc/%" PRId64 "/fd/%" PRId32, name->process, name->file);
    const int file = open(path, O_RDWR | O_CLOEXEC);
    const int e = errno;
    /* The number of a process or file may have been used again by now. */
    const bool same = file >= 0 && fstat(file, &status) == 0 &&
                      (uint64_t)status.st_dev == name->device &&
                      (uint64_t)status.st_ino == name->inode && status.st_size >= name->bytes;
    base_status_t st = BASE_OK;

    if (!same)
        st = BASE_FAIL(ctx, BASE_ERR_COMM, BASE_MSG_COMM_05,
                       "%s: shared memory of process %" PRId64 ": %s: %s", what, name->process,
                       path, file < 0 ? strerror(e) : "is something else by now");
    else if (map_file(s, file, at) < 0)
        st = BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                       "%s: cannot map %" PRId64 " bytes of shared memory: %s", what, name->bytes,
                       strerror(errno));
    if (file >= 0) (void)close(file);
    if (st < 0)
        base_free(ctx, s);
    else
        *shared_p = s;
    return st;
}

void base_shared_close(base_shared_t *shared)
{
    if (shared == NULL) return;
    if (shared->map_bytes > 0) (void)munmap(shared->address, shared->map_bytes);
    if (shared->file >= 0) (void)close(shared->file);
    base_free(shared->ctx, shared);
}

void *base_shared_address(const base_shared_t *shared)
{
    return shared->address;
}

int64_t base_shared_bytes(const base_shared_t *shared)
{
    return shared->name.bytes;
}

base_shared_name_t base_shared_name(const base_shared_t *shared)
{
    return shared->name;
}
