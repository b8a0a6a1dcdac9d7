#include "trainer/run/progress.h"

#include "base/memory.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NS_PER_S      INT64_C(1000000000)
#define REDRAW_NS     (NS_PER_S / 10)
#define LINE_NS       NS_PER_S /* between lines of a pipe, at first */
#define LINE_MAX_NS   (30 * NS_PER_S)
#define WINDOW_NS     (4 * NS_PER_S) /* tokens per second: over one to two of these */
#define LINE_BYTES    512
#define BAR_COLUMNS   20
#define DEFAULT_WIDTH 80

typedef struct job {
    char *name;
    int64_t first_step;
    int64_t step;
    int64_t total_steps;
    double loss;
    bool has_loss;
    bool ended;
} job_t;

struct tr_progress {
    base_ctx_t *ctx;
    pthread_mutex_t lock; /* guards everything below */
    tr_progress_options_t options;
    int64_t num_jobs;
    job_t *job;
    int64_t start_ns;
    int64_t next_ns; /* nothing is drawn before then */
    int64_t tokens;
    struct {
        int64_t ns;
        int64_t tokens;
    } mark[2];  /* the older one is where the rate is measured from */
    bool drawn; /* a line stands on the terminal */
};

void tr_progress_for(FILE *out, tr_now_fn now, tr_progress_options_t *options)
{
    const char *term = getenv("TERM");

    memset(options, 0, sizeof *options);
    options->out = out;
    options->now = now;
    options->terminal =
        isatty(fileno(out)) == 1 && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
    options->colour = options->terminal && base_log_wants_colour(fileno(out)) == 1;
}

/* ==== life ==== */

base_status_t tr_progress_create(base_ctx_t *ctx, const tr_progress_options_t *options,
                                 const tr_progress_job_t *jobs, int64_t num_jobs,
                                 tr_progress_t **progress_p)
{
    tr_progress_t *progress = base_calloc(ctx, 1, sizeof *progress, "progress");

    if (progress == NULL) return BASE_ERR_NOMEM;
    if (pthread_mutex_init(&progress->lock, NULL) != 0) {
        base_free(ctx, progress);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "progress: no mutex");
    }
    progress->ctx = ctx;
    progress->options = *options;
    progress->job = base_calloc(ctx, num_jobs, sizeof *progress->job, "progress");
    if (progress->job == NULL) goto err_destroy_progress;
    progress->num_jobs = num_jobs;
    for (int64_t i = 0; i < num_jobs; i++) {
        job_t *job = &progress->job[i];

        job->name = base_strdup(ctx, jobs[i].name, "progress");
        if (job->name == NULL) goto err_destroy_progress;
        job->first_step = jobs[i].first_step;
        job->step = jobs[i].first_step;
        job->total_steps = jobs[i].total_steps;
    }
    progress->start_ns = options->now();
    for (int i = 0; i < 2; i++)
        progress->mark[i].ns = progress->start_ns;
    *progress_p = progress;
    return BASE_OK;
err_destroy_progress:
    tr_progress_destroy(progress);
    return BASE_ERR_NOMEM;
}

static void clear_line(tr_progress_t *progress)
{
    if (!progress->drawn) return;
    (void)fputs("\r\033[K", progress->options.out);
    progress->drawn = false;
}

void tr_progress_destroy(tr_progress_t *progress)
{
    base_ctx_t *ctx;

    if (progress == NULL) return;
    ctx = progress->ctx;
    clear_line(progress);
    (void)fflush(progress->options.out);
    for (int64_t i = 0; i < progress->num_jobs; i++)
        base_free(ctx, progress->job[i].name);
    base_free(ctx, progress->job);
    (void)pthread_mutex_destroy(&progress->lock);
    base_free(ctx, progress);
}

/* ==== the line ==== */

typedef struct line {
    char text[LINE_BYTES];
    size_t length;
} line_t;

BASE_PRINTF(2, 3) static void add(line_t *line, const char *fmt, ...)
{
    const size_t room = sizeof line->text - line->length;
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(line->text + line->length, room, fmt, args);
    va_end(args);
    if (n > 0) line->length += (size_t)n < room ? (size_t)n : room - 1;
}

/* "950", "18.2k", "1.25M" */
static void add_rate(line_t *line, double v)
{
    if (v < 999.5)
        add(line, "%.0f", v);
    else if (v < 999.95e3)
        add(line, "%.1fk", v / 1e3);
    else
        add(line, "%.2fM", v / 1e6);
}

/* "0:42", "1:02:07" */
static void add_duration(line_t *line, int64_t seconds)
{
    if (seconds >= 3600)
        add(line, "%" PRId64 ":%02d:%02d", seconds / 3600, (int)(seconds / 60 % 60),
            (int)(seconds % 60));
    else
        add(line, "%d:%02d", (int)(seconds / 60), (int)(seconds % 60));
}

typedef struct totals {
    int64_t first;
    int64_t done;
    int64_t total;
} totals_t;

static totals_t sum_jobs(const tr_progress_t *progress)
{
    totals_t sum = {0, 0, 0};

    for (int64_t i = 0; i < progress->num_jobs; i++) {
        sum.first += progress->job[i].first_step;
        sum.done += progress->job[i].step;
        sum.total += progress->job[i].total_steps;
    }
    return sum;
}

static void add_speed(line_t *line, tr_progress_t *progress, totals_t sum, int64_t now)
{
    const double window = (double)(now - progress->mark[1].ns);
    const int64_t steps = sum.done - sum.first;

    if (window > 0) {
        add(line, " | ");
        add_rate(line,
                 (double)(progress->tokens - progress->mark[1].tokens) / window * (double)NS_PER_S);
        add(line, " tokens/s");
    }
    if (steps > 0) {
        const double seconds = (double)(now - progress->start_ns) / (double)NS_PER_S;

        add(line, " | ");
        add_duration(line, (int64_t)(seconds / (double)steps * (double)(sum.total - sum.done)));
        add(line, " left");
    }
}

