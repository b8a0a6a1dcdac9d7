/* How a list of ranges becomes messages. Both sides derive it from the sizes alone, whatever their
 * pitches and devices: ranges of `direct_bytes` and more are a segment each, the ones between them are
 * packed into one. */
#ifndef CADRE_COMM_SEGMENT_H
#define CADRE_COMM_SEGMENT_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Ranges [first, end) of a list. */
typedef struct comm_segment {
    int first, end;
    int64_t bytes;
} comm_segment_t;

int64_t comm_range_bytes(const base_range_t *r);

/* The segment behind *s, which is zeros in front of the first; returns 0 when there is none. */
int comm_segment_next(int64_t direct_bytes, const base_range_t *list, int num, comm_segment_t *s);

/* Whether it is one large piece in one place, which this side need not pack. */
int comm_segment_is_whole(int64_t direct_bytes, const base_range_t *list, const comm_segment_t *s);

#ifdef __cplusplus
}
#endif
#endif
