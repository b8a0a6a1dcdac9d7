#include "data/safetensors_read.h"

#include "base/config/text_pool.h"
#include "base/memory.h"
#include "base/sort.h"
#include "data/json_read.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_BYTES 8
#define READ_BYTES   (INT64_C(1) << 30) /* of one pread, which does at most 2 GiB */
#define SHAPE_BYTES  200

struct data_safetensors {
    base_ctx_t *ctx;
    char *path;
    int fd;
    int64_t file_bytes, header_bytes;
    base_text_pool_t names;
    data_safetensors_entry_t *entries; /* by name */
    int64_t count;
};

/* ==== bytes ==== */

/* Reads `bytes` bytes at `at`; *got is less only at the end of the file. */
static base_status_t read_at(const data_safetensors_t *file, int64_t at, int64_t bytes, void *to,
                             int64_t *got)
{
    for (*got = 0; *got < bytes;) {
        const int64_t left = bytes - *got;
        const ssize_t n = pread(file->fd, (char *)to + *got,
                                (size_t)(left < READ_BYTES ? left : READ_BYTES), at + *got);

        if (n == 0) break;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return BASE_FAIL(file->ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot read: %s",
                             file->path, strerror(errno));
        *got += n;
    }
    return BASE_OK;
}

base_status_t data_safetensors_read(const data_safetensors_t *file,
                                    const data_safetensors_entry_t *entry, int64_t from,
                                    int64_t bytes, void *to)
{
    int64_t got;

    if (from < 0 || bytes < 0 || from > entry->bytes || bytes > entry->bytes - from)
        return BASE_FAIL(file->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: tensor \"%.200s\": %" PRId64 " bytes from %" PRId64 " of %" PRId64,
                         file->path, entry->name, bytes, from, entry->bytes);
    BASE_TRY(read_at(file, entry->offset + from, bytes, to, &got));
    if (got < bytes)
        return BASE_FAIL(file->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_06,
                         "%s: tensor \"%.200s\": the file ends after %" PRId64 " of its %" PRId64
                         " bytes; it was longer when it was opened",
                         file->path, entry->name, from + got, entry->bytes);
    return BASE_OK;
}

int64_t data_safetensors_elements(const data_safetensors_entry_t *entry)
{
    return entry->bytes / data_dtype_bytes(entry->dtype);
}

base_status_t data_safetensors_read_rows(const data_safetensors_t *file,
                                         const data_safetensors_entry_t *entry, int64_t row,
                                         int64_t num_rows, void *to)
{
    const int64_t rows = entry->rank == 0 ? 1 : entry->shape[0];
    const int64_t row_bytes = rows == 0 ? 0 : entry->bytes / rows;

    if (row < 0 || num_rows < 0 || row > rows || num_rows > rows - row)
        return BASE_FAIL(file->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: tensor \"%.200s\": %" PRId64 " rows from %" PRId64 " of %" PRId64,
                         file->path, entry->name, num_rows, row, rows);
    return data_safetensors_read(file, entry, row * row_bytes, num_rows * row_bytes, to);
}

/* ==== list ==== */

const char *data_safetensors_path(const data_safetensors_t *file)
{
    return file->path;
}

int64_t data_safetensors_count(const data_safetensors_t *file)
{
    return file->count;
}

const data_safetensors_entry_t *data_safetensors_entry(const data_safetensors_t *file,
                                                       int64_t index)
{
    return &file->entries[index];
}

