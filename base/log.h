/* The log of a rank: sentences, into a file per rank and, for one rank of a job, onto the terminal.
 *
 *   base_log_t *log;
 *   BASE_TRY(base_log_create(BASE_LOG_INFO, &log));      before the context, which borrows it
 *   base_log_set_terminal(log, base_log_to_stderr, NULL, base_log_wants_colour(2));
 *                                                        on one rank of the job
 *   BASE_TRY(base_log_open_file(log, ctx, "runs/a/logs/rank-0000.log"));
 *                                                        when the folder exists
 *   base_log_info(log, "corpora/legal.h5: 12000 documents");
 *   base_log_warn(log, "pad-rows", "microbatch %d: 7 %% pad rows", n);
 *   base_log_summary(log);                               at the end
 *
 * What reaches where:
 *   error    file and terminal, at once
 *   warning  file and terminal the first time its key appears; later ones are counted and repeated
 *            in the summary (at level debug the file gets each of them)
 *   info     file always; terminal at most one line a second, and the next line says how many were
 *            left out
 *   debug    file and terminal, only at level debug
 * A line of the file: "2026-01-31T08:24:01.123Z warning text". A line of the terminal:
 * "cadre: warning: text", info and debug without a prefix. Control characters in a text (it may
 * quote a user's file) come out as '?'.
 *
 * Nothing is logged in a hot loop. Every function takes NULL for the log and then does nothing.
 * Nothing is allocated after creation.
 *
 * Threads: all functions from all threads; lines never mix. Terminal callbacks run under the lock
 * of the log: they must not log. */
#ifndef CADRE_BASE_LOG_H
#define CADRE_BASE_LOG_H

#include "base/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum base_log_level {
    BASE_LOG_ERROR,
    BASE_LOG_WARNING,
    BASE_LOG_INFO,
    BASE_LOG_DEBUG
} base_log_level_t;

#define BASE_LOG_LINE_BYTES   2048 /* longer lines are cut */
#define BASE_LOG_KEY_BYTES    48   /* longer keys are cut */
#define BASE_LOG_WARNING_KEYS 128  /* keys beyond are counted together */

/* "error"; NULL for a value that is not in the list. */
const char *base_log_level_name(base_log_level_t level);
/* 1 and *level for one of the four words, else 0. */
int base_log_level_parse(const char *word, base_log_level_t *level);

/* Prints `text`: one or more complete lines, each with its line feed. */
typedef void (*base_log_terminal_fn)(void *user, base_log_level_t level, const char *text);

/* Messages less important than `level` are dropped everywhere. BASE_ERR_NOMEM without a text: there
 * is no context yet. The caller owns *log_p; it must outlive the contexts that borrow it. */
base_status_t base_log_create(base_log_level_t level, base_log_t **log_p) BASE_MUST_CHECK;
void base_log_destroy(base_log_t *log); /* closes the file; NULL is legal */

/* Appends to the file at `path`. IO-02 when it cannot be opened; BASE_ERR_STATE when one is open
 * already. */
base_status_t base_log_open_file(base_log_t *log, base_ctx_t *ctx,
                                 const char *path) BASE_MUST_CHECK;

/* Writes a line to the file alone, as info, and says when the file refuses it: IO-02, BASE_ERR_SPACE of a full disk.
 * Lines that are lost later are counted, see base_log_summary. */
base_status_t base_log_file_line(base_log_t *log, base_ctx_t *ctx, const char *fmt, ...)
    BASE_PRINTF(3, 4) BASE_MUST_CHECK;

/* Sends lines to `fn`; NULL: no terminal. `user` is borrowed. colour: base_log_wants_colour. */
void base_log_set_terminal(base_log_t *log, base_log_terminal_fn fn, void *user, int colour);

/* The plain sink: writes to stderr. `user` is unused. */
void base_log_to_stderr(void *user, base_log_level_t level, const char *text);

/* 1 when the file descriptor is a terminal that shows colours and NO_COLOR is unset or empty. */
int base_log_wants_colour(int fd);

void base_log_info(base_log_t *log, const char *fmt, ...) BASE_PRINTF(2, 3);
void base_log_debug(base_log_t *log, const char *fmt, ...) BASE_PRINTF(2, 3);

/* `key` names the kind of warning, and the object when each object deserves its own line
 * ("pad-rows", "short:legal"); it is copied. */
void base_log_warn(base_log_t *log, const char *key, const char *fmt, ...) BASE_PRINTF(3, 4);

/* Logs a recorded error in the form of base_error_format. */
void base_log_error(base_log_t *log, const base_error_t *error);

/* Repeats each warning with its count, and says what the log lost (a full disk). Counts start again
 * at 0. */
void base_log_summary(base_log_t *log);

/* Times this key was warned of since the start or the last summary. */
int64_t base_log_warnings(base_log_t *log, const char *key);

/* Writes
 *   cadre: error DATA-07: corpora/legal.h5: document 812: no supervised token
 *     remove the document, or ...
 * (the cure indented by two spaces on a line of its own, line feed at the end) into text[room], cut
 * if need be and always terminated when room > 0. Control characters come out as '?'. Returns the
 * length written. */
size_t base_error_format(const base_error_t *error, char *text, size_t room);

#ifdef __cplusplus
}
#endif
#endif
