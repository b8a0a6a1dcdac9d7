#include "trainer/run/trace_merge.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/trace.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

typedef struct merger {
    base_ctx_t *ctx;
    const tr_trace_merge_t *args;
    char *path, *to; /* of a rank's file; of the result */
    size_t room;
    int64_t num_ranks;
    tr_trace_file_t *files; /* [num_ranks] */
    FILE *file;
    int64_t lines;
} merger_t;

static void rank_path(const merger_t *m, int64_t rank)
{
    (void)snprintf(m->path, m->room, "%s/trace/rank-%04" PRId64 ".json", m->args->run, rank);
}

static int exists(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0;
}

static base_status_t nothing(void *user, const char *line, size_t bytes)
{
    (void)user;
    (void)line;
    (void)bytes;
    return BASE_OK;
}

static base_status_t copy_line(void *user, const char *line, size_t bytes)
{
    merger_t *m = user;

    if (m->lines++ > 0) (void)fputs(",\n", m->file);
    (void)fwrite(line, 1, bytes, m->file);
    return BASE_OK;
}

/* ==== reading all of them ==== */

static base_status_t count_ranks(merger_t *m)
{
    tr_trace_file_t first;

    rank_path(m, 0);
    if (!exists(m->path))
        return BASE_FAIL(m->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_08,
                         "%s: no trace of this run: %s is not there", m->args->run, m->path);
    BASE_TRY(tr_trace_read(m->ctx, m->path, 0, nothing, NULL, &first));
    m->num_ranks = first.ranks;
    for (int64_t r = 1; r < m->num_ranks; r++) {
        rank_path(m, r);
        if (!exists(m->path))
            return BASE_FAIL(m->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_08,
                             "%s is not there, and the run had %" PRId64 " ranks", m->path,
                             m->num_ranks);
    }
    m->files = base_calloc(m->ctx, m->num_ranks, sizeof *m->files, "traces");
    return m->files == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

static base_status_t copy_files(merger_t *m)
{
    (void)fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n", m->file);
    for (int64_t r = 0; r < m->num_ranks; r++) {
        rank_path(m, r);
        BASE_TRY(tr_trace_read(m->ctx, m->path, r, copy_line, m, &m->files[r]));
        if (m->files[r].ranks != m->num_ranks)
            return BASE_FAIL(m->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_08,
                             "%s is of a run of %" PRId64
                             " ranks, rank-0000.json of one of %" PRId64,
                             m->path, m->files[r].ranks, m->num_ranks);
    }
    (void)fputs("\n]}\n", m->file);
    return BASE_OK;
}

static base_status_t write_merged(merger_t *m)
{
    base_file_t *file;

    BASE_TRY(base_file_create(m->ctx, m->to, &file));
    m->file = base_file_stream(file);
    const base_status_t st = copy_files(m);
    if (st < 0) {
        base_file_discard(file);
        return st;
    }
    return base_file_commit(file);
}

/* ==== what they say ==== */

/* "rank 2 (server 0)" is in the file; the part in brackets is what the table wants. */
static void put_role(const char *name, char role[TR_RUN_ROLE_BYTES])
{
    const char *open = strchr(name, '('), *close = strrchr(name, ')');

    if (open != NULL && close != NULL && close > open)
        (void)snprintf(role, TR_RUN_ROLE_BYTES, "%.*s", (int)(close - open - 1), open + 1);
}

static base_status_t print_split(const merger_t *m)
{
    int64_t events = 0, dropped = 0;
    double error_us = 0;

    tr_run_table_split_t *rows = base_calloc(m->ctx, m->num_ranks, sizeof *rows, "table");
    if (rows == NULL) return BASE_ERR_NOMEM;
    for (int64_t r = 0; r < m->num_ranks; r++) {
        rows[r] = m->files[r].split;
        put_role(m->files[r].name, rows[r].role);
        events += m->files[r].events;
        dropped += m->files[r].dropped;
        if (m->files[r].clock_error_us > error_us) error_us = m->files[r].clock_error_us;
    }
    tr_run_table_split(m->args->out, rows, m->num_ranks);
    (void)fprintf(m->args->out, "\n%" PRId64 " events, clocks within %.1f us: %s\n", events,
                  error_us, m->to);
    if (dropped > 0)
        (void)fprintf(m->args->out,
                      "%" PRId64 " later events found no room; trace fewer microbatches\n",
                      dropped);
    base_free(m->ctx, rows);
    return BASE_OK;
}

base_status_t tr_trace_merge(base_ctx_t *ctx, const tr_trace_merge_t *merge)
{
    merger_t m = {.ctx = ctx, .args = merge};
    const size_t to_bytes = merge->to != NULL ? strlen(merge->to) : 0;
    base_status_t st = BASE_ERR_NOMEM;

    m.room = strlen(merge->run) + to_bytes + 64;
    m.path = base_alloc(ctx, m.room, "path of a trace");
    m.to = base_alloc(ctx, m.room, "path of a trace");
    if (m.path == NULL || m.to == NULL) goto out;
    if (merge->to != NULL)
        (void)snprintf(m.to, m.room, "%s", merge->to);
    else
        (void)snprintf(m.to, m.room, "%s/trace/trace.json", merge->run);
    BASE_TRY_GOTO(count_ranks(&m), st, out);
    BASE_TRY_GOTO(write_merged(&m), st, out);
    st = print_split(&m);
out:
    base_free(ctx, m.files);
    base_free(ctx, m.path);
    base_free(ctx, m.to);
    return st;
}
