#include "trainer/run/metrics.h"

#include "base/file.h"
#include "base/json_write.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A name of 64 characters and some twenty numbers of at most 24. */
#define LINE_BYTES 2048

struct tr_metrics {
    base_ctx_t *ctx;
    char *path;
    int fd;
    char *
        kept; /* [TR_METRICS_KEPT], NULL before there are any: whole lines that found no room in the file, in their order */
    size_t kept_bytes;
    char line[LINE_BYTES];
};

static base_status_t fail(tr_metrics_t *metrics, const char *what)
{
    return BASE_FAIL(metrics->ctx, base_file_status(errno), BASE_MSG_IO_02, "%s: %s: %s",
                     metrics->path, what, strerror(errno));
}

/* ==== opening and closing ==== */

/* Takes away what stands behind the last line feed. Not on what is no plain file: a pipe, a device.
 */
static base_status_t drop_cut_record(tr_metrics_t *metrics)
{
    struct stat info;
    char block[512];
    off_t end;

    if (fstat(metrics->fd, &info) != 0) return fail(metrics, "cannot look at it");
    if (!S_ISREG(info.st_mode)) return BASE_OK;
    for (end = info.st_size; end > 0;) {
        const off_t start = end > (off_t)sizeof block ? end - (off_t)sizeof block : 0;
        const ssize_t got = pread(metrics->fd, block, (size_t)(end - start), start);
        ssize_t i = got;

        if (got != (ssize_t)(end - start)) return fail(metrics, "cannot read the last record");
        while (i > 0 && block[i - 1] != '\n')
            i--;
        end = start + i;
        if (i > 0) break;
    }
    if (end != info.st_size && ftruncate(metrics->fd, end) != 0)
        return fail(metrics, "cannot take away a record that was cut");
    return BASE_OK;
}

static void destroy(tr_metrics_t *metrics)
{
    base_ctx_t *ctx = metrics->ctx;

    base_free(ctx, metrics->kept);
    base_free(ctx, metrics->path);
    base_free(ctx, metrics);
}

base_status_t tr_metrics_open(base_ctx_t *ctx, const char *path, tr_metrics_t **metrics_p)
{
    base_status_t st = BASE_ERR_NOMEM;
    tr_metrics_t *metrics = base_calloc(ctx, 1, sizeof *metrics, "metrics");

    if (metrics == NULL) return BASE_ERR_NOMEM;
    metrics->ctx = ctx;
    metrics->path = base_strdup(ctx, path, "path of the metrics");
    if (metrics->path == NULL) goto err_destroy;
    metrics->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (metrics->fd < 0) {
        st = fail(metrics, "cannot open");
        goto err_destroy;
    }
    base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_FILE);
    BASE_TRY_GOTO(drop_cut_record(metrics), st, err_close);
    *metrics_p = metrics;
    return BASE_OK;
err_close:
    (void)close(metrics->fd);
    base_memory_count_close(base_ctx_memory(ctx), BASE_RESOURCE_FILE);
err_destroy:
    destroy(metrics);
    return st;
}

base_status_t tr_metrics_cut(tr_metrics_t *metrics, int64_t bytes, int64_t *found)
{
    struct stat info;

    *found = 0;
    if (fstat(metrics->fd, &info) != 0) return fail(metrics, "cannot look at it");
    *found = (int64_t)info.st_size;
    if (!S_ISREG(info.st_mode) || *found <= bytes) return BASE_OK;
    if (ftruncate(metrics->fd, (off_t)bytes) != 0) return fail(metrics, "cannot cut");
    return drop_cut_record(metrics);
}

/* ==== lines ==== */

static base_status_t put(tr_metrics_t *metrics, const char *line, size_t bytes)
{
    ssize_t wrote;

    do
        wrote = write(metrics->fd, line, bytes);
    while (wrote < 0 && errno == EINTR);
    if (wrote == (ssize_t)bytes) return BASE_OK;
    if (wrote >= 0) {
        /* The disk had room for a part of the line. What it says about the rest is the reason, and
         * the part must go. */
        const base_status_t st = BASE_FAIL(
            metrics->ctx, BASE_ERR_SPACE, BASE_MSG_IO_02,
            "%s: cannot write: only %lld of the %zu bytes of a record found room (disk full or "
            "quota reached)",
            metrics->path, (long long)wrote, bytes);

        (void)drop_cut_record(metrics);
        return st;
    }
    return fail(metrics, "cannot write");
}

static base_status_t put_kept(tr_metrics_t *metrics)
{
    size_t done = 0;
    base_status_t st = BASE_OK;

    while (done < metrics->kept_bytes && st >= 0) {
        const char *line = metrics->kept + done;
        const char *end = memchr(line, '\n', metrics->kept_bytes - done);
        const size_t bytes = (size_t)(end - line) + 1;

        st = put(metrics, line, bytes);
        if (st >= 0) done += bytes;
    }
    if (done > 0) memmove(metrics->kept, metrics->kept + done, metrics->kept_bytes - done);
    metrics->kept_bytes -= done;
    return st;
}

