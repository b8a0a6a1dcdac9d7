#include "lora/pack_beam.h"

#include "base/memory.h"
#include "base/sort.h"

#include <string.h>

#define MAX_WIDTH 12
#define MIN_WIDTH 4
#define MAX_AHEAD 64     /* microbatches that a state is judged by */
#define FILLS     160000 /* of a search, in all */

static const lora_pack_policy_t policies[] = {
    {.order = LORA_LEAST_FAR, .slack_shift = 6, .together = 1},
    {.order = LORA_LEAST_FAR, .slack_shift = 9, .together = 1},
    {.order = LORA_LEAST_FAR, .slack_shift = 12, .together = 0},
    {.order = LORA_LEAST_FAR, .slack_shift = 12, .together = 0, .start = 1},
    {.order = LORA_LEAST_FAR, .slack_shift = 12, .together = 0, .start = 2},
    {.order = LORA_LEAST_FAR, .slack_shift = 12, .together = 0, .start = 3},
    {.order = LORA_LONGEST_CHAIN, .slack_shift = 6, .together = 1},
    {.order = LORA_LONGEST_CHAIN, .slack_shift = 9, .together = 1, .unsplit = LORA_UNSPLIT_ALL},
};
enum { NUM_POLICIES = sizeof policies / sizeof policies[0] };

/* A state that goes on. */
typedef struct node {
    lora_pack_adapter_t *adapters; /* [adapters] */
    int32_t *left;                 /* documents left of the batches at work, adapter by adapter */
    int32_t documents_left;
    int64_t rows, penalty; /* placed */
    uint64_t hash;         /* of the set of documents placed */
    int32_t step;          /* index of its last microbatch in steps; -1 */
} node_t;

/* A microbatch of a state, and the one before it. */
typedef struct step {
    int32_t before;
    int32_t first, count; /* of taken */
} step_t;

typedef struct candidate {
    int64_t score;
    uint64_t hash;
    int32_t node, policy;
} candidate_t;

struct lora_pack_beam {
    base_ctx_t *ctx;
    int64_t max_steps, max_taken;
    node_t nodes[2][MAX_WIDTH];
    step_t *steps;  /* [max_steps] */
    int32_t *taken; /* [max_taken] documents */
    int64_t num_steps, num_taken;
    candidate_t candidates[MAX_WIDTH * NUM_POLICIES];
};

base_status_t lora_pack_beam_create(base_ctx_t *ctx, const lora_packer_limits_t *limits,
                                    lora_pack_beam_t **beam_p)
{
    lora_pack_beam_t *beam = base_calloc(ctx, 1, sizeof *beam, "packer: search");

    if (beam == NULL) return BASE_ERR_NOMEM;
    beam->ctx = ctx;
    beam->max_steps = FILLS;
    beam->max_taken = 2 * (int64_t)MAX_WIDTH * limits->max_documents;
    beam->steps = base_calloc(ctx, beam->max_steps, sizeof *beam->steps, "packer: search");
    beam->taken = base_calloc(ctx, beam->max_taken, sizeof *beam->taken, "packer: search");
    if (beam->steps == NULL || beam->taken == NULL) goto err_destroy;
    for (int n = 0; n < 2 * MAX_WIDTH; n++) {
        node_t *node = &beam->nodes[n / MAX_WIDTH][n % MAX_WIDTH];

        node->adapters =
            base_calloc(ctx, limits->max_adapters, sizeof *node->adapters, "packer: search");
        node->left = base_calloc(ctx, limits->max_documents, sizeof *node->left, "packer: search");
        if (node->adapters == NULL || node->left == NULL) goto err_destroy;
    }
    *beam_p = beam;
    return BASE_OK;
err_destroy:
    lora_pack_beam_destroy(beam);
    return BASE_ERR_NOMEM;
}

