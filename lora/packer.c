#include "lora/packer.h"

#include "base/memory.h"
#include "base/sort.h"
#include "lora/bound.h"
#include "lora/pack_beam.h"
#include "lora/pack_level.h"
#include "lora/pack_microbatch.h"

#include <inttypes.h>
#include <string.h>

/* The search over several schedules side by side is worth its time above bound + bound / this. */
#define WORTH_IT 500

struct lora_packer {
    base_ctx_t *ctx;
    lora_packer_limits_t limits;
    lora_pack_state_t state;
    int32_t *trial; /* [max_documents] microbatches under a policy */
    lora_pack_beam_t *beam;
    int64_t *sizes; /* [2 max_documents] for the bound */
    int64_t *level; /* [lora_level_scratch(max_documents)] */
};

/* Which does best depends on lengths and batches; docs/packing.md has the figures. */
static const lora_pack_policy_t policies[] = {
    {.order = LORA_LEAST_FAR, .slack_shift = 6, .together = 1},
    {.order = LORA_LEAST_FAR, .slack_shift = 9, .together = 1},
    {.order = LORA_LEAST_FAR, .slack_shift = 12, .together = 0},
    {.order = LORA_LONGEST_CHAIN, .slack_shift = 9, .together = 1, .unsplit = LORA_UNSPLIT_FIRST},
};
enum { NUM_POLICIES = sizeof policies / sizeof policies[0] };

base_status_t lora_packer_create(base_ctx_t *ctx, const lora_packer_limits_t *limits,
                                 lora_packer_t **packer_p)
{
    lora_packer_t *p = base_calloc(ctx, 1, sizeof *p, "packer");
    base_status_t st = BASE_ERR_NOMEM;

    if (p == NULL) return BASE_ERR_NOMEM;
    p->ctx = ctx;
    p->limits = *limits;
    p->trial = base_calloc(ctx, limits->max_documents, sizeof *p->trial, "packer");
    p->level =
        base_calloc(ctx, lora_level_scratch(limits->max_documents), sizeof *p->level, "packer");
    p->sizes = base_calloc(ctx, 2 * (int64_t)limits->max_documents, sizeof *p->sizes, "packer");
    if (p->trial == NULL || p->level == NULL || p->sizes == NULL) goto err_destroy;
    BASE_TRY_GOTO(lora_pack_state_init(ctx, limits, &p->state), st, err_destroy);
    BASE_TRY_GOTO(lora_pack_beam_create(ctx, limits, &p->beam), st, err_destroy);
    *packer_p = p;
    return BASE_OK;
err_destroy:
    lora_packer_destroy(p);
    return st;
}

void lora_packer_destroy(lora_packer_t *packer)
{
    if (packer == NULL) return;
    lora_pack_beam_destroy(packer->beam);
    lora_pack_state_deinit(&packer->state);
    base_free(packer->ctx, packer->level);
    base_free(packer->ctx, packer->sizes);
    base_free(packer->ctx, packer->trial);
    base_free(packer->ctx, packer);
}

static base_status_t check(lora_packer_t *p, const lora_window_t *w)
{
    if (w->num_adapters > p->limits.max_adapters || w->num_batches > p->limits.max_batches ||
        w->num_documents > p->limits.max_documents)
        return BASE_FAIL(p->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "packer: window of %" PRId32 " adapters, %" PRId32 " batches, %" PRId32
                         " documents, made for %" PRId32 ", %" PRId32 ", %" PRId32,
                         w->num_adapters, w->num_batches, w->num_documents, p->limits.max_adapters,
                         p->limits.max_batches, p->limits.max_documents);
    return lora_window_check(p->ctx, w);
}

/* One policy from end to end; kept when it is better than what the schedule has. */
static void try_policy(lora_packer_t *p, const lora_window_t *w, const lora_pack_policy_t *policy,
                       lora_schedule_t *schedule, int64_t *adapters_p)
{
    int64_t adapters = 0;
    int32_t num = 0;

    lora_pack_state_begin(&p->state, w, p->trial);
    for (; p->state.documents_left > 0; num++)
        adapters += lora_pack_take(&p->state, lora_pack_choose(&p->state, policy, num), num);
    if (num > schedule->num_microbatches ||
        (num == schedule->num_microbatches && adapters >= *adapters_p))
        return;
    schedule->num_microbatches = num;
    *adapters_p = adapters;
    memcpy(schedule->microbatch, p->trial, (size_t)w->num_documents * sizeof *p->trial);
}

base_status_t lora_packer_run(lora_packer_t *p, const lora_window_t *w, lora_schedule_t *schedule)
{
    int64_t adapters = INT64_MAX;
    lora_bounds_t bounds;

    BASE_TRY(check(p, w));
    schedule->num_microbatches = INT32_MAX;
    for (int i = 0; i < NUM_POLICIES; i++)
        try_policy(p, w, &policies[i], schedule, &adapters);
    lora_bound_window_in(w, p->sizes, &bounds);
    if (schedule->num_microbatches > bounds.best + bounds.best / WORTH_IT) {
        lora_pack_state_begin(&p->state, w, p->trial);
        lora_pack_beam_search(p->beam, &p->state, schedule);
    }
    lora_level_supervised(w, schedule, p->level);
    return BASE_OK;
}

base_status_t lora_packer_next(lora_packer_t *p, const lora_window_t *w, lora_schedule_t *schedule)
{
    BASE_TRY(check(p, w));
    lora_pack_state_begin(&p->state, w, schedule->microbatch);
    if (w->num_documents > 0)
        (void)lora_pack_take(&p->state, lora_pack_choose(&p->state, &policies[0], 0), 0);
    lora_level_next(w, schedule);
    schedule->num_microbatches = 1;
    return BASE_OK;
}
