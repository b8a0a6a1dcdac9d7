#include "trainer/loop/control.h"

#include "base/memory.h"
#include "comm/control_record.h"

#include <inttypes.h>
#include <string.h>

struct tr_control {
    const tr_trainer_t *trainer;
    char *shared;            /* [num_ranks][TR_CONTROL_MAX_BYTES] */
    comm_control_t *records; /* NULL: one rank */
};

base_status_t tr_control_create(const tr_trainer_t *trainer, tr_control_t **control_p)
{
    tr_control_t *c = base_calloc(trainer->ctx, 1, sizeof *c, "control");

    if (c == NULL) return BASE_ERR_NOMEM;
    c->trainer = trainer;
    c->shared =
        base_calloc(trainer->ctx, trainer->topology->num_ranks, TR_CONTROL_MAX_BYTES, "control");
    base_status_t st = c->shared == NULL ? BASE_ERR_NOMEM : BASE_OK;
    if (st >= 0 && trainer->topology->num_ranks > 1)
        st = comm_control_create(trainer->group, base_stream_device(trainer->stream),
                                 TR_CONTROL_LOOK_AHEAD, &c->records);
    if (st < 0) {
        tr_control_destroy(c);
        return st;
    }
    *control_p = c;
    return BASE_OK;
}

void tr_control_destroy(tr_control_t *control)
{
    if (control == NULL) return;
    base_ctx_t *ctx = control->trainer->ctx;
    comm_control_destroy(control->records);
    base_free(ctx, control->shared);
    base_free(ctx, control);
}

base_status_t tr_control_share(tr_control_t *control, const char *what, void *data, int64_t bytes)
{
    const tr_trainer_t *trainer = control->trainer;
    const as_topology_t *t = trainer->topology;

    if (t->num_trainers == t->num_ranks) return BASE_OK;
    if (bytes < 0 || bytes > TR_CONTROL_MAX_BYTES)
        return BASE_FAIL(trainer->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %" PRId64 " bytes to share, at most %d", what, bytes,
                         TR_CONTROL_MAX_BYTES);
    const char *first = &control->shared[t->trainer_rank[0] * bytes];
    BASE_TRY(comm_allgather(trainer->group, data, bytes, control->shared));
    for (int32_t i = 1; i < t->num_trainers; i++) {
        const int32_t rank = t->trainer_rank[i];

        if (memcmp(first, &control->shared[rank * bytes], (size_t)bytes) != 0)
            return BASE_FAIL(trainer->ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                             "%s: ranks %d and %d have different results", what, t->trainer_rank[0],
                             rank);
    }
    memcpy(data, first, (size_t)bytes);
    return BASE_OK;
}

base_status_t tr_control_microbatch(tr_control_t *control, int64_t microbatch, uint64_t plan_hash,
                                    uint64_t wanted, uint64_t *agreed)
{
    const comm_control_record_t mine = {
        .microbatch = microbatch, .plan_hash = plan_hash, .events = wanted};
    const comm_control_record_t *all = NULL;

    *agreed = control->records == NULL ? wanted : 0; /* one rank need not ask anybody */
    if (control->records == NULL) return BASE_OK;
    BASE_TRY(comm_control_exchange(control->records, &mine, &all));
    for (int32_t r = 0; r < control->trainer->topology->num_ranks && all != NULL; r++)
        *agreed |= all[r].events;
    return BASE_OK;
}

base_status_t tr_control_finish(tr_control_t *control)
{
    return control->records == NULL ? BASE_OK : comm_control_finish(control->records);
}