void lora_pack_beam_destroy(lora_pack_beam_t *beam)
{
    if (beam == NULL) return;
    for (int n = 0; n < 2 * MAX_WIDTH; n++) {
        base_free(beam->ctx, beam->nodes[n / MAX_WIDTH][n % MAX_WIDTH].left);
        base_free(beam->ctx, beam->nodes[n / MAX_WIDTH][n % MAX_WIDTH].adapters);
    }
    base_free(beam->ctx, beam->taken);
    base_free(beam->ctx, beam->steps);
    base_free(beam->ctx, beam);
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ==== states ==== */

static int32_t *work_documents(const lora_pack_state_t *s, int32_t adapter)
{
    return s->order + s->window->batches[s->adapters[adapter].batch].first_document;
}

static void save(const lora_pack_state_t *s, node_t *node)
{
    int32_t *left = node->left;

    node->documents_left = s->documents_left;
    memcpy(node->adapters, s->adapters, (size_t)s->window->num_adapters * sizeof *node->adapters);
    for (int32_t a = 0; a < s->window->num_adapters; a++) {
        if (s->adapters[a].left == 0) continue;
        memcpy(left, work_documents(s, a), (size_t)s->adapters[a].left * sizeof *left);
        left += s->adapters[a].left;
    }
}

static void load(lora_pack_state_t *s, const node_t *node)
{
    const int32_t *left = node->left;

    s->documents_left = node->documents_left;
    memcpy(s->adapters, node->adapters, (size_t)s->window->num_adapters * sizeof *node->adapters);
    for (int32_t a = 0; a < s->window->num_adapters; a++) {
        if (s->adapters[a].left == 0) continue;
        memcpy(work_documents(s, a), left, (size_t)s->adapters[a].left * sizeof *left);
        left += s->adapters[a].left;
    }
}

/* A word of its own for each document (splitmix64). */
static uint64_t word_of(int32_t document)
{
    uint64_t z = ((uint64_t)document + 1) * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* ==== judging what a state may become ==== */

typedef struct choice {
    int64_t rows, shortage;
    int64_t bonus; /* for long documents: those are hard to place later */
    int32_t documents, adapters;
    uint64_t hash;
} choice_t;

/* Of the group's documents: those chosen, into *c. Gives the rows that it leaves. */
static int64_t weigh_group(const lora_pack_state_t *s, int32_t group, choice_t *c)
{
    int64_t rows = s->adapters[s->groups[group]].left_rows;
    int32_t num, taken = 0;
    const int32_t *left = lora_pack_left(s, group, &num);

    for (int32_t i = 0; i < num; i++) {
        if (!s->best[left[i]]) continue;
        rows -= s->window->rows[left[i]];
        c->rows += s->window->rows[left[i]];
        c->bonus += s->window->rows[left[i]] * s->window->rows[left[i]] / s->window->capacity;
        c->hash ^= word_of(left[i]);
        taken++;
    }
    c->documents += taken;
    c->adapters += taken > 0;
    return rows;
}

/* Rows that the next microbatches, up to where the batches that end now are followed by others,
 * leave empty at least: ready[k] may come in k microbatches later at the earliest. */
static int64_t shortage_of(const lora_window_t *w, const int64_t *ready, int64_t to_come)
{
    int64_t sum = 0, worst = 0;

    for (int32_t k = 1; k <= w->stages && k < MAX_AHEAD; k++) {
        const int64_t wanted = k * w->capacity < to_come ? k * w->capacity : to_come;

        sum += ready[k];
        if (wanted - sum > worst) worst = wanted - sum;
    }
    return worst;
}

/* Rows of the microbatches that an adapter still needs one after another when `left` rows stay of
 * its batch at work. */
static int64_t chain_rows(const lora_pack_state_t *s, int32_t adapter, int64_t left)
{
    const lora_window_t *w = s->window;
    const int32_t next = s->adapters[adapter].batch + 1;
    const int32_t end = w->adapters[adapter].first_batch + w->adapters[adapter].num_batches;
    const int64_t here = (left + w->capacity - 1) / w->capacity;

    return (here + (next < end ? s->chain[next] : 0)) * w->capacity;
}

/* What the state's choice takes and leaves. to_come: rows without a microbatch before it. */
static choice_t weigh(lora_pack_state_t *s, int32_t num_groups, int32_t number, int64_t to_come)
{
    const lora_window_t *w = s->window;
    int64_t ready[MAX_AHEAD] = {0}, longest = 0;
    choice_t c = {0};

    for (int32_t a = 0; a < w->num_adapters; a++) {
        const int64_t in = s->adapters[a].ready - number;

        if (in < MAX_AHEAD) ready[in < 1 ? 1 : in] += s->adapters[a].left_rows;
    }
    for (int32_t g = 0; g < num_groups; g++) {
        const int32_t adapter = s->groups[g];
        const int32_t next = s->adapters[adapter].batch + 1;
        const int64_t left = weigh_group(s, g, &c);

        ready[1] += left - s->adapters[adapter].left_rows;
        longest = max_i64(longest, chain_rows(s, adapter, left));
        if (left == 0 && w->stages < MAX_AHEAD &&
            next < w->adapters[adapter].first_batch + w->adapters[adapter].num_batches)
            ready[w->stages] += s->batch_rows[next];
    }
    /* The longest chain of those not chosen now cannot be shorter next time. */
    for (int32_t a = 0; a < w->num_adapters; a++)
        if (s->adapters[a].left > 0 && s->adapters[a].ready > number)
            longest = max_i64(longest, chain_rows(s, a, s->adapters[a].left_rows));
    c.shortage = max_i64(shortage_of(w, ready, to_come - c.rows), longest - (to_come - c.rows));
    return c;
}

/* Beside rows: adapters in a microbatch, which divide batches, and a bonus for long documents. Both
 * weights were tuned on the table of `cadre bench pack`. */
static int64_t penalty_of(const lora_pack_state_t *s, const choice_t *c)
{
    return c->adapters * (s->window->capacity / 256) - c->bonus / 8;
}

static int by_score(const void *a, const void *b, const void *arg)
{
    const candidate_t *x = a, *y = b;
    int c = base_compare_i64(y->score, x->score);

    (void)arg;
    if (c == 0) c = base_compare_i64(x->node, y->node);
    return c != 0 ? c : base_compare_i64(x->policy, y->policy);
}

static int32_t find_candidates(lora_pack_beam_t *beam, lora_pack_state_t *s, const node_t *nodes,
                               int32_t num_nodes, int32_t number, int64_t all_rows)
{
    int32_t n = 0;

    for (int32_t i = 0; i < num_nodes; i++) {
        load(s, &nodes[i]);
        for (int32_t k = 0; k < NUM_POLICIES; k++) {
            const choice_t c = weigh(s, lora_pack_choose(s, &policies[k], number), number,
                                     all_rows - nodes[i].rows);

            beam->candidates[n++] = (candidate_t){.score = nodes[i].rows + c.rows - c.shortage -
                                                           nodes[i].penalty - penalty_of(s, &c),
                                                  .hash = nodes[i].hash ^ c.hash,
                                                  .node = i,
                                                  .policy = k};
        }
    }
    base_sort(beam->candidates, n, sizeof *beam->candidates, by_score, NULL);
    return n;
}

/* ==== going on ==== */

static int seen(const candidate_t *candidates, int32_t num, uint64_t hash)
{
    for (int32_t i = 0; i < num; i++)
        if (candidates[i].hash == hash) return 1;
    return 0;
}

/* Makes the node that the candidate leads to; 0 when there is no room to note it. */
static int follow(lora_pack_beam_t *beam, lora_pack_state_t *s, const candidate_t *candidate,
                  const node_t *from, int32_t number, node_t *to)
{
    load(s, from);
    const int32_t num_groups = lora_pack_choose(s, &policies[candidate->policy], number);
    const choice_t c = weigh(s, num_groups, number, 0);

    if (beam->num_steps == beam->max_steps || beam->num_taken + c.documents > beam->max_taken)
        return 0;
    to->step = (int32_t)beam->num_steps;
    beam->steps[beam->num_steps++] = (step_t){from->step, (int32_t)beam->num_taken, c.documents};
    for (int32_t g = 0; g < num_groups; g++) {
        int32_t num;
        const int32_t *left = lora_pack_left(s, g, &num);

        for (int32_t i = 0; i < num; i++)
            if (s->best[left[i]]) beam->taken[beam->num_taken++] = left[i];
    }
    to->rows = from->rows + c.rows;
    to->penalty = from->penalty + penalty_of(s, &c);
    to->hash = candidate->hash;
    (void)lora_pack_take(s, num_groups, number);
    save(s, to);
    return 1;
}

/* The best candidates that differ; 0 when there is no room to note them. */
static int32_t go_on(lora_pack_beam_t *beam, lora_pack_state_t *s, const node_t *from,
                     int32_t num_candidates, int32_t number, int32_t width, node_t *to)
{
    int32_t n = 0;

    for (int32_t i = 0; i < num_candidates && n < width; i++) {
        const candidate_t candidate = beam->candidates[i];

        if (seen(beam->candidates, n, candidate.hash)) continue;
        if (!follow(beam, s, &candidate, &from[candidate.node], number, &to[n])) return 0;
        beam->candidates[n++] = candidate; /* n <= i */
    }
    return n;
}

static void write_schedule(const lora_pack_beam_t *beam, int32_t step, int32_t num_microbatches,
                           lora_schedule_t *schedule)
{
    schedule->num_microbatches = num_microbatches;
    for (int32_t m = num_microbatches - 1; m >= 0; m--) {
        const step_t *at = &beam->steps[step];

        for (int32_t i = 0; i < at->count; i++)
            schedule->microbatch[beam->taken[at->first + i]] = m;
        step = at->before;
    }
}

void lora_pack_beam_search(lora_pack_beam_t *beam, lora_pack_state_t *s, lora_schedule_t *schedule)
{
    const int32_t affordable = FILLS / NUM_POLICIES / (schedule->num_microbatches + 1);
    const int32_t width = affordable < MAX_WIDTH ? affordable : MAX_WIDTH;
    int64_t all_rows = 0;
    int32_t num_nodes = 1;

    if (width < MIN_WIDTH) return;
    for (int32_t b = 0; b < s->window->num_batches; b++)
        all_rows += s->batch_rows[b];
    beam->num_steps = beam->num_taken = 0;
    save(s, &beam->nodes[0][0]);
    beam->nodes[0][0].rows = beam->nodes[0][0].penalty = 0;
    beam->nodes[0][0].hash = 0;
    beam->nodes[0][0].step = -1;
    for (int32_t number = 0; number + 1 < schedule->num_microbatches; number++) {
        const node_t *from = beam->nodes[number % 2];
        node_t *to = beam->nodes[(number + 1) % 2];
        const int32_t n = find_candidates(beam, s, from, num_nodes, number, all_rows);

        num_nodes = go_on(beam, s, from, n, number, width, to);
        if (num_nodes == 0) return;
        for (int32_t i = 0; i < num_nodes; i++) {
            if (to[i].documents_left > 0) continue;
            write_schedule(beam, to[i].step, number + 1, schedule);
            return;
        }
    }
}