/* The recorded error becomes a warning when there is room in memory. */
static base_status_t keep(tr_metrics_t *metrics, size_t bytes, base_status_t why)
{
    base_error_t error;

    if (metrics->kept == NULL)
        metrics->kept = base_alloc(metrics->ctx, TR_METRICS_KEPT, "metrics that wait");
    if (metrics->kept == NULL || metrics->kept_bytes + bytes > TR_METRICS_KEPT) return why;
    memcpy(metrics->kept + metrics->kept_bytes, metrics->line, bytes);
    metrics->kept_bytes += bytes;
    if (base_ctx_error(metrics->ctx, &error))
        base_log_warn(base_ctx_log(metrics->ctx), "metrics that wait",
                      "IO-02: %.300s; its records wait in memory", error.text);
    base_ctx_clear_error(metrics->ctx);
    return BASE_OK;
}

static base_status_t append(tr_metrics_t *metrics, base_json_t *j)
{
    BASE_TRY(base_json_finish(j, metrics->ctx, metrics->path));
    base_status_t st = put_kept(metrics);
    if (st >= 0) st = put(metrics, metrics->line, j->bytes);
    return st < 0 ? keep(metrics, j->bytes, st) : BASE_OK;
}

base_status_t tr_metrics_close(tr_metrics_t *metrics)
{
    base_status_t st = BASE_OK;

    if (metrics == NULL) return BASE_OK;
    st = put_kept(metrics);
    /* EINVAL: what cannot be synced, a pipe or a device, has nothing to sync. */
    if (fsync(metrics->fd) != 0 && errno != EINVAL && errno != EROFS && st >= 0)
        st = fail(metrics, "cannot sync");
    if (close(metrics->fd) != 0 && st >= 0) st = fail(metrics, "cannot close");
    base_memory_count_close(base_ctx_memory(metrics->ctx), BASE_RESOURCE_FILE);
    destroy(metrics);
    return st;
}

base_status_t tr_metrics_sync(tr_metrics_t *metrics, int64_t *bytes)
{
    struct stat info;

    *bytes = 0;
    BASE_TRY(put_kept(metrics));
    if (fsync(metrics->fd) != 0 && errno != EINVAL && errno != EROFS)
        return fail(metrics, "cannot sync");
    if (fstat(metrics->fd, &info) != 0) return fail(metrics, "cannot look at it");
    *bytes = (int64_t)info.st_size;
    return BASE_OK;
}

/* ==== records ==== */

static void begin(tr_metrics_t *metrics, base_json_t *j, const char *adapter)
{
    base_json_to_buffer(j, metrics->line, sizeof metrics->line);
    base_json_begin_object(j);
    base_json_put_string(j, "adapter", adapter);
}

base_status_t tr_metrics_step(tr_metrics_t *metrics, const tr_metrics_step_t *record)
{
    base_json_t j;

    begin(metrics, &j, record->adapter);
    base_json_put_int(&j, "step", record->step);
    base_json_put_int(&j, "total_steps", record->total_steps);
    base_json_put_double(&j, "epoch", record->epoch);
    base_json_put_double(&j, "loss", record->loss);
    base_json_put_double(&j, "grad_norm", record->grad_norm);
    base_json_put_double(&j, "learning_rate", record->learning_rate);
    base_json_put_int(&j, "tokens", record->tokens);
    base_json_put_int(&j, "supervised_tokens", record->supervised_tokens);
    base_json_put_int(&j, "microbatch", record->microbatch);
    base_json_put_double(&j, "step_time_s", record->step_time_s);
    base_json_put_double(&j, "dense_s", record->part_s[BASE_PART_DENSE]);
    base_json_put_double(&j, "attention_s", record->part_s[BASE_PART_ATTENTION]);
    base_json_put_double(&j, "exchange_s", record->part_s[BASE_PART_EXCHANGE]);
    base_json_put_double(&j, "waiting_s", record->part_s[BASE_PART_WAITING]);
    base_json_put_double(&j, "idle_s", record->part_s[BASE_PART_NONE]);
    base_json_put_double(&j, "elapsed_s", record->elapsed_s);
    base_json_put_double(&j, "tokens_per_second", record->tokens_per_second);
    base_json_put_double(&j, "pad_share", record->pad_share);
    base_json_end(&j);
    base_json_newline(&j);
    return append(metrics, &j);
}

base_status_t tr_metrics_eval(tr_metrics_t *metrics, const tr_metrics_eval_t *record)
{
    base_json_t j;

    begin(metrics, &j, record->adapter);
    base_json_put_int(&j, "step", record->step);
    base_json_put_double(&j, "epoch", record->epoch);
    base_json_put_double(&j, "eval_loss", record->eval_loss);
    base_json_put_double(&j, "eval_perplexity", exp(record->eval_loss));
    base_json_put_int(&j, "eval_documents", record->eval_documents);
    base_json_put_int(&j, "eval_supervised_tokens", record->eval_supervised_tokens);
    base_json_put_double(&j, "eval_time_s", record->eval_time_s);
    base_json_put_double(&j, "elapsed_s", record->elapsed_s);
    base_json_end(&j);
    base_json_newline(&j);
    return append(metrics, &j);
}
