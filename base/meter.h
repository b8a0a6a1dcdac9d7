/* Meter: how much time of a stream goes to what. A stack of parts: what is innermost gets the time.
 *
 *   base_meter_begin(m, BASE_PART_ATTENTION, now);
 *   base_meter_waited(m, from, ready, now);         from .. ready WAITING, ready .. now EXCHANGE
 *   base_meter_end(m, now);                         the rest of it ATTENTION
 *
 * Time in which nothing is open belongs to no part: whoever reads knows how long he has measured,
 * and what is missing was idle. One thread calls these at a time, the one that runs the stream;
 * base_meter_read from any. Counting costs a few additions; it is always on. */
#ifndef CADRE_BASE_METER_H
#define CADRE_BASE_METER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, word) */
#define BASE_PART_MAP(X)                                                                           \
    X(NONE, "idle")                                                                                \
    X(DENSE, "dense")         /* products, norms, loss, optimizer: what a trainer computes */      \
    X(ATTENTION, "attention") /* core attention, for itself or for others */                       \
    X(EXCHANGE, "exchange")   /* waits for data that is on its way: not hidden */                  \
    X(WAITING, "waiting")     /* waits for a rank that is not there yet */

typedef enum base_part {
#define X(name, word) BASE_PART_##name,
    BASE_PART_MAP(X)
#undef X
        BASE_NUM_PARTS
} base_part_t;

const char *base_part_word(base_part_t part);

#define BASE_METER_DEPTH 8

/* The owner's memory, zeroed; the fields are the meter's. */
typedef struct base_meter {
    int64_t ns[BASE_NUM_PARTS]; /* atomic builtins */
    int64_t since_ns;           /* when the innermost part began to be counted */
    int depth;
    base_part_t open[BASE_METER_DEPTH];
} base_meter_t;

/* Deeper than BASE_METER_DEPTH the time stays with the part above. */
void base_meter_begin(base_meter_t *meter, base_part_t part, int64_t at_ns);
void base_meter_end(base_meter_t *meter, int64_t at_ns);
/* Within what is open: [from, ready) was spent waiting for another rank, [ready, to) for data. */
void base_meter_waited(base_meter_t *meter, int64_t from_ns, int64_t ready_ns, int64_t to_ns);

/* ns[part] since the beginning; ns[BASE_PART_NONE] is 0. */
void base_meter_read(const base_meter_t *meter, int64_t ns[BASE_NUM_PARTS]);

#ifdef __cplusplus
}
#endif
#endif
