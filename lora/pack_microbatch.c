#include "lora/pack_microbatch.h"

#include "base/sort.h"

#include <string.h>

/* ==== who may come in, in which order ==== */

static int32_t last_batch(const lora_window_t *w, int32_t adapter)
{
    return w->adapters[adapter].first_batch + w->adapters[adapter].num_batches - 1;
}

/* Share of its batches, in 2^-20, and rows left of the one at work. */
static int64_t how_far(const lora_pack_state_t *s, int32_t adapter)
{
    const lora_window_adapter_t *a = &s->window->adapters[adapter];
    const lora_pack_adapter_t *at = &s->adapters[adapter];
    const int64_t done = a->done + at->batch - a->first_batch;
    const int64_t most = (INT64_C(1) << 40) - 1;

    return ((done << 20) / a->total << 40) + (at->left_rows < most ? at->left_rows : most);
}

static int64_t chain_left(const lora_pack_state_t *s, int32_t adapter)
{
    const lora_window_t *w = s->window;
    const lora_pack_adapter_t *at = &s->adapters[adapter];
    const int64_t after = at->batch < last_batch(w, adapter) ? s->chain[at->batch + 1] : 0;

    /* In rows, so that of two chains of as many microbatches the fuller one comes first. */
    return (after + w->stages - 1) * w->capacity + at->left_rows;
}

static int by_key(const void *a, const void *b, const void *arg)
{
    const int64_t *keys = arg;
    const int32_t i = *(const int32_t *)a;
    const int32_t j = *(const int32_t *)b;
    const int c = base_compare_i64(keys[i], keys[j]);

    return c != 0 ? c : base_compare_i64(i, j);
}

/* Sets groups and gives their number. */
static int32_t choose_groups(lora_pack_state_t *s, const lora_pack_policy_t *policy, int32_t number)
{
    const lora_window_t *w = s->window;
    int32_t num = 0, kept = 0;
    int64_t ranks = 0;

    for (int32_t a = 0; a < w->num_adapters; a++) {
        if (s->adapters[a].left == 0 || s->adapters[a].ready > number) continue;
        s->keys[a] = policy->order == LORA_LEAST_FAR ? how_far(s, a) : -chain_left(s, a);
        s->groups[num++] = a;
    }
    base_sort(s->groups, num, sizeof *s->groups, by_key, s->keys);
    for (int32_t i = 0; i < num && kept < LORA_FILL_GROUPS; i++) {
        const int64_t rank = w->adapters[s->groups[i]].rank;

        if (w->rank_columns > 0 && ranks + rank > w->rank_columns) continue;
        ranks += rank;
        s->groups[kept++] = s->groups[i];
    }
    return kept;
}

/* ==== one attempt ==== */

static const int32_t *left_documents(const lora_pack_state_t *s, int32_t group)
{
    return s->order + s->window->batches[s->adapters[s->groups[group]].batch].first_document;
}

static int32_t num_left(const lora_pack_state_t *s, int32_t group)
{
    return s->adapters[s->groups[group]].left;
}

static void force(lora_pack_state_t *s, int32_t group, int32_t document)
{
    s->in[document] = 1;
    s->forced[group] += s->window->rows[document];
}

static void force_all(lora_pack_state_t *s, int32_t group)
{
    for (int32_t i = 0; i < num_left(s, group); i++)
        if (!s->in[left_documents(s, group)[i]]) force(s, group, left_documents(s, group)[i]);
}

static int64_t counted(const lora_pack_state_t *s, int32_t num_groups)
{
    int64_t rows = 0;

    for (int32_t g = 0; g < num_groups; g++)
        rows += lora_window_align(s->window, s->forced[g]);
    return rows;
}

/* 1 when all that is left of the group's batch can come in beside what is forced. */
static int fits_whole(const lora_pack_state_t *s, int32_t num_groups, int32_t group)
{
    const int64_t others = counted(s, num_groups) - lora_window_align(s->window, s->forced[group]);
    const int64_t whole = s->adapters[s->groups[group]].left_rows;

    return others + lora_window_align(s->window, whole) <= s->window->capacity;
}

/* 1 when the batch's rest has to stay together. */
static int keep_whole(const lora_pack_state_t *s, const lora_pack_policy_t *policy, int32_t group)
{
    const int kept = policy->unsplit == LORA_UNSPLIT_ALL ||
                     (policy->unsplit == LORA_UNSPLIT_FIRST && group == 0);

    return kept && lora_window_align(s->window, s->adapters[s->groups[group]].left_rows) <=
                       s->window->capacity;
}

/* The document that the microbatch starts with: so none waits for ever, and long ones come while
 * there are short ones to go with them. */
static int32_t start_with(lora_pack_state_t *s, const lora_pack_policy_t *policy,
                          int32_t num_groups)
{
    const int32_t start = policy->start < num_groups ? policy->start : 0;

    if (keep_whole(s, policy, start))
        force_all(s, start);
    else
        force(s, start, left_documents(s, start)[0]);
    return start;
}

/* Where there is room for very many documents most of them come in as they are, and exact sums are
 * for the rest. */
static void pour(lora_pack_state_t *s, const lora_pack_policy_t *policy, int32_t num_groups)
{
    int64_t room = s->window->capacity - counted(s, num_groups) - LORA_FILL_BITS;

    for (int32_t g = 0; g < num_groups && room > 0; g++) {
        for (int32_t i = 0; i < num_left(s, g) && !keep_whole(s, policy, g); i++) {
            const int32_t d = left_documents(s, g)[i];

            if (s->in[d] || s->window->rows[d] + s->window->adapter_align > room) continue;
            force(s, g, d);
            room -= s->window->rows[d];
        }
    }
}

