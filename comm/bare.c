#include "comm/bare.h"

#include "base/clock.h"
#include "comm/copy_engine.h"
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

/* What copies that are told go through: as with copy engines, streams in turn, and two counters behind each copy, or
 * behind the last of some. */
typedef struct bare_lane {
    base_stream_t *stream;
    base_counter_t *here, *there;
} bare_lane_t;

static base_status_t lane_init(comm_group_t *group, bare_lane_t *l)
{
    BASE_TRY(base_stream_create(group->dev, BASE_STREAM_ASYNC, "bare copies", &l->stream));
    BASE_TRY(base_counter_create(group->dev, &l->here));
    return base_counter_create(group->dev, &l->there);
}

static void lane_deinit(bare_lane_t *l)
{
    base_stream_destroy(l->stream);
    base_counter_destroy(l->here);
    base_counter_destroy(l->there);
}

static base_status_t give(const comm_bare_t *bare, base_mem_t from, const bare_lane_t *l, int i)
{
    const base_range_t dst = piece(bare, bare->recv, i), src = piece(bare, from, i);
    const base_signal_t signals[] = {{l->there, (uint64_t)i + 1}, {l->here, (uint64_t)i + 1}};

    BASE_TRY(base_copy(l->stream, &dst, &src));
    if (bare->told == 0 || (i + 1) % bare->told != 0) return BASE_OK;
    return base_stream_signal_all(l->stream, signals, 2);
}

base_status_t comm_bare_copies(comm_group_t *group, const comm_bare_t *bare, base_mem_t from,
                               int64_t *ns_p)
{
    const int lanes = bare->told > 0 ? COMM_COPY_LANES : 1,
              in_a_row = bare->told > 0 ? bare->told : 1;
    bare_lane_t lane[COMM_COPY_LANES] = {0};
    base_status_t st = BASE_OK;

    for (int k = 0; k < lanes && st >= 0; k++)
        st = lane_init(group, &lane[k]);
    if (st < 0) goto out;
    BASE_TRY_GOTO(comm_barrier(group), st, out);
    const int64_t start_ns = base_clock_ns();
    for (int i = 0; i < bare->repeat && bare->from >= 0 && st >= 0; i++)
        st = give(bare, from, &lane[i / in_a_row % lanes], i);
    for (int k = 0; k < lanes && st >= 0; k++)
        st = base_stream_sync(lane[k].stream);
    *ns_p = base_clock_ns() - start_ns;
    if (st >= 0) st = comm_barrier(group); /* nobody's buffer goes before all have read it */
out:
    for (int k = 0; k < lanes; k++)
        lane_deinit(&lane[k]);
    return st;
}
