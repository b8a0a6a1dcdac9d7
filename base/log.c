#include "base/log.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INFO_INTERVAL_NS   INT64_C(1000000000)
#define WARNING_TEXT_BYTES 256
/* An error is its sentence, prefix and cure. */
#define ERROR_FORMAT_BYTES (BASE_ERROR_TEXT_BYTES + 512)

typedef struct warning {
    char key[BASE_LOG_KEY_BYTES];
    char text[WARNING_TEXT_BYTES]; /* of the first one */
    int64_t count;
} warning_t;

struct base_log {
    pthread_mutex_t lock; /* guards everything below */
    base_log_level_t level;
    FILE *file;
    char path[BASE_LOG_LINE_BYTES]; /* of it, cut */
    base_log_terminal_fn terminal;
    void *terminal_user;
    int colour;
    int64_t next_info_ns;  /* not before then does info reach the terminal again */
    int64_t info_left_out; /* since the last info line on the terminal */
    int64_t lost_lines;    /* that the file refused */
    int num_warnings;
    int64_t other_warnings; /* of keys that found no room */
    warning_t warning[BASE_LOG_WARNING_KEYS];
};

const char *base_log_level_name(base_log_level_t level)
{
    switch (level) {
    case BASE_LOG_ERROR:
        return "error";
    case BASE_LOG_WARNING:
        return "warning";
    case BASE_LOG_INFO:
        return "info";
    case BASE_LOG_DEBUG:
        return "debug";
    }
    return NULL;
}

int base_log_level_parse(const char *word, base_log_level_t *level)
{
    for (int i = BASE_LOG_ERROR; i <= BASE_LOG_DEBUG; i++) {
        if (strcmp(word, base_log_level_name((base_log_level_t)i)) == 0) {
            *level = (base_log_level_t)i;
            return 1;
        }
    }
    return 0;
}

/* ==== life ==== */

base_status_t base_log_create(base_log_level_t level, base_log_t **log_p)
{
    base_log_t *log;

    if (base_log_level_name(level) == NULL) return BASE_ERR_ARG;
    log = base_memory_raw_calloc(sizeof *log);
    if (log == NULL) return BASE_ERR_NOMEM;
    if (pthread_mutex_init(&log->lock, NULL) != 0) {
        base_memory_raw_free(log);
        return BASE_ERR_NOMEM;
    }
    log->level = level;
    *log_p = log;
    return BASE_OK;
}

void base_log_destroy(base_log_t *log)
{
    if (log == NULL) return;
    if (log->file != NULL) (void)fclose(log->file);
    (void)pthread_mutex_destroy(&log->lock);
    base_memory_raw_free(log);
}

base_status_t base_log_open_file(base_log_t *log, base_ctx_t *ctx, const char *path)
{
    base_status_t st = BASE_OK;

    if (log == NULL) return BASE_OK;
    (void)pthread_mutex_lock(&log->lock);
    if (log->file != NULL) {
        st =
            BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_INT_01, "%s: the log has a file already", path);
    } else {
        log->file = fopen(path, "ae");
        if (log->file == NULL)
            st = BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_02, "%s: cannot open the log: %s", path,
                           strerror(errno));
        (void)snprintf(log->path, sizeof log->path, "%s", path);
    }
    (void)pthread_mutex_unlock(&log->lock);
    return st;
}

void base_log_set_terminal(base_log_t *log, base_log_terminal_fn fn, void *user, int colour)
{
    if (log == NULL) return;
    (void)pthread_mutex_lock(&log->lock);
    log->terminal = fn;
    log->terminal_user = user;
    log->colour = colour;
    (void)pthread_mutex_unlock(&log->lock);
}

void base_log_to_stderr(void *user, base_log_level_t level, const char *text)
{
    (void)user;
    (void)level;
    (void)fputs(text, stderr);
    (void)fflush(stderr);
}

int base_log_wants_colour(int fd)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    if (no_color != NULL && no_color[0] != '\0') return 0;
    if (term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0) return 0;
    return isatty(fd) == 1;
}

/* ==== lines ==== */

/* A quoted file name or document must not reach the terminal as an escape sequence. Bytes >= 0x80
 * are UTF-8. */
static void clean(char *s)
{
    for (; *s != '\0'; s++) {
        const unsigned char c = (unsigned char)*s;

        if (c < 0x20 || c == 0x7f) *s = '?';
    }
}

/* The functions below are called under the lock. */

