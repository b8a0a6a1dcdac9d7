#include "trainer/run/checkpoint_due.h"

#define MINUTE_NS INT64_C(60000000000)

void tr_checkpoint_due_init(tr_checkpoint_due_t *due, const base_config_t *config, tr_now_fn now,
                            int64_t microbatch)
{
    *due = (tr_checkpoint_due_t){.now = now,
                                 .every_ns = config->train.checkpoint_every_minutes * MINUTE_NS,
                                 .every_microbatches = config->train.checkpoint_every_microbatches,
                                 .last_ns = now(),
                                 .last_microbatch = microbatch};
}

bool tr_checkpoint_due_ask(tr_checkpoint_due_t *due)
{
    if (due->asked || due->every_ns == 0 || due->now() - due->last_ns < due->every_ns) return false;
    due->asked = true;
    return true;
}

bool tr_checkpoint_due_here(const tr_checkpoint_due_t *due, int64_t microbatch)
{
    return due->every_microbatches > 0 &&
           microbatch - due->last_microbatch >= due->every_microbatches;
}

void tr_checkpoint_due_tried(tr_checkpoint_due_t *due, int64_t microbatch)
{
    due->last_ns = due->now();
    due->last_microbatch = microbatch;
    due->asked = false;
}
