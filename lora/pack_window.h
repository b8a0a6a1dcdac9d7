/* What the packer is asked: documents of several adapters, in global batches, and the microbatches
 * that they go to.
 *
 * A window is what is known of the run from the next microbatch on: of each adapter the rest of the
 * global batch at work and any number of batches after it. A schedule gives each document its
 * microbatch, counted from the window's start. It is legal when
 *   room      the rows of a microbatch are at most `capacity`; those of each adapter count rounded
 *             up to adapter_align (1 with our layers, which need no padding between adapters). A
 *             document alone may have `alone_capacity` rows (lora/pack.h)
 *   columns   the ranks of a microbatch's adapters are at most rank_columns together
 *   order     of two batches of an adapter the later one begins at least `stages` microbatches
 *             after the last of the earlier one, so that with a pipeline of so many stages, one
 *             forward and one backward in turn, the optimizer's step lies between them; with one
 *             stage: never in one microbatch
 * A microbatch may be empty: the order can ask for a pause.
 *
 * Documents are whole here. Where they are cut over trainers is the layout's business; with
 * `capacity` and `rows` the caller sees to it that the layout places whatever is legal here: trainers'
 * rows less its margin, or all of them and each document's rows rounded up (lora/pack.h). */
#ifndef CADRE_LORA_PACK_WINDOW_H
#define CADRE_LORA_PACK_WINDOW_H

#include "base/context.h"
#include "base/hash.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where adapters are padded a microbatch has so many rows and units of adapter_align at most. */
#define LORA_WINDOW_PADDED_CAPACITY 16384
#define LORA_WINDOW_PADDED_UNITS    512

typedef struct lora_window_adapter {
    int64_t rank;
    int64_t done, total; /* global batches behind it, and of the whole job; total > 0 */
    int64_t not_before;  /* first microbatch that may hold documents of it */
    int32_t first_batch, num_batches;
} lora_window_adapter_t;

/* Documents [first_document, first_document + num_documents); `placed` more of them lie in
 * microbatches before the window. num_documents > 0. */
typedef struct lora_window_batch {
    int32_t first_document, num_documents;
    int32_t placed;
} lora_window_batch_t;

typedef struct lora_window {
    int64_t capacity, alone_capacity; /* rows; alone >= capacity */
    int64_t adapter_align;            /* 1 or more, divides capacity */
    int64_t rank_columns;             /* 0: ranks do not matter */
    int32_t stages;                   /* 1 or more */
    int32_t num_adapters, num_batches, num_documents;
    const lora_window_adapter_t *adapters; /* their batches lie one after another */
    const lora_window_batch_t *batches;    /* and so do the batches' documents */
    const int64_t *rows;                   /* [num_documents] > 0; what they take of the capacity */
    const int64_t *supervised;             /* [num_documents]; NULL: all alike */
} lora_window_t;

typedef struct lora_schedule {
    int32_t num_microbatches;
    int32_t *microbatch; /* [num_documents], the caller's */
} lora_schedule_t;

/* What a schedule is worth. */
typedef struct lora_schedule_value {
    int64_t microbatches;
    int64_t adapters;           /* summed over the microbatches */
    int64_t rows, counted_rows; /* of documents; rounded up to adapter_align */
    int64_t supervised_excess;  /* supervised rows above an even share, summed over microbatches */
} lora_schedule_value_t;

/* BASE_ERR_ARG (INT-01) when the window is malformed; PLAN-01 when a document or a rank can never
 * fit. */
base_status_t lora_window_check(base_ctx_t *ctx, const lora_window_t *window) BASE_MUST_CHECK;

/* Judges a schedule: every document in one microbatch, room, columns, order. BASE_ERR_INTERNAL names
 * the microbatch. `value` may be NULL. Allocates its scratch: for tests, benches and results of a
 * solver, not for the microbatch loop. */
base_status_t lora_schedule_judge(base_ctx_t *ctx, const lora_window_t *window,
                                  const lora_schedule_t *schedule,
                                  lora_schedule_value_t *value) BASE_MUST_CHECK;

/* By which ranks and compilers compare schedules. */
base_hash_t lora_schedule_hash(const lora_window_t *window, const lora_schedule_t *schedule);

static inline int64_t lora_window_align(const lora_window_t *window, int64_t rows)
{
    return (rows + window->adapter_align - 1) / window->adapter_align * window->adapter_align;
}

#ifdef __cplusplus
}
#endif
#endif
