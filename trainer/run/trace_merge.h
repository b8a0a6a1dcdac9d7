/* `cadre trace`: the files of a run's ranks (run_trace.h) in one, and what they say of its time.
 *
 * The times in the files are rank 0's already, so they are put together line by line. On the way
 * the compute lane of each rank is read as its meter would have counted it (base/meter.h), over the
 * time from the rank's first to its last event. */
#ifndef CADRE_TRAINER_RUN_TRACE_MERGE_H
#define CADRE_TRAINER_RUN_TRACE_MERGE_H

#include "base/context.h"
#include "trainer/run/run_table.h"

#include <stdio.h>

#define TR_TRACE_MOST_RANKS 4096

typedef struct tr_trace_merge {
    const char *run; /* folder of the run */
    const char *to;  /* file to write; NULL: RUN/trace/trace.json */
    FILE *out;       /* the table */
} tr_trace_merge_t;

/* RUN-08: the run has no trace, a rank's file is missing, or a line is damaged (file and line).
 */
base_status_t tr_trace_merge(base_ctx_t *ctx, const tr_trace_merge_t *merge) BASE_MUST_CHECK;

/* ==== trace_read.c: one file of a rank ==== */

typedef struct tr_trace_file {
    int64_t ranks, dropped; /* of the header */
    double clock_error_us;
    char name[64]; /* "rank 2 (server 0)" */
    int64_t events;
    tr_run_table_split_t split;
} tr_trace_file_t;

/* Called with each event, a line without its comma. */
typedef base_status_t (*tr_trace_line_fn)(void *user, const char *line, size_t bytes);

base_status_t tr_trace_read(base_ctx_t *ctx, const char *path, int64_t rank, tr_trace_line_fn each,
                            void *user, tr_trace_file_t *file) BASE_MUST_CHECK;

#endif
