#include "data/h5_sink.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

/* What the property list carries to `sink_open`. */
typedef struct sink_info {
    base_ctx_t *ctx;
    int *failure;
} sink_info_t;

typedef struct sink_file {
    H5FD_t pub; /* first: the library casts */
    base_ctx_t *ctx;
    int fd;
    int *failure;
    haddr_t eoa, eof;
    dev_t device;
    ino_t inode;
} sink_file_t;

static void note(const sink_file_t *f)
{
    if (*f->failure == 0) *f->failure = errno != 0 ? errno : EIO;
}

static H5FD_t *sink_open(const char *name, unsigned flags, hid_t access, haddr_t maxaddr)
{
    const sink_info_t *info = H5Pget_driver_info(access);
    struct stat status;

    (void)maxaddr;
    if (info == NULL || (flags & H5F_ACC_CREAT) == 0) return NULL;
    sink_file_t *f = base_calloc(info->ctx, 1, sizeof *f, name);
    if (f == NULL) return NULL;
    f->ctx = info->ctx;
    f->failure = info->failure;
    f->fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        note(f);
        base_free(f->ctx, f);
        return NULL;
    }
    if (fstat(f->fd, &status) == 0) {
        f->device = status.st_dev;
        f->inode = status.st_ino;
    }
    return &f->pub;
}

static herr_t sink_close(H5FD_t *file)
{
    sink_file_t *f = (sink_file_t *)file;

    if (close(f->fd) != 0) note(f);
    base_free(f->ctx, f);
    return 0;
}

static int sink_compare(const H5FD_t *a, const H5FD_t *b)
{
    const sink_file_t *f = (const sink_file_t *)a, *g = (const sink_file_t *)b;

    if (f->device != g->device) return f->device < g->device ? -1 : 1;
    if (f->inode != g->inode) return f->inode < g->inode ? -1 : 1;
    return 0;
}

static herr_t sink_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}

static haddr_t sink_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const sink_file_t *)file)->eoa;
}

static herr_t sink_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t eoa)
{
    (void)type;
    ((sink_file_t *)file)->eoa = eoa;
    return 0;
}

static haddr_t sink_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const sink_file_t *)file)->eof;
}

/* What was never written, or not any more, reads as zeros. */
static herr_t sink_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes,
                        void *to)
{
    const sink_file_t *f = (const sink_file_t *)file;
    char *next = to;

    (void)type;
    (void)transfer;
    while (bytes > 0) {
        const ssize_t got = pread(f->fd, next, bytes, (off_t)at);

        if (got < 0 && errno == EINTR) continue;
        if (got < 0) note(f);
        if (got <= 0) break;
        next += got;
        at += (haddr_t)got;
        bytes -= (size_t)got;
    }
    memset(next, 0, bytes);
    return 0;
}

static herr_t sink_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes,
                         const void *from)
{
    sink_file_t *f = (sink_file_t *)file;
    const char *next = from;
    const haddr_t end = at + bytes;

    (void)type;
    (void)transfer;
    while (bytes > 0 && *f->failure == 0) {
        errno = 0;
        const ssize_t put = pwrite(f->fd, next, bytes, (off_t)at);

        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            note(f);
            break;
        }
        next += put;
        at += (haddr_t)put;
        bytes -= (size_t)put;
    }
    if (end > f->eof) f->eof = end;
    return 0;
}

static herr_t sink_truncate(H5FD_t *file, hid_t transfer, hbool_t closing)
{
    sink_file_t *f = (sink_file_t *)file;

    (void)transfer;
    (void)closing;
    if (f->eoa != f->eof && *f->failure == 0 && ftruncate(f->fd, (off_t)f->eoa) != 0) note(f);
    f->eof = f->eoa;
    return 0;
}

static const H5FD_class_t SINK = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)300, /* below 256: the library's own; below 512: for tests */
#endif
    .name = "cadre_sink",
    .maxaddr = (((haddr_t)1) << (8 * sizeof(off_t) - 1)) - 1,
    .fc_degree = H5F_CLOSE_WEAK,
    .fapl_size = sizeof(sink_info_t),
    .open = sink_open,
    .close = sink_close,
    .cmp = sink_compare,
    .query = sink_query,
    .get_eoa = sink_get_eoa,
    .set_eoa = sink_set_eoa,
    .get_eof = sink_get_eof,
    .read = sink_read,
    .write = sink_write,
    .truncate = sink_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t data_h5_sink_create(base_ctx_t *ctx, const char *path, data_h5_sink_t *sink)
{
    const sink_info_t info = {.ctx = ctx, .failure = &sink->failure};

    *sink = (data_h5_sink_t){.driver = H5FDregister(&SINK), .access = H5Pcreate(H5P_FILE_ACCESS)};
    if (sink->driver < 0 || sink->access < 0 ||
        H5Pset_libver_bounds(sink->access, H5F_LIBVER_V18, H5F_LIBVER_V18) < 0 ||
        H5Pset_driver(sink->access, sink->driver, &info) < 0)
        return -1;
    hid_t file = -1;
    const hid_t create = H5Pcreate(H5P_FILE_CREATE);
    /* The root group would say in which second it was made. */
    if (create >= 0 && H5Pset_obj_track_times(create, 0) >= 0)
        file = H5Fcreate(path, H5F_ACC_TRUNC, create, sink->access);
    if (create >= 0) (void)H5Pclose(create);
    return file;
}

int data_h5_sink_end(data_h5_sink_t *sink)
{
    if (sink->access >= 0) (void)H5Pclose(sink->access);
    if (sink->driver >= 0) (void)H5FDunregister(sink->driver);
    return sink->failure;
}