const data_safetensors_entry_t *data_safetensors_find(const data_safetensors_t *file,
                                                      const char *name)
{
    int64_t low = 0, high = file->count;

    while (low < high) {
        const int64_t mid = low + (high - low) / 2;
        const int order = strcmp(name, file->entries[mid].name);

        if (order == 0) return &file->entries[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const char *data_safetensors_shape_text(int32_t rank, const int64_t *shape, char *text,
                                        size_t bytes)
{
    size_t used = 0;

    (void)snprintf(text, bytes, "[]");
    for (int32_t i = 0; i < rank && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%" PRId64 "%s", i == 0 ? "[" : ", ",
                                 shape[i], i + 1 == rank ? "]" : "");
    return text;
}

/* ==== header ==== */

typedef struct header {
    data_safetensors_t *file;
    data_json_object_t root;
    base_error_list_t *errors;
    data_safetensors_entry_t *entries;
    int64_t count;
} header_t;

static void only_strings(void *arg, const char *key, data_json_kind_t kind, double number)
{
    (void)number;
    if (kind != DATA_JSON_TEXT) data_json_fault(arg, BASE_MSG_DATA_04, key, "is not a string");
}

static void only_known(void *arg, const char *key, data_json_kind_t kind, double number)
{
    (void)kind;
    (void)number;
    if (strcmp(key, "dtype") != 0 && strcmp(key, "shape") != 0 && strcmp(key, "data_offsets") != 0)
        data_json_fault(arg, BASE_MSG_DATA_04, key, "is no key of a tensor");
}

static bool read_dtype(const data_json_object_t *tensor, data_dtype_t *dtype)
{
    const char *word;

    if (!data_json_text(tensor, "dtype", &word)) return false;
    if (data_dtype_find(word, dtype)) return true;
    data_json_fault(tensor, BASE_MSG_DATA_05, "dtype", "\"%.40s\" is not known", word);
    return false;
}

/* Sets rank, shape and the bytes that follow from them. */
static bool read_shape(const data_json_object_t *tensor, data_safetensors_entry_t *entry)
{
    int64_t rank, bytes = data_dtype_bytes(entry->dtype);
    bool empty = false;

    if (!data_json_array(tensor, "shape", &rank)) return false;
    if (rank > DATA_SAFETENSORS_MAX_RANK) {
        data_json_fault(tensor, BASE_MSG_DATA_05, "shape",
                        "has %" PRId64 " dimensions, at most %d are read", rank,
                        DATA_SAFETENSORS_MAX_RANK);
        return false;
    }
    entry->rank = (int32_t)rank;
    for (int64_t i = 0; i < rank; i++) {
        if (!data_json_array_int(tensor, "shape", i, 0, INT64_MAX, &entry->shape[i])) return false;
        empty = empty || entry->shape[i] == 0;
    }
    /* As in the reference reader an overflow is one even when a later dimension is 0. */
    for (int64_t i = 0; i < rank; i++) {
        if (entry->shape[i] == 0) break;
        if (!__builtin_mul_overflow(bytes, entry->shape[i], &bytes)) continue;
        data_json_fault(tensor, BASE_MSG_DATA_06, "shape", "has more bytes than 63 bits can count");
        return false;
    }
    entry->bytes = empty ? 0 : bytes;
    return true;
}

static bool read_range(const data_json_object_t *tensor, data_safetensors_entry_t *entry)
{
    int64_t count, begin, end;
    char shape[SHAPE_BYTES];

    if (!data_json_array(tensor, "data_offsets", &count)) return false;
    if (count != 2) {
        data_json_fault(tensor, BASE_MSG_DATA_04, "data_offsets",
                        "has %" PRId64 " elements, 2 are wanted", count);
        return false;
    }
    if (!data_json_array_int(tensor, "data_offsets", 0, 0, INT64_MAX, &begin) ||
        !data_json_array_int(tensor, "data_offsets", 1, 0, INT64_MAX, &end))
        return false;
    if (begin > end || end - begin != entry->bytes) {
        data_json_fault(tensor, BASE_MSG_DATA_06, "data_offsets",
                        "[%" PRId64 ", %" PRId64 "] are %" PRId64
                        " bytes, %s of shape %s has %" PRId64,
                        begin, end, end - begin, data_dtype_name(entry->dtype),
                        data_safetensors_shape_text(entry->rank, entry->shape, shape, sizeof shape),
                        entry->bytes);
        return false;
    }
    entry->offset = begin;
    return true;
}

/* One key of the header. */
static void read_entry(void *arg, const char *key, data_json_kind_t kind, double number)
{
    header_t *header = arg;
    data_safetensors_entry_t *entry = &header->entries[header->count];
    data_json_object_t child;

    (void)kind;
    (void)number;
    if (strcmp(key, "__metadata__") == 0) {
        if (data_json_child(&header->root, key, &child))
            data_json_each(&child, only_strings, &child);
        return;
    }
    *entry = (data_safetensors_entry_t){0};
    if (!data_json_child(&header->root, key, &child)) return;
    data_json_each(&child, only_known, &child);
    if (!read_dtype(&child, &entry->dtype) || !read_shape(&child, entry) ||
        !read_range(&child, entry))
        return;
    entry->name = base_text_pool_copy(&header->file->names, key, strlen(key));
    if (entry->name != NULL) header->count++;
}

static int by_range(const void *a, const void *b, const void *arg)
{
    const data_safetensors_entry_t *x = a, *y = b;

    (void)arg;
    if (x->offset != y->offset) return base_compare_i64(x->offset, y->offset);
    if (x->bytes != y->bytes) return base_compare_i64(x->bytes, y->bytes);
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b, const void *arg)
{
    const data_safetensors_entry_t *x = a, *y = b;

    (void)arg;
    return strcmp(x->name, y->name);
}

/* Each range begins where the one before it ends, the last one ends with the file. */
static void check_tiling(const header_t *header)
{
    const data_safetensors_t *file = header->file;
    const int64_t data_bytes = file->file_bytes - LENGTH_BYTES - file->header_bytes;
    int64_t end = 0;

    for (int64_t i = 0; i < header->count; i++) {
        const data_safetensors_entry_t *entry = &header->entries[i];

        if (entry->offset != end)
            DATA_ERROR(header->errors, BASE_MSG_DATA_06, file->path,
                       "tensor \"%.200s\" begins at byte %" PRId64 " of the data, the one before "
                       "it ends at %" PRId64 ": %s",
                       entry->name, entry->offset, end,
                       entry->offset < end ? "they overlap" : "there is a hole");
        end = entry->offset + entry->bytes;
    }
    /* Once for a file that was cut short, however many tensors are missing. */
    if (end != data_bytes)
        DATA_ERROR(header->errors, BASE_MSG_DATA_06, file->path,
                   "the last tensor ends at byte %" PRId64 " of the data, the file has %" PRId64
                   "%s",
                   end, data_bytes, data_bytes < end ? ": it is cut short" : "");
}

static base_status_t parse_header(data_safetensors_t *file, base_error_list_t *errors,
                                  const char *text)
{
    header_t header = {.file = file, .errors = errors};
    const size_t before = errors->count;
    data_json_t *json;

    BASE_TRY(
        data_json_parse(file->ctx, file->path, text, (size_t)file->header_bytes, errors, &json));
    header.root = data_json_root(json);
    /* The file owns the list; the last element is room for an entry that turns out faulty. */
    file->entries = base_calloc(file->ctx, data_json_num_keys(&header.root) + 1,
                                sizeof *file->entries, file->path);
    if (file->entries == NULL) {
        data_json_close(json);
        return BASE_ERR_NOMEM;
    }
    header.entries = file->entries;
    data_json_each(&header.root, read_entry, &header);
    data_json_close(json);
    if (file->names.failed || errors->pool.failed) return BASE_ERR_NOMEM;
    base_sort(file->entries, header.count, sizeof *file->entries, by_range, NULL);
    /* Faulty tensors are missing from the list, and their room would look like a hole. */
    if (errors->count == before) check_tiling(&header);
    if (errors->pool.failed) return BASE_ERR_NOMEM;
    if (errors->count > before) return BASE_ERR_FORMAT; /* offsets may be anything */
    for (int64_t i = 0; i < header.count; i++)
        file->entries[i].offset += LENGTH_BYTES + file->header_bytes;
    base_sort(file->entries, header.count, sizeof *file->entries, by_name, NULL);
    file->count = header.count;
    return BASE_OK;
}

/* The length of the header, or a report. */
static base_status_t read_length(data_safetensors_t *file, base_error_list_t *errors)
{
    unsigned char length[LENGTH_BYTES];
    uint64_t n = 0;
    int64_t got;

    BASE_TRY(read_at(file, 0, LENGTH_BYTES, length, &got));
    if (got < LENGTH_BYTES) {
        DATA_ERROR(errors, BASE_MSG_DATA_06, file->path,
                   "has %" PRId64 " bytes, a header has at least %d", got, LENGTH_BYTES);
        return BASE_ERR_FORMAT;
    }
    if (memcmp(length, "version ", LENGTH_BYTES) == 0) {
        DATA_ERROR(errors, BASE_MSG_DATA_06, file->path,
                   "is a Git LFS pointer of %" PRId64 " bytes in the place of the file: `git lfs "
                   "pull` fetches it",
                   file->file_bytes);
        return BASE_ERR_FORMAT;
    }
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | length[i];
    if (n > (uint64_t)DATA_SAFETENSORS_MAX_HEADER) {
        DATA_ERROR(errors, BASE_MSG_DATA_06, file->path,
                   "a header of %" PRIu64 " bytes, at most %" PRId64
                   " are allowed: not a safetensors file",
                   n, DATA_SAFETENSORS_MAX_HEADER);
        return BASE_ERR_FORMAT;
    }
    if ((int64_t)n > file->file_bytes - LENGTH_BYTES) {
        DATA_ERROR(errors, BASE_MSG_DATA_06, file->path,
                   "the header has %" PRIu64 " bytes, the file ends after %" PRId64 " of them", n,
                   file->file_bytes - LENGTH_BYTES);
        return BASE_ERR_FORMAT;
    }
    file->header_bytes = (int64_t)n;
    return BASE_OK;
}

static base_status_t read_header(data_safetensors_t *file, base_error_list_t *errors)
{
    int64_t got;
    char *text;
    base_status_t st;

    BASE_TRY(read_length(file, errors));
    text = base_calloc(file->ctx, file->header_bytes + 1, 1, file->path);
    if (text == NULL) return BASE_ERR_NOMEM;
    BASE_TRY_GOTO(read_at(file, LENGTH_BYTES, file->header_bytes, text, &got), st, out_free_text);
    if (text[0] != '{') { /* also when the file has become shorter */
        DATA_ERROR(errors, BASE_MSG_DATA_06, file->path,
                   "the header begins with byte 0x%02x, 0x7b '{' is wanted",
                   (unsigned)(unsigned char)text[0]);
        st = BASE_ERR_FORMAT;
    } else
        st = parse_header(file, errors, text);
out_free_text:
    base_free(file->ctx, text);
    return st;
}

/* ==== open and close ==== */

static base_status_t fail_open(base_ctx_t *ctx, const char *path, int cause)
{
    return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot open: %s", path,
                     strerror(cause));
}

static base_status_t open_file(data_safetensors_t *file)
{
    struct stat info;

    /* Without O_NONBLOCK a named pipe would wait for a writer for ever. */
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0) return fail_open(file->ctx, file->path, errno);
    base_memory_count_open(base_ctx_memory(file->ctx), BASE_RESOURCE_FILE);
    if (fstat(file->fd, &info) != 0) return fail_open(file->ctx, file->path, errno);
    if (!S_ISREG(info.st_mode))
        return fail_open(file->ctx, file->path, S_ISDIR(info.st_mode) ? EISDIR : EINVAL);
    file->file_bytes = info.st_size;
    return BASE_OK;
}

base_status_t data_safetensors_open(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                    data_safetensors_t **file_p)
{
    base_error_list_t own;
    data_safetensors_t *file = base_calloc(ctx, 1, sizeof *file, path);
    base_status_t st = BASE_ERR_NOMEM;

    if (file == NULL) return BASE_ERR_NOMEM;
    base_error_list_init(&own, ctx);
    base_text_pool_init(&file->names, ctx);
    file->ctx = ctx;
    file->fd = -1;
    file->path = base_strdup(ctx, path, path);
    if (file->path != NULL) st = open_file(file);
    if (st >= 0) st = read_header(file, errors != NULL ? errors : &own);
    if (own.count > 0) st = data_errors_finish(&own);
    base_error_list_deinit(&own);
    if (st < 0) {
        data_safetensors_close(file);
        return st;
    }
    *file_p = file;
    return BASE_OK;
}

void data_safetensors_close(data_safetensors_t *file)
{
    if (file == NULL) return;
    if (file->fd >= 0) {
        (void)close(file->fd);
        base_memory_count_close(base_ctx_memory(file->ctx), BASE_RESOURCE_FILE);
    }
    base_free(file->ctx, file->entries);
    base_text_pool_deinit(&file->names);
    base_free(file->ctx, file->path);
    base_free(file->ctx, file);
}
