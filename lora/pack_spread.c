#include "lora/pack_spread.h"

#include "base/sort.h"

#include <string.h>

/* Shares as products of two counts, each below 2^26: no division, no rounding. */
static int64_t compare_shares(const data_document_t *a, const data_document_t *b)
{
    return a->supervised * b->rows - b->supervised * a->rows;
}

static int by_share(const void *a, const void *b, const void *arg)
{
    const data_document_t *documents = arg;
    const int32_t i = *(const int32_t *)a;
    const int32_t j = *(const int32_t *)b;
    const int c = base_compare_i64(compare_shares(&documents[i], &documents[j]), 0);

    return c != 0 ? c : base_compare_i64(i, j);
}

static int all_alike(const data_batch_t *batch, const int32_t *list, int32_t num)
{
    for (int32_t i = 1; i < num; i++)
        if (compare_shares(&batch->documents[list[0]], &batch->documents[list[i]]) != 0) return 0;
    return 1;
}

/* Writes the documents of `list` to `out`: the one with the largest share that is left while there
 * are too few supervised rows so far, else the one with the smallest. */
static void weave(const data_batch_t *batch, int32_t *list, int32_t num, int32_t *out)
{
    data_document_t all = {0}, before = {0};
    int32_t low = 0, high = num - 1;

    if (all_alike(batch, list, num)) {
        memcpy(out, list, (size_t)num * sizeof *out);
        return;
    }
    base_sort(list, num, sizeof *list, by_share, batch->documents);
    for (int32_t i = 0; i < num; i++) {
        all.rows += batch->documents[list[i]].rows;
        all.supervised += batch->documents[list[i]].supervised;
    }
    while (low <= high) {
        const int32_t d = compare_shares(&before, &all) <= 0 ? list[high--] : list[low++];

        before.rows += batch->documents[d].rows;
        before.supervised += batch->documents[d].supervised;
        *out++ = d;
    }
}

typedef enum part { IN_PING, IN_BOTH, IN_PONG, NUM_PARTS } part_t;

static part_t part_of(const data_batch_t *batch, int32_t d)
{
    const int64_t head = batch->document_head[d];

    if (head == 0) return IN_PONG;
    return head == batch->documents[d].rows ? IN_PING : IN_BOTH;
}

/* Documents of one adapter: those of ping, the one that spans, those of pong. */
static void spread(data_batch_t *batch, int32_t *order, int32_t num)
{
    int32_t done = 0;

    for (int part = 0; part < NUM_PARTS; part++) {
        int32_t n = 0;

        for (int32_t i = 0; i < num; i++)
            if (part_of(batch, order[i]) == (part_t)part)
                batch->document_place[done + n++] = order[i];
        done += n;
    }
    memcpy(order, batch->document_place, (size_t)num * sizeof *order);
    for (int32_t first = 0, end = 0; first < num; first = end) {
        while (end < num && part_of(batch, order[end]) == part_of(batch, order[first]))
            end++;
        memcpy(batch->document_place, order + first, (size_t)(end - first) * sizeof *order);
        weave(batch, batch->document_place, end - first, order + first);
    }
}

void lora_pack_spread(data_batch_t *batch)
{
    for (int32_t first = 0, end = 0; first < batch->num_documents; first = end) {
        const int32_t adapter = batch->documents[batch->order[first]].adapter;

        while (end < batch->num_documents && batch->documents[batch->order[end]].adapter == adapter)
            end++;
        spread(batch, batch->order + first, end - first);
    }
}
