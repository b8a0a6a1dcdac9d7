#include "trainer/simulate/draw_lengths.h"

#include "base/philox.h"

#define LONG_ROWS 65536

/* A bin of a histogram: lengths [low, high], 1/100 % of the documents and of the tokens. */
typedef struct bin {
    int64_t low, high;
    int64_t documents, tokens;
} bin_t;

/* hao-ai-lab/DistCA, distca/simulator/data: dist_wlbllm.json (99,519 documents, 394.3 M tokens) and
 * dist_prolong.json (77,932 documents, 237.8 M tokens). */
static const bin_t pretrain[] = {
    {1, 127, 198, 3},         {128, 255, 202, 10},     {256, 511, 392, 38},
    {512, 1023, 804, 156},    {1024, 2047, 1578, 611}, {2048, 4095, 3195, 2481},
    {4096, 8191, 3394, 4457}, {8192, 16383, 104, 291}, {16384, 32767, 45, 256},
    {32768, 49151, 22, 221},  {49152, 65535, 14, 197}, {65536, 124913, 53, 1280},
};
static const bin_t prolong[] = {
    {575, 1023, 1494, 417},   {1024, 2047, 3843, 1855}, {2048, 4095, 2696, 2538},
    {4096, 8191, 1441, 2648}, {8192, 16383, 427, 1510}, {16384, 32767, 78, 544},
    {32768, 49151, 12, 149},  {49152, 65535, 3, 57},    {65536, 131071, 4, 115},
    {131072, 340149, 2, 166},
};

typedef struct histogram {
    const char *name;
    const bin_t *bins;
    int num_bins;
    int64_t mean; /* rows of a document */
} histogram_t;

static const histogram_t histograms[TR_NUM_LENGTHS] = {
    {"pretrain", pretrain, sizeof pretrain / sizeof pretrain[0], 3962},
    {"prolong", prolong, sizeof prolong / sizeof prolong[0], 3052},
};

const char *tr_lengths_name(tr_lengths_t lengths)
{
    return histograms[lengths].name;
}

static int64_t below(base_philox_key_t key, uint32_t index, uint32_t what, int64_t bound)
{
    const base_philox_t r = base_philox(key, index, what, 0, 0);

    return (int64_t)base_philox_below(r.word[0], r.word[1], (uint64_t)bound);
}

static int64_t weight(const tr_draw_t *draw, const bin_t *b)
{
    if (!draw->scaled) return 2 * b->documents;
    return b->low >= LONG_ROWS ? 8 * b->documents : b->documents;
}

static const bin_t *draw_bin(const tr_draw_t *draw, base_philox_key_t key, uint32_t index)
{
    const histogram_t *h = &histograms[draw->lengths];
    int64_t sum = 0, at;
    int i = 0;

    for (int b = 0; b < h->num_bins; b++)
        sum += weight(draw, &h->bins[b]);
    for (at = below(key, index, 0, sum); at >= weight(draw, &h->bins[i]); i++)
        at -= weight(draw, &h->bins[i]);
    return &h->bins[i];
}

int64_t tr_draw_rows(const tr_draw_t *draw, uint32_t index)
{
    const base_philox_key_t key = base_philox_key(draw->seed);
    const bin_t *b = draw_bin(draw, key, index);
    int64_t mean = histograms[draw->lengths].mean * b->tokens / b->documents;

    /* Shares are rounded to 1/100 %: a bin of few documents may have its mean outside. */
    if (mean <= b->low) mean = b->low + 1;
    if (mean >= b->high) mean = b->high - 1;
    /* P(below the mean) low + P(above) high = mean */
    const int under = below(key, index, 1, b->high - b->low) < b->high - mean;
    int64_t rows = under ? b->low + below(key, index, 2, mean - b->low + 1)
                         : mean + below(key, index, 2, b->high - mean + 1);

    if (draw->scaled && draw->lengths == TR_LENGTHS_PRETRAIN)
        rows = rows * draw->max_rows / LONG_ROWS;
    if (draw->scaled && draw->lengths == TR_LENGTHS_PROLONG && rows >= LONG_ROWS &&
        below(key, index, 3, 10) < 3)
        rows = draw->max_rows;
    if (rows < 1) rows = 1;
    return rows > draw->max_rows ? draw->max_rows : rows;
}
