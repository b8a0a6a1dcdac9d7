#include "lora/pack_level.h"

#include <string.h>

/* Rows left in a microbatch, counted with every adapter padded to the full. */
typedef struct tally {
    int64_t *rows, *supervised; /* [microbatches] */
} tally_t;

int64_t lora_level_scratch(int32_t max_documents)
{
    /* Pauses are microbatches too: at most one stage's worth for each document is looked at. */
    return 2 * ((int64_t)max_documents + 1);
}

static int64_t distance(int64_t a, int64_t b)
{
    return a > b ? a - b : b - a;
}

/* 1 when documents i and j change places. */
static int exchange(const lora_window_t *w, lora_schedule_t *s, const tally_t *t, int32_t i,
                    int32_t j)
{
    const int32_t m = s->microbatch[i], n = s->microbatch[j];
    const int64_t rows = w->rows[j] - w->rows[i];
    const int64_t supervised = w->supervised[j] - w->supervised[i];

    if (m == n || t->rows[m] + rows > w->capacity || t->rows[n] - rows > w->capacity) return 0;
    if (distance(t->supervised[m] + supervised, t->supervised[n] - supervised) >=
        distance(t->supervised[m], t->supervised[n]))
        return 0;
    t->rows[m] += rows;
    t->rows[n] -= rows;
    t->supervised[m] += supervised;
    t->supervised[n] -= supervised;
    s->microbatch[i] = n;
    s->microbatch[j] = m;
    return 1;
}

void lora_level_supervised(const lora_window_t *w, lora_schedule_t *s, int64_t *scratch)
{
    const tally_t t = {scratch, scratch + s->num_microbatches};

    /* Padding of adapters would make room a matter of all of a microbatch's documents. */
    if (w->supervised == NULL || w->adapter_align > 1 || s->num_microbatches > w->num_documents)
        return;
    memset(scratch, 0, 2 * (size_t)s->num_microbatches * sizeof *scratch);
    for (int32_t d = 0; d < w->num_documents; d++) {
        t.rows[s->microbatch[d]] += w->rows[d];
        t.supervised[s->microbatch[d]] += w->supervised[d];
    }
    for (int32_t b = 0; b < w->num_batches; b++) {
        const int32_t first = w->batches[b].first_document;

        for (int32_t i = first; i < first + w->batches[b].num_documents; i++)
            for (int32_t j = i + 1; j < first + w->batches[b].num_documents; j++)
                (void)exchange(w, s, &t, i, j);
    }
}

/* ==== one microbatch of what is left ==== */

typedef struct share {
    int64_t rows, supervised;         /* that are in */
    int64_t all_rows, all_supervised; /* of the window */
} share_t;

#define SHARE_SHIFT 20

/* How far the supervised rows that are in would be from the rows' share, in 2^-20 of a row. */
static int64_t off_share(const share_t *s, int64_t rows, int64_t supervised)
{
    const int64_t share = (s->all_supervised << SHARE_SHIFT) / s->all_rows;

    return distance(supervised << SHARE_SHIFT, share * rows);
}

/* 1 when document i, which is in, and j change places. */
static int exchange_next(const lora_window_t *w, lora_schedule_t *schedule, share_t *s, int32_t i,
                         int32_t j)
{
    const int64_t rows = s->rows + w->rows[j] - w->rows[i];
    const int64_t supervised = s->supervised + w->supervised[j] - w->supervised[i];

    /* No emptier either: fewest microbatches come first. */
    if (rows > w->capacity || rows < s->rows) return 0;
    if (off_share(s, rows, supervised) >= off_share(s, s->rows, s->supervised)) return 0;
    s->rows = rows;
    s->supervised = supervised;
    schedule->microbatch[i] = -1;
    schedule->microbatch[j] = 0;
    return 1;
}

void lora_level_next(const lora_window_t *w, lora_schedule_t *schedule)
{
    share_t s = {0};

    if (w->supervised == NULL || w->adapter_align > 1) return;
    for (int32_t d = 0; d < w->num_documents; d++) {
        s.all_rows += w->rows[d];
        s.all_supervised += w->supervised[d];
        if (schedule->microbatch[d] < 0) continue;
        s.rows += w->rows[d];
        s.supervised += w->supervised[d];
    }
    if (s.rows > w->capacity) return; /* one document, alone */
    for (int32_t b = 0; b < w->num_batches; b++) {
        const int32_t first = w->batches[b].first_document;
        const int32_t end = first + w->batches[b].num_documents;

        for (int32_t i = first; i < end; i++)
            for (int32_t j = first; j < end && schedule->microbatch[i] == 0; j++)
                if (schedule->microbatch[j] < 0) (void)exchange_next(w, schedule, &s, i, j);
    }
}
