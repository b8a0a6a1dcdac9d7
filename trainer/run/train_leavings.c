#include "trainer/run/train_leavings.h"

#include "base/log.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* Of the adapters that RUN-10 names. */
#define NAMES_BYTES 160

base_status_t tr_train_leavings_init(tr_train_t *train, const tr_inputs_t *inputs,
                                     const tr_run_folder_t *folder, bool full,
                                     tr_train_leavings_t *leavings)
{
    *leavings =
        (tr_train_leavings_t){.train = train, .inputs = inputs, .folder = folder, .full = full};
    leavings->missing =
        base_calloc(inputs->ctx, inputs->num_jobs, sizeof *leavings->missing, "exports");
    return leavings->missing == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

void tr_train_leavings_deinit(tr_train_leavings_t *leavings)
{
    if (leavings->inputs != NULL) base_free(leavings->inputs->ctx, leavings->missing);
    *leavings = (tr_train_leavings_t){.train = NULL};
}

static base_status_t export_job(const tr_train_leavings_t *l, int32_t job)
{
    if (l->full) return tr_train_export_model(l->train->trainer, l->inputs, l->folder);
    return tr_train_export_adapter(l->train, l->inputs, job, l->folder);
}

/* An error that costs this export and nothing else is noted. Then an earlier export must not pass for this one when the run
 * goes on; a model's has been put aside before it is written. */
static base_status_t attempt(tr_train_leavings_t *l, int32_t job)
{
    base_ctx_t *ctx = l->inputs->ctx;
    const base_status_t st = export_job(l, job);

    l->missing[job] = st < 0;
    if (st >= 0 || base_status_scope(st) != BASE_SCOPE_CALL || !base_ctx_error(ctx, &l->last))
        return st;
    base_ctx_clear_error(ctx);
    return l->full ? BASE_OK : tr_train_outdate_adapter(l->inputs, job, l->folder);
}

base_status_t tr_train_leavings_ended(tr_train_leavings_t *leavings, int32_t job)
{
    const char *name = leavings->inputs->jobs[job]->name;
    char key[BASE_LOG_KEY_BYTES];

    BASE_TRY(tr_train_leavings_retry(leavings));
    BASE_TRY(attempt(leavings, job));
    if (!leavings->missing[job]) return BASE_OK;
    (void)snprintf(key, sizeof key, "export:%.40s", name);
    base_log_warn(base_ctx_log(leavings->inputs->ctx), key,
                  "RUN-10: %s has ended and cannot be exported: %.400s; it is tried again when the "
                  "run ends",
                  name, leavings->last.text);
    return BASE_OK;
}

base_status_t tr_train_leavings_retry(tr_train_leavings_t *leavings)
{
    for (int32_t j = 0; j < leavings->inputs->num_jobs; j++) {
        if (!leavings->missing[j]) continue;
        BASE_TRY(attempt(leavings, j));
        if (!leavings->missing[j])
            base_log_info(base_ctx_log(leavings->inputs->ctx), "%s: exported after all",
                          leavings->inputs->jobs[j]->name);
    }
    return BASE_OK;
}

base_status_t tr_train_leavings_verdict(const tr_train_leavings_t *leavings)
{
    const tr_train_leavings_t *l = leavings;
    char names[NAMES_BYTES] = "";
    int32_t missing = 0;

    for (int32_t j = 0; j < l->inputs->num_jobs; j++) {
        const size_t used = strlen(names);

        if (!l->missing[j]) continue;
        missing++;
        (void)snprintf(names + used, sizeof names - used, "%s%s", missing > 1 ? ", " : "",
                       l->inputs->jobs[j]->name);
    }
    if (missing == 0) return BASE_OK;
    return BASE_FAIL(l->inputs->ctx, l->last.status, BASE_MSG_RUN_10,
                     "%s: trained to the end and not exported: %.300s", names, l->last.text);
}