/* Returns how many bytes of the line are the bar. */
static size_t make_line(tr_progress_t *progress, int64_t now, bool with_bar, line_t *line)
{
    const totals_t sum = sum_jobs(progress);
    const double share = sum.total > 0 ? (double)sum.done / (double)sum.total : 1.0;
    const char *separator = " | ";
    size_t bar;

    line->length = 0;
    if (with_bar) {
        const int full = (int)(share * BAR_COLUMNS);

        add(line, "[%.*s%.*s]", full, "####################", BAR_COLUMNS - full,
            "--------------------");
    }
    bar = line->length;
    add(line, "%s%3d %% | step %" PRId64 "/%" PRId64, with_bar ? " " : "", (int)(share * 100),
        sum.done, sum.total);
    add_speed(line, progress, sum, now);
    for (int64_t i = 0; i < progress->num_jobs; i++) {
        const job_t *job = &progress->job[i];

        if (job->ended || !job->has_loss) continue;
        add(line, "%s%s %.3f", separator, job->name, job->loss);
        separator = ", ";
    }
    return bar;
}

static int terminal_width(const tr_progress_t *progress)
{
    struct winsize size;

    if (progress->options.width > 0) return progress->options.width;
    if (ioctl(fileno(progress->options.out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return DEFAULT_WIDTH;
}

/* A log of a run that takes days should not have a line for each second of it. */
static int64_t pause_ns(const tr_progress_t *progress, int64_t now)
{
    const int64_t pause = (now - progress->start_ns) / 20;

    if (progress->options.terminal) return REDRAW_NS;
    if (pause < LINE_NS) return LINE_NS;
    return pause < LINE_MAX_NS ? pause : LINE_MAX_NS;
}

static void draw(tr_progress_t *progress, int64_t now)
{
    FILE *out = progress->options.out;
    const bool colour = progress->options.colour;
    line_t line;
    size_t bar;
    size_t room;

    if (!progress->options.terminal) {
        (void)make_line(progress, now, false, &line);
        (void)fprintf(out, "%s\n", line.text);
    } else {
        /* The last column stays free: some terminals wrap as soon as it is filled. */
        const int width = terminal_width(progress);

        room = width > 1 ? (size_t)width - 1 : 1;
        bar = make_line(progress, now, width >= 2 * BAR_COLUMNS + 40, &line);
        if (line.length > room) {
            line.length = room;
            if (room > 3) memcpy(line.text + room - 3, "...", 3);
        }
        if (bar > line.length) bar = line.length;
        (void)fprintf(out, "\r%s%.*s%s%.*s\033[K", colour ? "\033[32m" : "", (int)bar, line.text,
                      colour ? "\033[0m" : "", (int)(line.length - bar), line.text + bar);
        progress->drawn = true;
    }
    (void)fflush(out);
    progress->next_ns = now + pause_ns(progress, now);
}

static void draw_if_due(tr_progress_t *progress)
{
    const int64_t now = progress->options.now();

    if (now - progress->mark[0].ns >= WINDOW_NS) {
        progress->mark[1] = progress->mark[0];
        progress->mark[0].ns = now;
        progress->mark[0].tokens = progress->tokens;
    }
    if (now >= progress->next_ns) draw(progress, now);
}

/* ==== what happened ==== */

void tr_progress_tokens(tr_progress_t *progress, int64_t tokens)
{
    if (progress == NULL) return;
    (void)pthread_mutex_lock(&progress->lock);
    progress->tokens += tokens;
    draw_if_due(progress);
    (void)pthread_mutex_unlock(&progress->lock);
}

void tr_progress_step(tr_progress_t *progress, int64_t job, int64_t step, double loss)
{
    if (progress == NULL) return;
    (void)pthread_mutex_lock(&progress->lock);
    progress->job[job].step = step;
    progress->job[job].loss = loss;
    progress->job[job].has_loss = true;
    draw_if_due(progress);
    (void)pthread_mutex_unlock(&progress->lock);
}

void tr_progress_job_end(tr_progress_t *progress, int64_t index, const char *how)
{
    line_t line;
    job_t *job;
    int64_t now;

    if (progress == NULL) return;
    (void)pthread_mutex_lock(&progress->lock);
    job = &progress->job[index];
    now = progress->options.now();
    line.length = 0;
    add(&line, "%s: %s after step %" PRId64 "/%" PRId64, job->name, how != NULL ? how : "done",
        job->step, job->total_steps);
    if (job->has_loss) add(&line, ", loss %.4f", job->loss);
    add(&line, ", ");
    add_duration(&line, (now - progress->start_ns) / NS_PER_S);
    job->total_steps = job->step;
    job->ended = true;
    clear_line(progress);
    (void)fprintf(progress->options.out, "%s\n", line.text);
    if (progress->options.terminal)
        draw(progress, now);
    else
        (void)fflush(progress->options.out);
    (void)pthread_mutex_unlock(&progress->lock);
}

void tr_progress_log(void *user, base_log_level_t level, const char *text)
{
    tr_progress_t *progress = user;

    (void)level;
    (void)pthread_mutex_lock(&progress->lock);
    if (progress->drawn) {
        clear_line(progress);
        (void)fputs(text, progress->options.out);
        draw(progress, progress->options.now());
    } else {
        (void)fputs(text, progress->options.out);
        (void)fflush(progress->options.out);
    }
    (void)pthread_mutex_unlock(&progress->lock);
}
