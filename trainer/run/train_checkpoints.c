#include "trainer/run/train_checkpoints.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>

#define SECOND_NS INT64_C(1000000000)

void tr_train_checkpoints_init(tr_train_checkpoints_t *checkpoints,
                               const tr_checkpoint_t *checkpoint, const base_config_t *config,
                               tr_train_report_t *report, const tr_signals_t *signals)
{
    *checkpoints =
        (tr_train_checkpoints_t){.checkpoint = *checkpoint, .report = report, .signals = signals};
    tr_checkpoint_due_init(&checkpoints->due, config, base_clock_ns, checkpoint->train->microbatch);
}

uint64_t tr_train_checkpoints_wants(tr_train_checkpoints_t *checkpoints)
{
    tr_train_checkpoints_t *c = checkpoints;
    uint64_t wants = 0;

    if (tr_signals_asked(c->signals)) wants |= TR_CONTROL_SAVE | TR_CONTROL_END;
    if (c->report != NULL && tr_checkpoint_due_ask(&c->due)) wants |= TR_CONTROL_SAVE;
    return wants;
}

/* At most a line a second. */
static void say_saved(tr_train_checkpoints_t *c, int64_t began_ns)
{
    const int64_t now = base_clock_ns();

    if (c->said_ns != 0 && now - c->said_ns < SECOND_NS) return;
    c->said_ns = now;
    base_log_info(base_ctx_log(c->checkpoint.ctx),
                  "checkpoint after microbatch %" PRId64 " written in %.1f s",
                  c->checkpoint.train->microbatch, (double)(now - began_ns) * 1e-9);
}

static base_status_t save(tr_train_checkpoints_t *c, tr_checkpoint_outcome_t *outcome)
{
    const int64_t began = base_clock_ns();
    tr_checkpoint_clock_t clock;
    base_status_t before = BASE_OK;

    BASE_TRY(tr_train_settle(c->checkpoint.train));
    if (c->report != NULL) before = tr_train_report_clock(c->report, &clock);
    BASE_TRY(
        tr_checkpoint_write(&c->checkpoint, c->report != NULL ? &clock : NULL, before, outcome));
    tr_checkpoint_due_tried(&c->due, c->checkpoint.train->microbatch);
    if (c->report == NULL) return BASE_OK;
    if (outcome->status >= 0)
        say_saved(c, began);
    else
        base_log_warn(base_ctx_log(c->checkpoint.ctx), "checkpoint",
                      "RUN-07: checkpoint after microbatch %" PRId64 ": %s; those before it are as "
                      "they were",
                      c->checkpoint.train->microbatch, outcome->text);
    return BASE_OK;
}

static bool any_running(const tr_train_t *train)
{
    for (int32_t j = 0; j < train->num_jobs; j++) {
        if (train->jobs[j]->state == TR_JOB_RUNNING) return true;
    }
    return false;
}

base_status_t tr_train_checkpoints_boundary(tr_train_checkpoints_t *checkpoints, uint64_t events)
{
    tr_train_checkpoints_t *c = checkpoints;
    tr_checkpoint_outcome_t outcome;

    if (!any_running(c->checkpoint.train)) return BASE_OK; /* tr_train_checkpoints_end */
    if (events == 0 && !tr_checkpoint_due_here(&c->due, c->checkpoint.train->microbatch))
        return BASE_OK;
    BASE_TRY(save(c, &outcome));
    if ((events & TR_CONTROL_END) == 0) return BASE_OK;
    if (outcome.status < 0)
        return BASE_FAIL(c->checkpoint.ctx, outcome.status, BASE_MSG_RUN_07,
                         "stopped after microbatch %" PRId64 " without a checkpoint: %s",
                         c->checkpoint.train->microbatch, outcome.text);
    c->stopped = true;
    return BASE_OK;
}

base_status_t tr_train_checkpoints_end(tr_train_checkpoints_t *checkpoints)
{
    tr_train_checkpoints_t *c = checkpoints;
    const tr_train_t *train = c->checkpoint.train;
    tr_checkpoint_outcome_t outcome;

    if (c->stopped || any_running(train)) return BASE_OK;
    if (train->options.full && train->jobs[0]->eval_documents > 0) return BASE_OK;
    if (c->due.last_microbatch == train->microbatch) return BASE_OK; /* nothing was left to do */
    return save(c, &outcome);
}
