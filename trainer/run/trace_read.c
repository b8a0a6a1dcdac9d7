/* Reading a rank's trace: a header line, an event a line, an end line (base/trace.c). */
#include "trainer/run/trace_merge.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/trace.h"
#include "data/json_read.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define MOST_FILE_BYTES (INT64_C(4) << 30)
#define MOST_LINE_BYTES 4096

typedef struct reader {
    base_ctx_t *ctx;
    const char *path;
    int64_t line; /* from 1 */
    tr_trace_file_t *file;
    base_meter_t meter;
    int64_t first_ns, last_ns;
    int64_t first_microbatch, last_microbatch;
} reader_t;

static base_status_t damaged(const reader_t *r, const char *what)
{
    return BASE_FAIL(r->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_08, "%s:%" PRId64 ": %s", r->path,
                     r->line, what);
}

/* Parses `text`; the object is valid until close. What the getters find missing is in `errors`. */
static base_status_t parse(const reader_t *r, const char *text, size_t bytes,
                           base_error_list_t *errors, data_json_t **json_p)
{
    const base_status_t st = data_json_parse(r->ctx, r->path, text, bytes, errors, json_p);

    return st >= 0 || st == BASE_ERR_NOMEM ? st : damaged(r, "not a JSON object");
}

/* ==== the header ==== */

static base_status_t read_header(reader_t *r, const char *line, size_t bytes)
{
    static const char END[] = "]}";
    char text[MOST_LINE_BYTES];
    base_error_list_t errors;
    data_json_t *json = NULL;

    if (bytes + sizeof END > sizeof text) return damaged(r, "not the head of a trace");
    memcpy(text, line, bytes);
    memcpy(text + bytes, END, sizeof END);
    base_error_list_init(&errors, r->ctx);
    base_status_t st = parse(r, text, bytes + sizeof END - 1, &errors, &json);
    if (st >= 0) {
        const data_json_object_t root = data_json_root(json);
        tr_trace_file_t *f = r->file;

        if (!data_json_int(&root, "ranks", 1, TR_TRACE_MOST_RANKS, &f->ranks) ||
            !data_json_int(&root, "dropped", 0, INT64_MAX, &f->dropped) ||
            !data_json_number(&root, "clock_error_us", 0, 1e18, &f->clock_error_us))
            st = damaged(r, "not the head of a trace: \"ranks\", \"dropped\" or "
                            "\"clock_error_us\" is missing");
    }
    data_json_close(json);
    base_error_list_deinit(&errors);
    return st;
}

/* ==== events ==== */

typedef struct event {
    char phase;
    int64_t lane, at_ns, length_ns;
    base_part_t part;
    int64_t microbatch;  /* -1: none */
    const char *process; /* of the event that names it */
} event_t;

static base_part_t part_of(const char *category)
{
    for (int p = BASE_PART_NONE + 1; p < BASE_NUM_PARTS; p++)
        if (strcmp(category, base_part_word((base_part_t)p)) == 0) return (base_part_t)p;
    return BASE_PART_NONE;
}

/* Whether all is there that an event of its phase has. */
static bool take(const data_json_object_t *root, event_t *e)
{
    const char *phase = NULL, *category = NULL;
    data_json_object_t args;
    double us = 0;

    *e = (event_t){.microbatch = -1};
    if (!data_json_text(root, "ph", &phase) || !data_json_int(root, "tid", 0, INT32_MAX, &e->lane))
        return false;
    e->phase = phase[0];
    if (e->phase == 'M')
        return data_json_text(root, "name", &category) && data_json_child(root, "args", &args) &&
               (strcmp(category, "process_name") != 0 ||
                data_json_text(&args, "name", &e->process));
    if (!data_json_number(root, "ts", -1e18, 1e18, &us)) return false;
    e->at_ns = llround(us * 1000.0);
    if (e->phase == 'X') {
        if (!data_json_number(root, "dur", 0, 1e18, &us)) return false;
        e->length_ns = llround(us * 1000.0);
    }
    if (data_json_has(root, "cat") && data_json_text(root, "cat", &category))
        e->part = part_of(category);
    if (e->phase == 'B' && data_json_has(root, "args") && data_json_child(root, "args", &args) &&
        data_json_has(&args, "microbatch"))
        return data_json_int(&args, "microbatch", 0, INT64_MAX, &e->microbatch);
    return true;
}

