#include "trainer/run/checkpoint_h5.h"

#include "base/file.h"
#include "base/memory.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* ==== errors ==== */

static base_status_t bad_write(const tr_h5_t *at, const char *name, const char *reason)
{
    return BASE_FAIL(at->ctx, BASE_ERR_IO, BASE_MSG_RUN_07, "%s: cannot write \"%s%s%s\": %s",
                     at->path, at->group, at->group[0] != '\0' ? "/" : "", name, reason);
}

static base_status_t bad_read(const tr_h5_t *at, const char *name, const char *reason)
{
    return BASE_FAIL(at->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_06, "%s: \"%s%s%s\": %s", at->path,
                     at->group, at->group[0] != '\0' ? "/" : "", name, reason);
}

/* ==== files and groups ==== */

static base_status_t begin(base_ctx_t *ctx, const char *path, tr_h5_t *file)
{
    *file = (tr_h5_t){.ctx = ctx, .id = -1, .path = base_strdup(ctx, path, "checkpoint")};
    return file->path == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

base_status_t tr_h5_create(base_ctx_t *ctx, const char *path, tr_h5_t *file)
{
    char reason[DATA_H5_REASON_BYTES];

    BASE_TRY(begin(ctx, path, file));
    file->sink = base_calloc(ctx, 1, sizeof *file->sink, "checkpoint");
    if (file->sink == NULL) {
        base_free(ctx, file->path);
        return BASE_ERR_NOMEM;
    }
    data_h5_quiet_begin(&file->quiet);
    file->id = data_h5_sink_create(ctx, path, file->sink);
    if (file->id >= 0) return BASE_OK;
    data_h5_reason(reason);
    return tr_h5_close(file, file->sink->failure != 0 ? BASE_OK : bad_write(file, "", reason));
}

base_status_t tr_h5_open(base_ctx_t *ctx, const char *path, tr_h5_t *file)
{
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    char reason[DATA_H5_REASON_BYTES];
    base_status_t st;

    st = begin(ctx, path, file);
    if (st < 0) {
        (void)H5Pclose(access);
        return st;
    }
    data_h5_quiet_begin(&file->quiet);
    if (access >= 0 && H5Pset_file_locking(access, 0, 1) >= 0)
        file->id = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (file->id < 0)
        st = BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_06, "%s: cannot be opened: %s", path,
                       data_h5_reason(reason));
    if (access >= 0) (void)H5Pclose(access);
    return st < 0 ? tr_h5_close(file, st) : BASE_OK;
}

base_status_t tr_h5_close(tr_h5_t *file, base_status_t outcome)
{
    const int closed = file->id < 0 || H5Fclose(file->id) >= 0;
    const int failure = file->sink != NULL ? data_h5_sink_end(file->sink) : 0;
    base_status_t st = outcome;

    data_h5_quiet_end(&file->quiet);
    if (st >= 0 && failure != 0)
        st = BASE_FAIL(file->ctx, base_file_status(failure), BASE_MSG_RUN_07,
                       "%s: cannot write: %s", file->path, strerror(failure));
    if (st >= 0 && !closed) st = bad_write(file, "", "the file cannot be closed");
    if (st < 0 && file->sink != NULL) (void)unlink(file->path);
    base_free(file->ctx, file->sink);
    base_free(file->ctx, file->path);
    *file = (tr_h5_t){.id = -1};
    return st;
}

static hid_t make_group(const tr_h5_t *file, const char *name)
{
    const hid_t links = H5Pcreate(H5P_LINK_CREATE), list = H5Pcreate(H5P_GROUP_CREATE);
    hid_t id = -1;

    if (links >= 0 && list >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0 &&
        H5Pset_obj_track_times(list, 0) >= 0)
        id = H5Gcreate2(file->id, name, links, list, H5P_DEFAULT);
    if (links >= 0) (void)H5Pclose(links);
    if (list >= 0) (void)H5Pclose(list);
    return id;
}

base_status_t tr_h5_group(const tr_h5_t *file, const char *name, tr_h5_t *group)
{
    char reason[DATA_H5_REASON_BYTES];

    *group = *file;
    (void)snprintf(group->group, sizeof group->group, "%s", name);
    group->id = file->sink != NULL ? make_group(file, name) : H5Gopen2(file->id, name, H5P_DEFAULT);
    if (group->id >= 0) return BASE_OK;
    data_h5_reason(reason);
    return file->sink != NULL ? bad_write(file, name, reason) : bad_read(file, name, reason);
}

void tr_h5_leave(tr_h5_t *group)
{
    if (group->id >= 0) (void)H5Gclose(group->id);
    group->id = -1;
}

/* ==== writing ==== */

base_status_t tr_h5_put_int(const tr_h5_t *at, const char *name, int64_t value)
{
    char reason[DATA_H5_REASON_BYTES];

    if (data_h5_put_number(at->id, name, value, reason)) return BASE_OK;
    return bad_write(at, name, reason);
}

base_status_t tr_h5_put_double(const tr_h5_t *at, const char *name, double value)
{
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute =
        space < 0 ? -1 : H5Acreate2(at->id, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    char reason[DATA_H5_REASON_BYTES];
    const int good = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_DOUBLE, &value) >= 0;

    if (!good) data_h5_reason(reason);
    if (attribute >= 0) (void)H5Aclose(attribute);
    if (space >= 0) (void)H5Sclose(space);
    return good ? BASE_OK : bad_write(at, name, reason);
}