static int32_t offer_items(lora_pack_state_t *s, const lora_pack_policy_t *policy,
                           int32_t num_groups)
{
    int32_t n = 0;

    for (int32_t g = 0; g < num_groups; g++) {
        if (keep_whole(s, policy, g)) {
            if (s->forced[g] > 0) continue;
            s->items[n] =
                (lora_fill_item_t){.rows = s->adapters[s->groups[g]].left_rows, .group = g};
            s->item_document[n++] = -1 - g;
            continue;
        }
        for (int32_t i = 0; i < num_left(s, g); i++) {
            const int32_t d = left_documents(s, g)[i];

            if (s->in[d]) continue;
            s->items[n] = (lora_fill_item_t){.rows = s->window->rows[d], .group = g};
            s->item_document[n++] = d;
        }
    }
    return n;
}

/* Fills the room that is left beside what is forced. */
static void fill_rest(lora_pack_state_t *s, const lora_pack_policy_t *policy, int32_t num_groups)
{
    const lora_window_t *w = s->window;
    const int64_t used = counted(s, num_groups);
    const int padded = w->adapter_align > 1;

    if (used > w->capacity) return; /* one document, alone */
    lora_fill_offer_t offer = {.room = padded ? w->capacity : w->capacity - used,
                               .align = w->adapter_align,
                               .slack = w->capacity >> policy->slack_shift,
                               .num_groups = num_groups,
                               .forced = s->forced,
                               .items = s->items};

    offer.num_items = offer_items(s, policy, num_groups);
    (void)lora_fill_solve(s->fill, &offer);
    for (int32_t i = 0; i < offer.num_items; i++) {
        if (!s->items[i].taken) continue;
        if (s->item_document[i] < 0)
            force_all(s, -1 - s->item_document[i]);
        else
            force(s, s->items[i].group, s->item_document[i]);
    }
}

static void begin_attempt(lora_pack_state_t *s, int32_t num_groups)
{
    for (int32_t g = 0; g < num_groups; g++) {
        s->forced[g] = 0;
        for (int32_t i = 0; i < num_left(s, g); i++)
            s->in[left_documents(s, g)[i]] = 0;
    }
}

/* Gives the rows of documents that came in. */
static int64_t attempt(lora_pack_state_t *s, const lora_pack_policy_t *policy, int32_t num_groups,
                       int together)
{
    int64_t rows = 0;

    begin_attempt(s, num_groups);
    (void)start_with(s, policy, num_groups);
    if (counted(s, num_groups) <= s->window->capacity) {
        for (int32_t g = 0; g < num_groups && together; g++)
            if (fits_whole(s, num_groups, g)) force_all(s, g);
        if (together) pour(s, policy, num_groups);
    }
    fill_rest(s, policy, num_groups);
    for (int32_t g = 0; g < num_groups; g++)
        rows += s->forced[g];
    return rows;
}

/* ==== taking it ==== */

static void keep_attempt(lora_pack_state_t *s, int32_t num_groups)
{
    for (int32_t g = 0; g < num_groups; g++)
        for (int32_t i = 0; i < num_left(s, g); i++)
            s->best[left_documents(s, g)[i]] = s->in[left_documents(s, g)[i]];
}

/* Gives 1 when documents of the group were taken. */
static int take_group(lora_pack_state_t *s, int32_t group, int32_t number)
{
    const lora_window_t *w = s->window;
    const int32_t adapter = s->groups[group];
    lora_pack_adapter_t *at = &s->adapters[adapter];
    int32_t *order = s->order + w->batches[at->batch].first_document;
    int32_t left = 0;

    for (int32_t i = 0; i < at->left; i++) {
        const int32_t d = order[i];

        if (!s->best[d]) {
            order[left++] = d;
            continue;
        }
        s->microbatch[d] = number;
        at->left_rows -= w->rows[d];
        s->documents_left--;
    }
    const int taken = left < at->left;
    at->left = left;
    if (left == 0 && at->batch < last_batch(w, adapter)) {
        at->batch++;
        at->left = w->batches[at->batch].num_documents;
        at->left_rows = s->batch_rows[at->batch];
        memcpy(s->order + w->batches[at->batch].first_document,
               s->sorted + w->batches[at->batch].first_document,
               (size_t)at->left * sizeof *s->order);
        at->ready = number + w->stages;
    }
    return taken;
}

int32_t lora_pack_choose(lora_pack_state_t *s, const lora_pack_policy_t *policy, int32_t number)
{
    const int32_t num_groups = choose_groups(s, policy, number);
    const int64_t slack = s->window->capacity >> policy->slack_shift;
    int64_t rows = 0;

    if (num_groups == 0) return 0;
    if (policy->together) {
        rows = attempt(s, policy, num_groups, 1);
        keep_attempt(s, num_groups);
    }
    if (rows < s->window->capacity - slack) {
        const int64_t finer = attempt(s, policy, num_groups, 0);

        if (finer > rows + slack || !policy->together) keep_attempt(s, num_groups);
    }
    return num_groups;
}

int32_t lora_pack_take(lora_pack_state_t *s, int32_t num_groups, int32_t number)
{
    int32_t adapters = 0;

    for (int32_t g = 0; g < num_groups; g++)
        adapters += take_group(s, g, number);
    return adapters;
}

const int32_t *lora_pack_left(const lora_pack_state_t *s, int32_t group, int32_t *num_p)
{
    *num_p = num_left(s, group);
    return left_documents(s, group);
}