/* What the meter of the compute stream was told. */
static void count(reader_t *r, const event_t *e)
{
    const int64_t end_ns = e->at_ns + e->length_ns;

    if (e->process != NULL) (void)snprintf(r->file->name, sizeof r->file->name, "%s", e->process);
    if (e->phase == 'M') return;
    if (r->first_ns == 0 || e->at_ns < r->first_ns) r->first_ns = e->at_ns;
    if (end_ns > r->last_ns) r->last_ns = end_ns;
    if (e->lane != BASE_LANE_COMPUTE) return;
    if (e->phase == 'B') base_meter_begin(&r->meter, e->part, e->at_ns);
    if (e->phase == 'E') base_meter_end(&r->meter, e->at_ns);
    if (e->phase == 'X' && e->part == BASE_PART_WAITING)
        base_meter_waited(&r->meter, e->at_ns, end_ns, end_ns);
    if (e->phase == 'X' && e->part == BASE_PART_EXCHANGE)
        base_meter_waited(&r->meter, e->at_ns, e->at_ns, end_ns);
    if (e->microbatch < 0) return;
    if (r->first_microbatch < 0) r->first_microbatch = e->microbatch;
    if (e->microbatch > r->last_microbatch) r->last_microbatch = e->microbatch;
}

static base_status_t read_event(reader_t *r, const char *line, size_t bytes)
{
    base_error_list_t errors;
    data_json_t *json = NULL;
    event_t e;

    base_error_list_init(&errors, r->ctx);
    base_status_t st = parse(r, line, bytes, &errors, &json);
    if (st >= 0) {
        const data_json_object_t root = data_json_root(json);

        if (take(&root, &e))
            count(r, &e);
        else
            st = damaged(r, "not an event of a trace");
    }
    data_json_close(json);
    base_error_list_deinit(&errors);
    return st;
}

/* ==== the file ==== */

/* The next line without its end; NULL when there is none. */
static const char *next_line(reader_t *r, const char **at, const char *end, size_t *bytes)
{
    const char *line = *at;

    if (line == end) return NULL;
    const char *feed = memchr(line, '\n', (size_t)(end - line));
    *bytes = (size_t)((feed != NULL ? feed : end) - line);
    *at = feed != NULL ? feed + 1 : end;
    r->line++;
    return line;
}

static base_status_t read_lines(reader_t *r, const char *text, size_t size, tr_trace_line_fn each,
                                void *user)
{
    const char *at = text, *line;
    size_t bytes = 0;

    line = next_line(r, &at, text + size, &bytes);
    if (line == NULL) return damaged(r, "empty");
    BASE_TRY(read_header(r, line, bytes));
    while ((line = next_line(r, &at, text + size, &bytes)) != NULL) {
        if (bytes == 2 && memcmp(line, "]}", 2) == 0) return BASE_OK;
        if (bytes > 0 && line[bytes - 1] == ',') bytes--;
        BASE_TRY(read_event(r, line, bytes));
        r->file->events++;
        BASE_TRY(each(user, line, bytes));
    }
    return damaged(r, "the file is cut short");
}

base_status_t tr_trace_read(base_ctx_t *ctx, const char *path, int64_t rank, tr_trace_line_fn each,
                            void *user, tr_trace_file_t *file)
{
    reader_t r = {
        .ctx = ctx, .path = path, .file = file, .first_microbatch = -1, .last_microbatch = -1};
    char *text = NULL;
    size_t size = 0;

    *file = (tr_trace_file_t){.split = {.rank = rank}};
    BASE_TRY(base_file_read(ctx, path, MOST_FILE_BYTES, &text, &size));
    const base_status_t st = read_lines(&r, text, size, each, user);
    base_free(ctx, text);
    BASE_TRY(st);
    tr_run_table_split_t *s = &file->split;
    base_meter_read(&r.meter, s->ns);
    s->ns[BASE_PART_NONE] = r.last_ns - r.first_ns;
    for (int p = BASE_PART_NONE + 1; p < BASE_NUM_PARTS; p++)
        s->ns[BASE_PART_NONE] -= s->ns[p];
    if (r.first_microbatch >= 0) s->microbatches = r.last_microbatch - r.first_microbatch + 1;
    return BASE_OK;
}