base_status_t tr_h5_put_text(const tr_h5_t *at, const char *name, const char *text)
{
    char reason[DATA_H5_REASON_BYTES];

    if (data_h5_put_text(at->id, name, text, reason)) return BASE_OK;
    return bad_write(at, name, reason);
}

/* As it lies in the file, and in memory: hosts are little-endian. */
static hid_t type_of(kern_dtype_t dtype)
{
    switch (dtype) {
    case KERN_F64:
        return H5T_IEEE_F64LE;
    case KERN_BF16:
        return H5T_STD_U16LE;
    default:
        return H5T_IEEE_F32LE;
    }
}

static base_status_t put_array(const tr_h5_t *at, const char *name, hid_t type, int64_t count,
                               const void *data)
{
    char reason[DATA_H5_REASON_BYTES];

    if (data_h5_put_array(at->id, name, type, count, data, reason)) return BASE_OK;
    return bad_write(at, name, reason);
}

base_status_t tr_h5_put_array(const tr_h5_t *at, const char *name, kern_dtype_t dtype,
                              int64_t count, const void *data)
{
    return put_array(at, name, type_of(dtype), count, data);
}

base_status_t tr_h5_put_bytes(const tr_h5_t *at, const char *name, int64_t count, const void *data)
{
    return put_array(at, name, H5T_STD_U8LE, count, data);
}

/* ==== reading ==== */

static base_status_t get_number(const tr_h5_t *at, const char *name, H5T_class_t class,
                                hid_t memory, void *value)
{
    const hid_t attribute = H5Aopen(at->id, name, H5P_DEFAULT);
    const hid_t type = attribute < 0 ? -1 : H5Aget_type(attribute);
    const hid_t space = attribute < 0 ? -1 : H5Aget_space(attribute);
    const int fits = type >= 0 && space >= 0 && H5Tget_class(type) == class &&
                     H5Sget_simple_extent_npoints(space) == 1;
    const int good = fits && H5Aread(attribute, memory, value) >= 0;

    if (space >= 0) (void)H5Sclose(space);
    if (type >= 0) (void)H5Tclose(type);
    if (attribute >= 0) (void)H5Aclose(attribute);
    if (good) return BASE_OK;
    return bad_read(at, name, attribute < 0 ? "is missing" : "is not one number");
}

base_status_t tr_h5_get_int(const tr_h5_t *at, const char *name, int64_t *value)
{
    return get_number(at, name, H5T_INTEGER, H5T_NATIVE_INT64, value);
}

base_status_t tr_h5_get_double(const tr_h5_t *at, const char *name, double *value)
{
    return get_number(at, name, H5T_FLOAT, H5T_NATIVE_DOUBLE, value);
}

base_status_t tr_h5_get_text(const tr_h5_t *at, const char *name, char *text, size_t room)
{
    const hid_t attribute = H5Aopen(at->id, name, H5P_DEFAULT);
    const hid_t type = attribute < 0 ? -1 : H5Aget_type(attribute);
    const int fits = type >= 0 && H5Tget_class(type) == H5T_STRING &&
                     H5Tis_variable_str(type) == 0 && H5Tget_size(type) <= room;

    memset(text, 0, room);
    const int good = fits && H5Aread(attribute, type, text) >= 0;
    text[room - 1] = '\0';
    if (type >= 0) (void)H5Tclose(type);
    if (attribute >= 0) (void)H5Aclose(attribute);
    if (good) return BASE_OK;
    return bad_read(at, name, attribute < 0 ? "is missing" : "is not a text of the right length");
}

int tr_h5_has_array(const tr_h5_t *at, const char *name)
{
    return H5Lexists(at->id, name, H5P_DEFAULT) > 0;
}

int tr_h5_has_group(const tr_h5_t *file, const char *name)
{
    return H5Lexists(file->id, name, H5P_DEFAULT) > 0;
}

/* `word` names the type in messages. */
static base_status_t get_array(const tr_h5_t *at, const char *name, hid_t want, const char *word,
                               int64_t count, void *data)
{
    char reason[DATA_H5_REASON_BYTES + 64] = "";
    const hid_t set = H5Dopen2(at->id, name, H5P_DEFAULT);
    const hid_t type = set < 0 ? -1 : H5Dget_type(set), space = set < 0 ? -1 : H5Dget_space(set);
    const int64_t found = space < 0 ? -1 : (int64_t)H5Sget_simple_extent_npoints(space);
    int good = 0;

    if (set < 0)
        (void)snprintf(reason, sizeof reason, "is missing");
    else if (type < 0 || H5Tequal(type, want) <= 0)
        (void)snprintf(reason, sizeof reason, "is not of type %s", word);
    else if (found != count)
        (void)snprintf(reason, sizeof reason, "has %" PRId64 " elements, wanted %" PRId64, found,
                       count);
    else
        good = H5Dread(set, want, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    if (!good && reason[0] == '\0') data_h5_reason(reason);
    if (space >= 0) (void)H5Sclose(space);
    if (type >= 0) (void)H5Tclose(type);
    if (set >= 0) (void)H5Dclose(set);
    return good ? BASE_OK : bad_read(at, name, reason);
}

base_status_t tr_h5_get_array(const tr_h5_t *at, const char *name, kern_dtype_t dtype,
                              int64_t count, void *data)
{
    return get_array(at, name, type_of(dtype), kern_dtype_name(dtype), count, data);
}

base_status_t tr_h5_get_bytes(const tr_h5_t *at, const char *name, int64_t count, void *data)
{
    return get_array(at, name, H5T_STD_U8LE, "uint8", count, data);
}
