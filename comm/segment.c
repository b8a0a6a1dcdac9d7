#include "comm/segment.h"

int64_t comm_range_bytes(const base_range_t *r)
{
    return r->row_bytes * r->rows;
}

int comm_segment_next(int64_t direct_bytes, const base_range_t *list, int num, comm_segment_t *s)
{
    s->first = s->end;
    if (s->first == num) return 0;
    s->bytes = comm_range_bytes(&list[s->end++]);
    if (s->bytes >= direct_bytes) return 1;
    while (s->end < num && comm_range_bytes(&list[s->end]) < direct_bytes)
        s->bytes += comm_range_bytes(&list[s->end++]);
    return 1;
}

int comm_segment_is_whole(int64_t direct_bytes, const base_range_t *list, const comm_segment_t *s)
{
    const base_range_t *r = &list[s->first];

    return s->end == s->first + 1 && s->bytes >= direct_bytes &&
           (r->rows == 1 || r->pitch == r->row_bytes);
}
