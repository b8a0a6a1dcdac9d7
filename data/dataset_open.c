/* Opening a dataset: everything that costs O(documents) is checked here, in one pass. */
#include "base/memory.h"
#include "data/dataset_file.h"
#include "data/json_read.h"
#include "data/model_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAULT(o, message, ...) DATA_ERROR((o)->at.errors, (message), (o)->at.path, __VA_ARGS__)

/* What is open while a dataset is being opened. */
typedef struct opening {
    data_dataset_t *ds;
    bool full;
    int64_t file_bytes;
    data_h5_place_t at;
} opening_t;

/* ==== the file ==== */

/* Whether there is a file that can be read. Its size, for messages. */
static base_status_t look_at(base_ctx_t *ctx, const char *path, int64_t *bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    int error = errno;

    if (fd >= 0) {
        error = fstat(fd, &info) != 0 ? errno : S_ISREG(info.st_mode) ? 0 : EISDIR;
        *bytes = error == 0 ? (int64_t)info.st_size : 0;
        (void)close(fd);
    }
    if (error == 0) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot open: %s", path,
                     error == EISDIR ? "is no regular file" : strerror(error));
}

/* False: reported. */
static bool open_file(opening_t *o)
{
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    char reason[DATA_H5_REASON_BYTES];

    if (H5Fis_hdf5(o->at.path) <= 0) {
        FAULT(o, BASE_MSG_DATA_11, "is no HDF5 file (%" PRId64 " bytes)", o->file_bytes);
    } else {
        /* Readers need no lock, and network file systems may have none. */
        if (access >= 0) (void)H5Pset_file_locking(access, 0, 1);
        o->at.file = H5Fopen(o->at.path, H5F_ACC_RDONLY, access >= 0 ? access : H5P_DEFAULT);
        if (o->at.file < 0)
            FAULT(o, BASE_MSG_DATA_12, "HDF5 cannot open it (%" PRId64 " bytes): %s", o->file_bytes,
                  data_h5_reason(reason));
    }
    if (access >= 0) (void)H5Pclose(access);
    if (o->at.file < 0) return false;
    base_memory_count_open(base_ctx_memory(o->at.ctx), BASE_RESOURCE_H5);
    return true;
}

/* The descriptor behind HDF5's own, so that both mean one file whatever is renamed meanwhile. */
static base_status_t open_plain(opening_t *o)
{
    data_dataset_t *ds = o->ds;
    void *handle = NULL;

    if (H5Fget_vfd_handle(o->at.file, H5P_DEFAULT, &handle) < 0 || handle == NULL)
        return BASE_FAIL(o->at.ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                         "%s: HDF5 gives no file descriptor", o->at.path);
    ds->fd = fcntl(*(const int *)handle, F_DUPFD_CLOEXEC, 0);
    if (ds->fd < 0)
        return BASE_FAIL(o->at.ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot open: %s", o->at.path,
                         strerror(errno));
    base_memory_count_open(base_ctx_memory(o->at.ctx), BASE_RESOURCE_FILE);
    return BASE_OK;
}

/* ==== attributes ==== */

/* Whether it is our format at all. False: reported. */
static bool read_format(opening_t *o)
{
    base_error_list_t *errors = o->at.errors, aside;
    char *format = NULL;
    int64_t version = 0;
    bool good = false;

    /* A foreign file lacks them or has them in another type: that is DATA-11, not damage. */
    base_error_list_init(&aside, o->at.ctx);
    o->at.errors = &aside;
    const bool has_format = data_h5_text(&o->at, "format", &format);
    const bool has_version = data_h5_number(&o->at, "format_version", &version);
    o->at.errors = errors;
    base_error_list_deinit(&aside);
    if (o->at.no_memory)
        good = false;
    else if (!has_format || strcmp(format, DATA_DATASET_FORMAT) != 0)
        FAULT(o, BASE_MSG_DATA_11,
              "is an HDF5 file whose attribute \"format\" is %s%.40s%s, "
              "wanted \"" DATA_DATASET_FORMAT "\"",
              has_format ? "\"" : "missing", has_format ? format : "", has_format ? "\"" : "");
    else if (!has_version)
        FAULT(o, BASE_MSG_DATA_11, "has no attribute \"format_version\", wanted %d",
              DATA_DATASET_FORMAT_VERSION);
    else if (version != DATA_DATASET_FORMAT_VERSION)
        FAULT(o, BASE_MSG_DATA_11, "has format version %" PRId64 ", this program reads %d", version,
              DATA_DATASET_FORMAT_VERSION);
    else
        good = true;
    base_free(o->at.ctx, format);
    return good;
}