/* Returns 0, or why the file refused the line. */
static int write_line(base_log_t *log, base_log_level_t level, const char *text)
{
    char stamp[BASE_CLOCK_TEXT_BYTES];
    int why = 0;

    if (log->file == NULL) return 0;
    base_clock_format(base_clock_wall_ns(), stamp);
    /* Flushed line by line: what matters most is what was written just before a crash. */
    if (fprintf(log->file, "%s %s %s\n", stamp, base_log_level_name(level), text) < 0 ||
        fflush(log->file) != 0) {
        why = errno != 0 ? errno : EIO;
        clearerr(log->file);
    }
    return why;
}

static void to_file(base_log_t *log, base_log_level_t level, const char *text)
{
    log->lost_lines += write_line(log, level, text) != 0;
}

static const char *colour_of(base_log_level_t level)
{
    if (level == BASE_LOG_ERROR) return "\033[1;31m";
    return level == BASE_LOG_WARNING ? "\033[1;33m" : "\033[2m";
}

static void to_terminal(base_log_t *log, base_log_level_t level, const char *text)
{
    char line[BASE_LOG_LINE_BYTES + 64];
    const int loud = level <= BASE_LOG_WARNING;

    if (log->terminal == NULL) return;
    if (loud && log->colour)
        (void)snprintf(line, sizeof line, "cadre: %s%s:\033[0m %s\n", colour_of(level),
                       base_log_level_name(level), text);
    else if (loud)
        (void)snprintf(line, sizeof line, "cadre: %s: %s\n", base_log_level_name(level), text);
    else if (level == BASE_LOG_DEBUG && log->colour)
        (void)snprintf(line, sizeof line, "%s%s\033[0m\n", colour_of(level), text);
    else
        (void)snprintf(line, sizeof line, "%s\n", text);
    log->terminal(log->terminal_user, level, line);
}

static void info_to_terminal(base_log_t *log, const char *text)
{
    char line[BASE_LOG_LINE_BYTES + 32];
    const int64_t now = base_clock_ns();

    if (log->terminal == NULL) return;
    if (now < log->next_info_ns) {
        log->info_left_out++;
        return;
    }
    log->next_info_ns = now + INFO_INTERVAL_NS;
    if (log->info_left_out == 0) {
        to_terminal(log, BASE_LOG_INFO, text);
        return;
    }
    (void)snprintf(line, sizeof line, "%s (and %" PRId64 " more)", text, log->info_left_out);
    log->info_left_out = 0;
    to_terminal(log, BASE_LOG_INFO, line);
}

/* ==== the levels ==== */

base_status_t base_log_file_line(base_log_t *log, base_ctx_t *ctx, const char *fmt, ...)
{
    char text[BASE_LOG_LINE_BYTES];
    base_status_t st = BASE_OK;
    va_list args;

    if (log == NULL) return BASE_OK;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    clean(text);
    (void)pthread_mutex_lock(&log->lock);
    const int why = write_line(log, BASE_LOG_INFO, text);
    if (why != 0)
        st = BASE_FAIL(ctx, base_file_status(why), BASE_MSG_IO_02,
                       "%s: cannot write to the log: %s", log->path, strerror(why));
    (void)pthread_mutex_unlock(&log->lock);
    return st;
}

void base_log_info(base_log_t *log, const char *fmt, ...)
{
    char text[BASE_LOG_LINE_BYTES];
    va_list args;

    if (log == NULL) return;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    clean(text);
    (void)pthread_mutex_lock(&log->lock);
    if (log->level >= BASE_LOG_INFO) {
        to_file(log, BASE_LOG_INFO, text);
        info_to_terminal(log, text);
    }
    (void)pthread_mutex_unlock(&log->lock);
}

void base_log_debug(base_log_t *log, const char *fmt, ...)
{
    char text[BASE_LOG_LINE_BYTES];
    va_list args;

    if (log == NULL) return;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    clean(text);
    (void)pthread_mutex_lock(&log->lock);
    if (log->level >= BASE_LOG_DEBUG) {
        to_file(log, BASE_LOG_DEBUG, text);
        to_terminal(log, BASE_LOG_DEBUG, text);
    }
    (void)pthread_mutex_unlock(&log->lock);
}

/* The entry of a key, a new one if need be; NULL when the table is full. */
static warning_t *find_warning(base_log_t *log, const char *key, int add)
{
    char cut[BASE_LOG_KEY_BYTES];
    warning_t *w;

    (void)snprintf(cut, sizeof cut, "%s", key);
    for (int i = 0; i < log->num_warnings; i++) {
        if (strcmp(log->warning[i].key, cut) == 0) return &log->warning[i];
    }
    if (!add || log->num_warnings == BASE_LOG_WARNING_KEYS) return NULL;
    w = &log->warning[log->num_warnings++];
    memset(w, 0, sizeof *w);
    memcpy(w->key, cut, sizeof cut);
    return w;
}

