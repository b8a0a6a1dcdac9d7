#include "trainer/loop/step_results.h"

#include "base/device/staging.h"
#include "base/memory.h"

#include <assert.h>

typedef struct entry {
    tr_step_given_t given;
    base_event_t *landed;
} entry_t;

/* A ring: entry number n lies at n modulo capacity, its result in the landing of the same place. */
struct tr_step_results {
    tr_trainer_t *trainer;
    int64_t capacity, given, taken; /* entries so far */
    int64_t waits;
    entry_t *entries;
    base_staging_t landings;
};

base_status_t tr_step_results_create(tr_trainer_t *trainer, int32_t num_jobs,
                                     tr_step_results_t **results_p)
{
    base_device_t *dev = base_stream_device(trainer->stream);
    base_status_t st = BASE_OK;

    tr_step_results_t *r = base_calloc(trainer->ctx, 1, sizeof *r, "results of steps");
    if (r == NULL) return BASE_ERR_NOMEM;
    r->trainer = trainer;
    r->capacity = (int64_t)num_jobs * (TR_STEP_RESULTS_AFTER + 1);
    r->entries = base_calloc(trainer->ctx, r->capacity, sizeof *r->entries, "results of steps");
    if (r->entries == NULL) st = BASE_ERR_NOMEM;
    for (int64_t i = 0; i < r->capacity && st >= 0; i++)
        st = base_event_create(dev, &r->entries[i].landed);
    if (st >= 0)
        st = base_staging_create(dev, r->capacity * (int64_t)sizeof(tr_step_landing_t),
                                 "results of steps", &r->landings);
    if (st < 0) {
        tr_step_results_destroy(r);
        return st;
    }
    *results_p = r;
    return BASE_OK;
}

void tr_step_results_destroy(tr_step_results_t *results)
{
    tr_step_results_t *r = results;

    if (r == NULL) return;
    /* Its error, if it has one, has been returned or recorded by now. */
    if (r->given != r->taken) (void)!base_stream_sync(r->trainer->stream);
    for (int64_t i = 0; r->entries != NULL && i < r->capacity; i++)
        base_event_destroy(r->entries[i].landed);
    base_staging_destroy(&r->landings);
    base_free(r->trainer->ctx, r->entries);
    base_free(r->trainer->ctx, r);
}

tr_step_landing_t *tr_step_results_place(tr_step_results_t *results)
{
    assert(results->given - results->taken < results->capacity);
    return (tr_step_landing_t *)results->landings.memory + results->given % results->capacity;
}

base_status_t tr_step_results_give(tr_step_results_t *results, const tr_step_given_t *given)
{
    entry_t *e = &results->entries[results->given % results->capacity];

    e->given = *given;
    results->given++;
    return base_event_record(e->landed, results->trainer->stream);
}

/* Waits when it has to, and counts that. */
static base_status_t see_landed(tr_step_results_t *r, base_event_t *landed)
{
    const base_status_t st = base_event_query(landed);

    if (st != BASE_PENDING) return st;
    r->waits++;
    return base_event_wait(landed, "result of an optimizer step");
}

base_status_t tr_step_results_take(tr_step_results_t *results, int64_t up_to,
                                   tr_step_given_t *given, tr_step_result_t *result, int *found)
{
    tr_step_results_t *r = results;
    const int64_t at = r->taken % r->capacity;

    *found = 0;
    if (r->taken == r->given || r->entries[at].given.microbatch > up_to) return BASE_OK;
    BASE_TRY(see_landed(r, r->entries[at].landed));
    *given = r->entries[at].given;
    *result = tr_step_landed(r->trainer, (const tr_step_landing_t *)r->landings.memory + at);
    r->taken++;
    *found = 1;
    return BASE_OK;
}

int64_t tr_step_results_waits(const tr_step_results_t *results)
{
    return results->waits;
}