static bool check_number(opening_t *o, const char *name, int64_t value, int64_t min, int64_t max)
{
    if (value >= min && value <= max) return true;
    FAULT(o, BASE_MSG_DATA_12, "attribute \"%s\" is %" PRId64 ", wanted %" PRId64 " to %" PRId64,
          name, value, min, max);
    return false;
}

static bool check_hex(opening_t *o, const char *name, const char *text)
{
    if (base_sha256_is_hex(text)) return true;
    FAULT(o, BASE_MSG_DATA_12, "attribute \"%s\" is \"%.70s\", wanted 64 hexadecimal digits", name,
          text);
    return false;
}

/* False: reported. All are looked at. */
static bool read_attributes(opening_t *o)
{
    data_dataset_attributes_t *a = &o->ds->attributes;
    bool good = true;
    char *text;

#define READ_TEXT(name)                                                                            \
    if (data_h5_text(&o->at, #name, &text))                                                        \
        a->name = text;                                                                            \
    else                                                                                           \
        good = false;
#define READ_NUMBER(name) good = data_h5_number(&o->at, #name, &a->name) && good;
    DATA_DATASET_ATTRIBUTE_MAP(READ_TEXT, READ_NUMBER)
#undef READ_TEXT
#undef READ_NUMBER
    if (!good) return false;
    good = check_number(o, "vocab_size", a->vocab_size, 1, DATA_MODEL_MAX_DIM);
    if (good) good = check_number(o, "eos_id", a->eos_id, -1, a->vocab_size - 1);
    if (good) good = check_number(o, "bos_id", a->bos_id, -1, a->vocab_size - 1);
    good = check_number(o, "num_documents", a->num_documents, 1, INT32_MAX) && good;
    good = check_number(o, "num_tokens", a->num_tokens, 2, INT64_MAX / 8) && good;
    good = check_number(o, "num_supervised", a->num_supervised, 1, INT64_MAX / 8) && good;
    good = check_hex(o, "tokenizer_sha256", a->tokenizer_sha256) && good;
    if (a->template_sha256[0] != '\0')
        good = check_hex(o, "template_sha256", a->template_sha256) && good;
    good = check_hex(o, "source_sha256", a->source_sha256) && good;
    return check_hex(o, "content_sha256", a->content_sha256) && good;
}

/* ==== arrays ==== */

/* Opens an array that has to have `count` elements. False: reported. */
static bool open_array(opening_t *o, const char *name, hid_t type, const char *word, int64_t count,
                       data_h5_array_t *array)
{
    const int64_t bytes = count * (int64_t)H5Tget_size(type);

    if (!data_h5_array_open(&o->at, name, type, word, array)) return false;
    if (array->count != count)
        FAULT(o, BASE_MSG_DATA_12,
              "dataset \"%s\" has %" PRId64 " elements, the attributes give %" PRId64, name,
              array->count, count);
    else if (array->offset >= 0 && array->offset > o->file_bytes - bytes)
        FAULT(o, BASE_MSG_DATA_12,
              "dataset \"%s\" lies in bytes %" PRId64 " to %" PRId64 " of a file of %" PRId64
              " bytes",
              name, array->offset, array->offset + bytes, o->file_bytes);
    else
        return true;
    data_h5_array_close(array);
    return false;
}

/* An array of O(documents), whole; NULL: reported, or no memory. */
static void *load_array(opening_t *o, const char *name, hid_t stored, hid_t memory,
                        const char *word, int64_t count)
{
    char reason[DATA_H5_REASON_BYTES];
    data_h5_array_t array;
    void *data;

    if (!open_array(o, name, stored, word, count, &array)) return NULL;
    data = base_calloc(o->at.ctx, count, H5Tget_size(memory), name);
    o->at.no_memory |= data == NULL;
    if (data != NULL && !data_h5_array_read(&array, memory, 0, count, data, reason)) {
        FAULT(o, BASE_MSG_DATA_12, "dataset \"%s\" cannot be read: %s", name, reason);
        base_free(o->at.ctx, data);
        data = NULL;
    }
    data_h5_array_close(&array);
    return data;
}

static void open_arrays(opening_t *o)
{
    data_dataset_t *ds = o->ds;
    const int64_t documents = ds->attributes.num_documents, tokens = ds->attributes.num_tokens;

    ds->offsets =
        load_array(o, "/offsets", H5T_STD_I64LE, H5T_NATIVE_INT64, "int64", documents + 1);
    /* Of an offsets-only dataset too: a rank that does not read them still plans by them. */
    (void)open_array(o, "/tokens", H5T_STD_I32LE, "int32", tokens, &ds->tokens);
    (void)open_array(o, "/loss_mask", H5T_STD_U8LE, "uint8", tokens, &ds->mask);
    if (!o->full) return;
    ds->supervised =
        load_array(o, "/supervised", H5T_STD_I32LE, H5T_NATIVE_INT32, "int32", documents);
    ds->line = load_array(o, "/line", H5T_STD_I64LE, H5T_NATIVE_INT64, "int64", documents);
}

/* ==== documents ==== */

/* Faults of documents come by the million when they come: the first ones are shown. */
typedef struct crowd {
    opening_t *o;
    int64_t count;
} crowd_t;

static bool crowd_shows(crowd_t *crowd)
{
    return crowd->count++ < BASE_ERROR_LIST_SHOWN;
}

static void crowd_finish(const crowd_t *crowd, base_message_t message, const char *what)
{
    if (crowd->count > BASE_ERROR_LIST_SHOWN)
        FAULT(crowd->o, message, "%" PRId64 " documents in all %s", crowd->count, what);
}

static void check_offsets(opening_t *o)
{
    data_dataset_t *ds = o->ds;
    const int64_t documents = ds->attributes.num_documents;
    const int64_t first = ds->offsets[0], last = ds->offsets[documents];
    crowd_t crowd = {.o = o};

    if (first != 0 || last != ds->attributes.num_tokens)
        FAULT(o, BASE_MSG_DATA_12,
              "dataset \"/offsets\" goes from %" PRId64 " to %" PRId64 ", wanted 0 to %" PRId64,
              first, last, ds->attributes.num_tokens);
    for (int64_t i = 0; i < documents; i++) {
        int64_t rows;

        if (__builtin_sub_overflow(ds->offsets[i + 1], ds->offsets[i], &rows)) rows = -1;
        if (rows > ds->max_rows) ds->max_rows = rows;
        if (rows < 1 && crowd_shows(&crowd))
            FAULT(o, BASE_MSG_DATA_12,
                  "document %" PRId64 ": \"/offsets\" goes from %" PRId64 " to %" PRId64
                  ", wanted at least one row",
                  i, ds->offsets[i], ds->offsets[i + 1]);
    }
    crowd_finish(&crowd, BASE_MSG_DATA_12, "have no rows");
}

static void check_supervised(opening_t *o)
{
    const data_dataset_t *ds = o->ds;
    crowd_t none = {.o = o}, wrong = {.o = o};
    int64_t sum = 0;

    for (int64_t i = 0; i < ds->attributes.num_documents; i++) {
        const int64_t rows = data_dataset_rows(ds, i);
        const int32_t ones = ds->supervised[i];

        sum += ones;
        if (ones == 0 && crowd_shows(&none))
            FAULT(o, BASE_MSG_DATA_14,
                  "document %" PRId64 " (line %" PRId64 " of the JSONL): none of its %" PRId64
                  " tokens is supervised",
                  i, ds->line[i], rows);
        if ((ones < 0 || (ones > 0 && ones >= rows)) && crowd_shows(&wrong))
            FAULT(o, BASE_MSG_DATA_12,
                  "document %" PRId64 ": \"/supervised\" says %" PRId32 " of %" PRId64
                  " rows, of which the first is never one",
                  i, ones, rows);
    }
    crowd_finish(&none, BASE_MSG_DATA_14, "have no supervised token");
    crowd_finish(&wrong, BASE_MSG_DATA_12, "have wrong numbers of supervised tokens");
    if (sum != ds->attributes.num_supervised)
        FAULT(o, BASE_MSG_DATA_12,
              "dataset \"/supervised\" has the sum %" PRId64 ", \"num_supervised\" is %" PRId64,
              sum, ds->attributes.num_supervised);
}

static void check_lines(opening_t *o)
{
    const data_dataset_t *ds = o->ds;
    crowd_t crowd = {.o = o};

    for (int64_t i = 0; i < ds->attributes.num_documents; i++)
        if (ds->line[i] < 1 && crowd_shows(&crowd))
            FAULT(o, BASE_MSG_DATA_12,
                  "document %" PRId64 ": \"/line\" says %" PRId64 ", wanted at least 1", i,
                  ds->line[i]);
    crowd_finish(&crowd, BASE_MSG_DATA_12, "have no line");
}

/* ==== open and close ==== */

static base_status_t check_all(opening_t *o)
{
    const size_t before = o->at.errors->count;

    if (!open_file(o) || !read_format(o)) return o->at.no_memory ? BASE_ERR_NOMEM : BASE_OK;
    if (read_attributes(o)) {
        open_arrays(o);
        if (o->at.no_memory) return BASE_ERR_NOMEM;
        if (o->ds->offsets != NULL) check_offsets(o);
        /* Numbers of rows mean nothing when the offsets are wrong. */
        if (o->ds->line != NULL) check_lines(o);
        if (o->ds->supervised != NULL && o->ds->line != NULL && o->at.errors->count == before)
            check_supervised(o);
    }
    if (o->at.no_memory) return BASE_ERR_NOMEM;
    if (!o->full || o->at.errors->count > before) return BASE_OK;
    return open_plain(o);
}

static void close_h5(data_dataset_t *ds)
{
    data_h5_quiet_t quiet;

    if (ds->file < 0) return;
    data_h5_quiet_begin(&quiet);
    data_h5_array_close(&ds->tokens);
    data_h5_array_close(&ds->mask);
    (void)H5Fclose(ds->file);
    data_h5_quiet_end(&quiet);
    ds->file = -1;
    base_memory_count_close(base_ctx_memory(ds->ctx), BASE_RESOURCE_H5);
}

void data_dataset_close(data_dataset_t *ds)
{
    if (ds == NULL) return;
    close_h5(ds);
    if (ds->fd >= 0) {
        (void)close(ds->fd);
        base_memory_count_close(base_ctx_memory(ds->ctx), BASE_RESOURCE_FILE);
    }
    if (ds->lock != NULL) (void)pthread_mutex_destroy(ds->lock);
#define FREE_TEXT(name)   base_free(ds->ctx, (void *)(uintptr_t)ds->attributes.name);
#define FREE_NUMBER(name) /* a plain value */
    DATA_DATASET_ATTRIBUTE_MAP(FREE_TEXT, FREE_NUMBER)
#undef FREE_TEXT
#undef FREE_NUMBER
    base_free(ds->ctx, ds->lock);
    base_free(ds->ctx, ds->line);
    base_free(ds->ctx, ds->supervised);
    base_free(ds->ctx, ds->offsets);
    base_free(ds->ctx, ds->path);
    base_free(ds->ctx, ds);
}

static base_status_t create(base_ctx_t *ctx, const char *path, data_dataset_t **ds_p)
{
    data_dataset_t *ds = base_calloc(ctx, 1, sizeof *ds, path);
    pthread_mutex_t *lock;

    if (ds == NULL) return BASE_ERR_NOMEM;
    ds->ctx = ctx;
    ds->fd = -1;
    ds->file = -1;
    ds->tokens.id = -1;
    ds->mask.id = -1;
    ds->path = base_strdup(ctx, path, path);
    lock = base_calloc(ctx, 1, sizeof *lock, path);
    if (ds->path == NULL || lock == NULL || pthread_mutex_init(lock, NULL) != 0) {
        base_free(ctx, lock);
        data_dataset_close(ds);
        return BASE_ERR_NOMEM;
    }
    ds->lock = lock;
    *ds_p = ds;
    return BASE_OK;
}

static base_status_t open_either(base_ctx_t *ctx, const char *path, bool full,
                                 base_error_list_t *errors, data_dataset_t **ds_p)
{
    base_error_list_t own, *list = errors != NULL ? errors : &own;
    const size_t before = errors != NULL ? errors->count : 0;
    opening_t o = {.full = full, .at = {.ctx = ctx, .file = -1, .path = path, .errors = list}};
    data_h5_quiet_t quiet;
    base_status_t st;

    BASE_TRY(look_at(ctx, path, &o.file_bytes));
    BASE_TRY(create(ctx, path, &o.ds));
    base_error_list_init(&own, ctx);
    data_h5_quiet_begin(&quiet);
    st = check_all(&o);
    data_h5_quiet_end(&quiet);
    o.ds->file = o.at.file;
    if (st >= 0 && list->pool.failed) st = BASE_ERR_NOMEM;
    if (st >= 0 && list->count > before)
        st = errors != NULL ? BASE_ERR_FORMAT : data_errors_finish(&own);
    base_error_list_deinit(&own);
    if (st < 0) {
        data_dataset_close(o.ds);
        return st;
    }
    if (!full || (o.ds->tokens.offset >= 0 && o.ds->mask.offset >= 0)) close_h5(o.ds);
    *ds_p = o.ds;
    return BASE_OK;
}

base_status_t data_dataset_open(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                data_dataset_t **ds_p)
{
    return open_either(ctx, path, true, errors, ds_p);
}

base_status_t data_dataset_open_offsets(base_ctx_t *ctx, const char *path,
                                        base_error_list_t *errors, data_dataset_t **ds_p)
{
    return open_either(ctx, path, false, errors, ds_p);
}