static void warn_locked(base_log_t *log, const char *key, const char *text)
{
    warning_t *w = find_warning(log, key, 1);
    const int first = w != NULL ? w->text[0] == '\0' : log->other_warnings == 0;

    if (w == NULL) {
        log->other_warnings++;
    } else {
        if (first) (void)snprintf(w->text, sizeof w->text, "%.*s", WARNING_TEXT_BYTES - 1, text);
        w->count++;
    }
    if (first || log->level >= BASE_LOG_DEBUG) to_file(log, BASE_LOG_WARNING, text);
    if (first) to_terminal(log, BASE_LOG_WARNING, text);
}

void base_log_warn(base_log_t *log, const char *key, const char *fmt, ...)
{
    char text[BASE_LOG_LINE_BYTES];
    va_list args;

    if (log == NULL) return;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    clean(text);
    (void)pthread_mutex_lock(&log->lock);
    if (log->level >= BASE_LOG_WARNING) warn_locked(log, key, text);
    (void)pthread_mutex_unlock(&log->lock);
}

int64_t base_log_warnings(base_log_t *log, const char *key)
{
    const warning_t *w;
    int64_t count;

    if (log == NULL) return 0;
    (void)pthread_mutex_lock(&log->lock);
    w = find_warning(log, key, 0);
    count = w != NULL ? w->count : 0;
    (void)pthread_mutex_unlock(&log->lock);
    return count;
}

static void warn_counted(base_log_t *log, const char *text, int64_t count)
{
    char line[BASE_LOG_LINE_BYTES];

    if (count > 1)
        (void)snprintf(line, sizeof line, "%s (%" PRId64 " times)", text, count);
    else
        (void)snprintf(line, sizeof line, "%s", text);
    to_file(log, BASE_LOG_WARNING, line);
    to_terminal(log, BASE_LOG_WARNING, line);
}

void base_log_summary(base_log_t *log)
{
    if (log == NULL) return;
    (void)pthread_mutex_lock(&log->lock);
    for (int i = 0; i < log->num_warnings; i++) {
        if (log->warning[i].count > 0)
            warn_counted(log, log->warning[i].text, log->warning[i].count);
        log->warning[i].count = 0;
    }
    if (log->other_warnings > 0)
        warn_counted(log, "further warnings of other kinds", log->other_warnings);
    log->other_warnings = 0;
    if (log->lost_lines > 0)
        warn_counted(log, "a line of the log file could not be written", log->lost_lines);
    log->lost_lines = 0;
    (void)pthread_mutex_unlock(&log->lock);
}

/* ==== errors ==== */

/* What both forms share; `head` is the id with its colour. */
static size_t format_error(const base_error_t *error, const char *head, const char *head_end,
                           char *text, size_t room)
{
    const char *id = base_message_id(error->message);
    const char *cure = base_message_cure(error->message);
    char sentence[BASE_ERROR_TEXT_BYTES];
    int n;

    if (room == 0) return 0;
    (void)snprintf(sentence, sizeof sentence, "%s", error->text);
    clean(sentence);
    n = snprintf(text, room, "cadre: %serror %s:%s %s\n  %s\n", head, id != NULL ? id : "?",
                 head_end, sentence, cure != NULL ? cure : base_status_text(error->status));
    if (n < 0) n = 0;
    return (size_t)n < room ? (size_t)n : room - 1;
}

size_t base_error_format(const base_error_t *error, char *text, size_t room)
{
    return format_error(error, "", "", text, room);
}

/* Two lines of the file, since every line of it starts with a time and a level. */
static void error_to_file(base_log_t *log, const base_error_t *error)
{
    char line[BASE_LOG_LINE_BYTES];
    const char *id = base_message_id(error->message);
    const char *cure = base_message_cure(error->message);

    (void)snprintf(line, sizeof line, "%s: %s", id != NULL ? id : "?", error->text);
    clean(line);
    to_file(log, BASE_LOG_ERROR, line);
    /* For us, not for the user: who said it. */
    (void)snprintf(line, sizeof line, "  %s (%s, rank %d, %s:%d)", cure != NULL ? cure : "",
                   base_status_name(error->status), error->rank, error->file, error->line);
    to_file(log, BASE_LOG_ERROR, line);
}

void base_log_error(base_log_t *log, const base_error_t *error)
{
    char text[ERROR_FORMAT_BYTES];

    if (log == NULL) return;
    (void)pthread_mutex_lock(&log->lock);
    error_to_file(log, error);
    if (log->terminal != NULL) {
        (void)format_error(error, log->colour ? colour_of(BASE_LOG_ERROR) : "",
                           log->colour ? "\033[0m" : "", text, sizeof text);
        log->terminal(log->terminal_user, BASE_LOG_ERROR, text);
    }
    (void)pthread_mutex_unlock(&log->lock);
}
