#include "data/dataset_write.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/dataset_h5.h"
#include "data/h5_sink.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SUFFIX_BYTES 32

/* What the arrays give. */
typedef struct derived {
    data_dataset_attributes_t attributes; /* complete */
    char content_sha256[BASE_SHA256_HEX_BYTES];
    int32_t *supervised;
    int64_t *line;
} derived_t;

/* ==== checks ==== */

static base_status_t refuse(base_ctx_t *ctx, const char *path, int64_t document, const char *what)
{
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: document %" PRId64 ": %s", path,
                     document, what);
}

/* Counts the targets of a document, or says what is wrong with it. */
static const char *count_supervised(const data_dataset_content_t *c, int64_t i, int32_t *ones)
{
    const int64_t from = c->offsets[i], rows = c->offsets[i + 1] - from;

    if (rows < 2 || rows > INT32_MAX) return "wants 2 to 2^31 - 1 rows";
    if (c->loss_mask[from] != 0) return "the first row is supervised";
    *ones = 0;
    for (int64_t r = from; r < from + rows; r++) {
        if (c->loss_mask[r] > 1) return "a mask is neither 0 nor 1";
        if (c->tokens[r] < 0 || c->tokens[r] >= c->attributes.vocab_size)
            return "a token is outside the vocabulary";
        *ones += c->loss_mask[r];
    }
    return *ones > 0 ? NULL : "no supervised token";
}

static base_status_t check_attributes(base_ctx_t *ctx, const char *path,
                                      const data_dataset_attributes_t *a)
{
    const char *fault = NULL;

    if (a->num_documents < 1 || a->num_documents > INT32_MAX) fault = "num_documents";
    if (a->vocab_size < 1) fault = "vocab_size";
    if (a->eos_id < -1 || a->eos_id >= a->vocab_size) fault = "eos_id";
    if (a->bos_id < -1 || a->bos_id >= a->vocab_size) fault = "bos_id";
    if (!base_sha256_is_hex(a->tokenizer_sha256)) fault = "tokenizer_sha256";
    if (!base_sha256_is_hex(a->source_sha256)) fault = "source_sha256";
    if (a->template_sha256[0] != '\0' && !base_sha256_is_hex(a->template_sha256))
        fault = "template_sha256";
    if (fault == NULL) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: attribute \"%s\" is out of range",
                     path, fault);
}

/* ==== what follows from the arrays ==== */

static void hash_content(const data_dataset_content_t *c, int64_t documents, int64_t tokens,
                         char hex[BASE_SHA256_HEX_BYTES])
{
    base_sha256_t h;

    base_sha256_init(&h);
    base_sha256_update(&h, c->offsets, (size_t)(documents + 1) * sizeof *c->offsets);
    base_sha256_update(&h, c->tokens, (size_t)tokens * sizeof *c->tokens);
    base_sha256_update(&h, c->loss_mask, (size_t)tokens);
    base_sha256_finish(&h, hex);
}

/* The caller frees d->supervised and d->line in any case. */
static base_status_t derive(base_ctx_t *ctx, const char *path, const data_dataset_content_t *c,
                            derived_t *d)
{
    const int64_t documents = c->attributes.num_documents;

    d->attributes = c->attributes;
    d->attributes.content_sha256 = d->content_sha256;
    d->attributes.num_supervised = 0;
    BASE_TRY(check_attributes(ctx, path, &c->attributes));
    if (c->offsets[0] != 0) return refuse(ctx, path, 0, "does not begin at row 0");
    d->attributes.num_tokens = c->offsets[documents];
    d->supervised = base_calloc(ctx, documents, sizeof *d->supervised, "supervised tokens");
    d->line = base_calloc(ctx, documents, sizeof *d->line, "lines");
    if (d->supervised == NULL || d->line == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < documents; i++) {
        const char *fault = count_supervised(c, i, &d->supervised[i]);

        d->line[i] = c->line != NULL ? c->line[i] : i + 1;
        if (fault == NULL && d->line[i] < 1) fault = "its line is below 1";
        if (fault != NULL) return refuse(ctx, path, i, fault);
        d->attributes.num_supervised += d->supervised[i];
    }
    hash_content(c, documents, d->attributes.num_tokens, d->content_sha256);
    return BASE_OK;
}

