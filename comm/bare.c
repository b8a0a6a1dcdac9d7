#include "comm/bare.h"

#include "base/clock.h"
#include "comm/transport.h"

base_status_t comm_bare_run(comm_group_t *group, const comm_bare_t *bare, int64_t *ns_p)
{
    if (group->ops->bare != NULL) return group->ops->bare(group, bare, ns_p);
    return BASE_FAIL(group->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                     "rank %d: transport %s has nothing to be compared with", group->rank,
                     group->ops->name);
}

static base_range_t piece(const comm_bare_t *bare, base_mem_t first, int i)
{
    return (base_range_t){.mem = base_mem_at(first, i % bare->depth * bare->bytes),
                          .row_bytes = bare->bytes,
                          .rows = 1,
                          .pitch = bare->bytes};
}

base_status_t comm_bare_copies(comm_group_t *group, const comm_bare_t *bare, base_mem_t from,
                               int64_t *ns_p)
{
    base_stream_t *stream = NULL;
    base_counter_t *done = NULL;
    base_status_t st = BASE_OK;

    BASE_TRY(base_stream_create(group->dev, BASE_STREAM_ASYNC, "bare copies", &stream));
    BASE_TRY_GOTO(base_counter_create(group->dev, &done), st, out);
    BASE_TRY_GOTO(comm_barrier(group), st, out);
    const int64_t start_ns = base_clock_ns();
    for (int i = 0; i < bare->repeat && bare->from >= 0 && st >= 0; i++) {
        const base_range_t dst = piece(bare, bare->recv, i), src = piece(bare, from, i);

        st = base_copy(stream, &dst, &src);
        if (st >= 0 && bare->told) st = base_stream_signal(stream, done, (uint64_t)i + 1);
    }
    if (st >= 0) st = base_stream_sync(stream);
    *ns_p = base_clock_ns() - start_ns;
    if (st >= 0) st = comm_barrier(group); /* nobody's buffer goes before all have read it */
out:
    base_stream_destroy(stream);
    base_counter_destroy(done);
    return st;
}
