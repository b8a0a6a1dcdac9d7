/* Which document comes next: the order of an adapter's training documents.
 *
 *   data_order_t *order;
 *   BASE_TRY(data_order_create(ctx, &(data_order_options_t){.source = "legal.h5", .seed = 7,
 *       .num_documents = data_dataset_num_documents(ds), .shuffle = true}, &order));
 *   const int64_t document = data_order_next(order);                   for ever, epoch by epoch
 *   data_order_destroy(order);
 *
 * The document with number n of a job is a pure function of (seed, n, num_documents, shuffle,
 * eval_documents): n / num_train is the epoch, and within an epoch every training document comes
 * once. So a resumed job sets the cursor (data_order_seek) and goes on as if it had never stopped,
 * and all ranks agree without talking to each other.
 *
 *   file     ascending, the same in every epoch
 *   shuffle  a Fisher-Yates shuffle of them, another one in each epoch. Every permutation has the
 *            same chance: numbers that would favour some are rejected and drawn again
 *   held out eval_documents documents, drawn by the seed out of all: the same in all epochs and for
 *            both orders, never among the training documents
 *
 * Philox: key = seed; counter = {index, attempt, epoch, 'O'} for a shuffle, {index, attempt, 0,
 * 'H'} for what is held out. Integers only: the same bits everywhere.
 *
 * Memory: 4 bytes a document, taken at creation; nothing afterwards. A step is O(1), the first one
 * of an epoch O(documents), 0.1 to 0.2 us each. One thread. */
#ifndef CADRE_DATA_ORDER_H
#define CADRE_DATA_ORDER_H

#include "base/context.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct data_order data_order_t;

typedef struct data_order_options {
    const char *source; /* place of messages: the dataset, or the adapter; used by create only */
    uint64_t seed;
    int64_t num_documents;  /* of the dataset, at most 2^31 - 1 */
    int64_t eval_documents; /* held out; 0: none */
    bool shuffle;
} data_order_options_t;

/* BASE_ERR_CONFIG (DATA-15) when eval_documents leaves nothing to train on; BASE_ERR_ARG (INT-01);
 * BASE_ERR_NOMEM. The cursor is at number 0. The caller destroys *order_p. */
base_status_t data_order_create(base_ctx_t *ctx, const data_order_options_t *options,
                                data_order_t **order_p) BASE_MUST_CHECK;
void data_order_destroy(data_order_t *order); /* NULL is legal */

int64_t data_order_num_train(const data_order_t *order); /* documents of an epoch */
int64_t data_order_num_eval(const data_order_t *order);
/* Held-out document 0 <= i < num_eval, ascending. */
int64_t data_order_eval(const data_order_t *order, int64_t i);

/* The document at the cursor; next moves the cursor on by one. */
int64_t data_order_peek(data_order_t *order);
int64_t data_order_next(data_order_t *order);

/* The cursor: number of the next document in the job, what a checkpoint keeps. Epoch is number /
 * num_train, position number % num_train: at position 0 an epoch begins. */
int64_t data_order_number(const data_order_t *order);
int64_t data_order_epoch(const data_order_t *order);
int64_t data_order_position(const data_order_t *order);
/* 0 <= number, of an epoch below 2^32; BASE_ERR_ARG (INT-01) for another. Nothing is shuffled
 * before the next peek or next. */
base_status_t data_order_seek(data_order_t *order, int64_t number) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