/* ==== the file ==== */

/* `reason` says what failed. */
static bool put_attributes(hid_t file, const data_dataset_attributes_t *a,
                           char reason[DATA_H5_REASON_BYTES])
{
    if (!data_h5_put_text(file, "format", DATA_DATASET_FORMAT, reason)) return false;
    if (!data_h5_put_number(file, "format_version", DATA_DATASET_FORMAT_VERSION, reason))
        return false;
#define PUT_TEXT(name)                                                                             \
    if (!data_h5_put_text(file, #name, a->name, reason)) return false;
#define PUT_NUMBER(name)                                                                           \
    if (!data_h5_put_number(file, #name, a->name, reason)) return false;
    DATA_DATASET_ATTRIBUTE_MAP(PUT_TEXT, PUT_NUMBER)
#undef PUT_TEXT
#undef PUT_NUMBER
    return true;
}

static bool put_all(hid_t file, const data_dataset_content_t *c, const derived_t *d,
                    char reason[DATA_H5_REASON_BYTES])
{
    const int64_t documents = d->attributes.num_documents, tokens = d->attributes.num_tokens;

    return put_attributes(file, &d->attributes, reason) &&
           data_h5_put_array(file, "/offsets", H5T_STD_I64LE, documents + 1, c->offsets, reason) &&
           data_h5_put_array(file, "/tokens", H5T_STD_I32LE, tokens, c->tokens, reason) &&
           data_h5_put_array(file, "/loss_mask", H5T_STD_U8LE, tokens, c->loss_mask, reason) &&
           data_h5_put_array(file, "/supervised", H5T_STD_I32LE, documents, d->supervised,
                             reason) &&
           data_h5_put_array(file, "/line", H5T_STD_I64LE, documents, d->line, reason);
}

/* `reason` is "" while nothing went wrong in the library; what the disk refused is returned as errno. */
static int write_h5(base_ctx_t *ctx, const char *path, const data_dataset_content_t *c,
                    const derived_t *d, char reason[DATA_H5_REASON_BYTES])
{
    data_h5_sink_t sink;
    const hid_t file = data_h5_sink_create(ctx, path, &sink);

    reason[0] = '\0';
    if (file < 0) {
        data_h5_reason(reason);
        return data_h5_sink_end(&sink);
    }
    (void)put_all(file, c, d, reason);
    if (H5Fclose(file) < 0 && reason[0] == '\0') data_h5_reason(reason);
    return data_h5_sink_end(&sink);
}

static base_status_t write_file(base_ctx_t *ctx, const char *path, const data_dataset_content_t *c,
                                const derived_t *d)
{
    const size_t room = strlen(path) + SUFFIX_BYTES;
    char *temporary = base_alloc(ctx, room, path);
    char reason[DATA_H5_REASON_BYTES];
    data_h5_quiet_t quiet;
    base_status_t st = BASE_OK;

    if (temporary == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(temporary, room, "%s.tmp-%04d", path, base_ctx_rank(ctx));
    data_h5_quiet_begin(&quiet);
    const int refused = write_h5(ctx, temporary, c, d, reason);
    data_h5_quiet_end(&quiet);
    if (refused != 0 || reason[0] != '\0')
        st = BASE_FAIL(ctx, refused != 0 ? base_file_status(refused) : BASE_ERR_IO, BASE_MSG_IO_02,
                       "%s: cannot write: %s", path, refused != 0 ? strerror(refused) : reason);
    if (st >= 0) st = base_file_sync(ctx, temporary);
    if (st >= 0) st = base_file_rename(ctx, temporary, path);
    if (st < 0) (void)unlink(temporary);
    base_free(ctx, temporary);
    return st;
}

base_status_t data_dataset_write(base_ctx_t *ctx, const char *path,
                                 const data_dataset_content_t *content)
{
    derived_t d = {.supervised = NULL};
    base_status_t st = derive(ctx, path, content, &d);

    if (st >= 0) st = write_file(ctx, path, content, &d);
    base_free(ctx, d.line);
    base_free(ctx, d.supervised);
    return st;
}
