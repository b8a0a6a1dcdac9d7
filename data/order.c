#include "data/order.h"

#include "base/memory.h"
#include "base/philox.h"
#include "base/sort.h"

#include <assert.h>
#include <inttypes.h>

#define USE_SHUFFLE  0x4fu /* 'O' */
#define USE_HELD_OUT 0x48u /* 'H' */
#define NO_EPOCH     INT64_C(-1)
#define MAX_EPOCHS   (INT64_C(1) << 32)

struct data_order {
    base_ctx_t *ctx;
    uint64_t seed;
    bool shuffle;
    int64_t num_documents, num_eval, num_train;
    int32_t *eval;    /* ascending; the first part of `memory` */
    int32_t *train;   /* in the order of epoch `shuffled`; the rest of it */
    int32_t *memory;  /* num_documents */
    int64_t shuffled; /* epoch that `train` holds; NO_EPOCH: none */
    int64_t epoch, position;
};

/* ==== drawing ==== */

/* A number below `bound`, all equally likely. 2^64 mod bound of the 64-bit numbers would favour the
 * small results; they are rejected. */
static int64_t draw_below(const data_order_t *order, uint32_t use, int64_t epoch, int64_t index,
                          int64_t bound)
{
    const base_philox_key_t key = base_philox_key(order->seed);
    const uint64_t n = (uint64_t)bound, rejected = (0 - n) % n;

    for (uint32_t attempt = 0;; attempt++) {
        const base_philox_t r = base_philox(key, (uint32_t)index, attempt, (uint32_t)epoch, use);
        const uint64_t number = (uint64_t)r.word[0] << 32 | r.word[1];

        if (number >= rejected) return (int64_t)(number % n);
    }
}

static void swap(int32_t *list, int64_t a, int64_t b)
{
    const int32_t value = list[a];

    list[a] = list[b];
    list[b] = value;
}

static int ascending(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return base_compare_i64(*(const int32_t *)a, *(const int32_t *)b);
}

/* The first num_eval steps of a shuffle of all documents. */
static void hold_out(data_order_t *order)
{
    for (int64_t i = 0; i < order->num_documents; i++)
        order->memory[i] = (int32_t)i;
    for (int64_t i = 0; i < order->num_eval; i++)
        swap(order->memory, i, i + draw_below(order, USE_HELD_OUT, 0, i, order->num_documents - i));
    base_sort(order->eval, order->num_eval, sizeof *order->eval, ascending, NULL);
}

/* From the ascending list each time, so that an epoch does not depend on those before it. */
static void fill_epoch(data_order_t *order)
{
    int64_t count = 0, held = 0;

    if (order->shuffled == order->epoch || (!order->shuffle && order->shuffled != NO_EPOCH)) return;
    for (int64_t i = 0; i < order->num_documents; i++) {
        if (held < order->num_eval && order->eval[held] == i)
            held++;
        else
            order->train[count++] = (int32_t)i;
    }
    assert(count == order->num_train);
    for (int64_t i = order->num_train - 1; order->shuffle && i > 0; i--)
        swap(order->train, i, draw_below(order, USE_SHUFFLE, order->epoch, i, i + 1));
    order->shuffled = order->epoch;
}

/* ==== create and destroy ==== */

base_status_t data_order_create(base_ctx_t *ctx, const data_order_options_t *options,
                                data_order_t **order_p)
{
    const int64_t documents = options->num_documents, eval = options->eval_documents;
    data_order_t *order;

    if (documents < 1 || documents > INT32_MAX || eval < 0)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %" PRId64 " documents, %" PRId64 " held out", options->source,
                         documents, eval);
    if (eval >= documents)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_DATA_15,
                         "%s: eval_documents is %" PRId64 ", the dataset has %" PRId64
                         " documents, of which at least one has to be left to train on",
                         options->source, eval, documents);
    order = base_calloc(ctx, 1, sizeof *order, "order of documents");
    if (order == NULL) return BASE_ERR_NOMEM;
    *order = (data_order_t){.ctx = ctx,
                            .seed = options->seed,
                            .shuffle = options->shuffle,
                            .num_documents = documents,
                            .num_eval = eval,
                            .num_train = documents - eval,
                            .shuffled = NO_EPOCH};
    order->memory = base_calloc(ctx, documents, sizeof *order->memory, "order of documents");
    if (order->memory == NULL) {
        data_order_destroy(order);
        return BASE_ERR_NOMEM;
    }
    order->eval = order->memory;
    order->train = order->memory + eval;
    hold_out(order);
    *order_p = order;
    return BASE_OK;
}

void data_order_destroy(data_order_t *order)
{
    if (order == NULL) return;
    base_free(order->ctx, order->memory);
    base_free(order->ctx, order);
}

/* ==== the cursor ==== */

int64_t data_order_num_train(const data_order_t *order)
{
    return order->num_train;
}

int64_t data_order_num_eval(const data_order_t *order)
{
    return order->num_eval;
}

int64_t data_order_eval(const data_order_t *order, int64_t i)
{
    assert(i >= 0 && i < order->num_eval);
    return order->eval[i];
}

int64_t data_order_peek(data_order_t *order)
{
    fill_epoch(order);
    return order->train[order->position];
}

int64_t data_order_next(data_order_t *order)
{
    const int64_t document = data_order_peek(order);

    if (++order->position == order->num_train) {
        order->position = 0;
        order->epoch++;
    }
    return document;
}

int64_t data_order_number(const data_order_t *order)
{
    return order->epoch * order->num_train + order->position;
}

int64_t data_order_epoch(const data_order_t *order)
{
    return order->epoch;
}

int64_t data_order_position(const data_order_t *order)
{
    return order->position;
}

base_status_t data_order_seek(data_order_t *order, int64_t number)
{
    if (number < 0 || number / order->num_train >= MAX_EPOCHS)
        return BASE_FAIL(order->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "order of documents: number %" PRId64 " of epochs of %" PRId64, number,
                         order->num_train);
    order->epoch = number / order->num_train;
    order->position = number % order->num_train;
    return BASE_OK;
}
