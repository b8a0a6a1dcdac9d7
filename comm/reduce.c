/* All-reduce in a fixed order, out of two exchanges.
 *
 * The elements are cut into one slice a member. First each sends slice p of its data to member p,
 * which then holds all contributions to its own slice and adds them in ascending rank order with
 * one function on its stream (the caller's, or for the CPU family the one below); then every rank sends the sum of its slice to all. Each sum is
 * computed once, by one rank, in one order: its bits depend on the contributions only, and all
 * ranks get the same ones. Traffic: 2 (n-1)/n of the data each way, as a ring's.
 *
 * An exchange borrows its lists and its event until it is complete, so there is a ring of them,
 * one longer than the exchanges that can be open: comm_exchange_begin of the one after has
 * returned before an entry is written again. */
#include "comm/transport.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <inttypes.h>

#define RING (COMM_MAX_OPEN_EXCHANGES + 1)

/* Kinds in the tags; negative ones are comm's own. */
enum { KIND_CONTRIBUTIONS = -1, KIND_SUMS = -2 };

typedef struct reducer_entry {
    comm_peer_t *peers; /* [size - 1] */
    base_range_t *send, *recv;
} reducer_entry_t;

struct comm_reducer {
    reducer_entry_t ring[RING];
    base_mem_t *parts; /* [size], of the sum that is being given */
    uint64_t num_exchanges;
    int64_t num_reductions;
};

base_status_t comm_reducer_create(comm_group_t *group, comm_reducer_t **reducer_p)
{
    const int peers = group->size - 1;
    comm_reducer_t *r = base_calloc(group->ctx, 1, sizeof *r, "reduction");
    base_status_t st = BASE_OK;

    if (r == NULL) return BASE_ERR_NOMEM;
    r->parts = base_calloc(group->ctx, group->size, sizeof *r->parts, "reduction lists");
    if (r->parts == NULL) st = BASE_ERR_NOMEM;
    for (int i = 0; i < RING && st >= 0; i++) {
        reducer_entry_t *e = &r->ring[i];

        e->peers = base_calloc(group->ctx, peers, sizeof *e->peers, "reduction lists");
        e->send = base_calloc(group->ctx, peers, sizeof *e->send, "reduction lists");
        e->recv = base_calloc(group->ctx, peers, sizeof *e->recv, "reduction lists");
        if (e->peers == NULL || e->send == NULL || e->recv == NULL) st = BASE_ERR_NOMEM;
    }
    if (st < 0) {
        comm_reducer_destroy(group, r);
        return st;
    }
    *reducer_p = r;
    return BASE_OK;
}

void comm_reducer_destroy(comm_group_t *group, comm_reducer_t *reducer)
{
    if (reducer == NULL) return;
    for (int i = 0; i < RING; i++) {
        base_free(group->ctx, reducer->ring[i].recv);
        base_free(group->ctx, reducer->ring[i].send);
        base_free(group->ctx, reducer->ring[i].peers);
    }
    base_free(group->ctx, reducer->parts);
    base_free(group->ctx, reducer);
}

/* ==== slices ==== */

static int64_t element_bytes(comm_element_t element)
{
    return element == COMM_F32 ? (int64_t)sizeof(float) : (int64_t)sizeof(double);
}

int64_t comm_reduce_scratch_bytes(const comm_group_t *group, int64_t count, comm_element_t element)
{
    /* Slices of m members hold m * ceil(count / m) <= count + m - 1 elements. */
    return count > 0 ? (count + group->size - 1) * element_bytes(element) : 0;
}

/* `bytes` bytes in one row; NULL buffers for nothing, so that an empty slice at the end is
 * legal. */
static base_range_t piece(base_mem_t mem, int64_t bytes)
{
    return bytes > 0 ? (base_range_t){.mem = mem, .row_bytes = bytes, .rows = 1, .pitch = bytes}
                     : (base_range_t){0};
}

/* Who takes part and how the data is cut. Members are counted from 0 in ascending rank order. */
typedef struct slices {
    const int32_t *members; /* NULL: member i is rank i */
    int num_members;
    int me;        /* this rank among the members, -1: not one of them */
    int64_t bytes; /* of a full slice */
    int64_t total;
    base_mem_t data, scratch;
} slices_t;

static int member_rank(const slices_t *s, int i)
{
    return s->members != NULL ? s->members[i] : i;
}

/* Slice of member p in data; the last ones may be short or empty. */
static base_range_t data_slice(const slices_t *s, int p)
{
    const int64_t at = p * s->bytes < s->total ? p * s->bytes : s->total;
    const int64_t left = s->total - at;

    return piece(base_mem_at(s->data, at), left < s->bytes ? left : s->bytes);
}

/* Where member p's contribution to a slice of `bytes` bytes arrives. */
static base_range_t scratch_slot(const slices_t *s, int p, int64_t bytes)
{
    return piece(base_mem_at(s->scratch, p * s->bytes), bytes);
}

/* ==== the sum ==== */

typedef struct sum_args {
    void *mine; /* this rank's own contribution, and the result */
    const void *others;
    int64_t count;  /* elements of this slice */
    int64_t stride; /* elements between contributions in `others` */
    int me, num_members;
    comm_element_t element;
} sum_args_t;

#define SUM_BLOCK 256 /* on the stack, so that the sum over ranks stays in the first cache */

#define DEFINE_SUM(name, type)                                                                     \
    static void name(const sum_args_t *a)                                                          \
    {                                                                                              \
        type *mine = a->mine;                                                                      \
        const type *others = a->others;                                                            \
        type sum[SUM_BLOCK];                                                                       \
                                                                                                   \
        for (int64_t at = 0; at < a->count; at += SUM_BLOCK) {                                     \
            const int64_t left = a->count - at, n = left < SUM_BLOCK ? left : SUM_BLOCK;           \
                                                                                                   \
            for (int r = 0; r < a->num_members; r++) {                                             \
                const type *x = r == a->me ? mine + at : others + r * a->stride + at;              \
                                                                                                   \
                for (int64_t i = 0; i < n; i++)                                                    \
                    sum[i] = r == 0 ? x[i] : sum[i] + x[i];                                        \
            }                                                                                      \
            for (int64_t i = 0; i < n; i++)                                                        \
                mine[at + i] = sum[i];                                                             \
        }                                                                                          \
    }

DEFINE_SUM(sum_f32, float)
DEFINE_SUM(sum_f64, double)

static base_status_t sum_work(void *args)
{
    const sum_args_t *a = args;

    if (a->element == COMM_F32)
        sum_f32(a);
    else
        sum_f64(a);
    return BASE_OK;
}

static base_status_t submit_sum(const comm_reduce_t *reduce, const slices_t *s)
{
    const base_range_t mine = data_slice(s, s->me);
    const base_range_t others = piece(s->scratch, s->num_members * s->bytes);
    const base_operand_t operands[2] = {{mine, BASE_READ_WRITE}, {others, BASE_READ}};
    const sum_args_t args = {.mine = mine.row_bytes > 0 ? base_mem_address(mine.mem) : NULL,
                             .others = mine.row_bytes > 0 ? base_mem_address(s->scratch) : NULL,
                             .count = mine.row_bytes / element_bytes(reduce->element),
                             .stride = s->bytes / element_bytes(reduce->element),
                             .me = s->me,
                             .num_members = s->num_members,
                             .element = reduce->element};

    if (args.count == 0) return BASE_OK;
    return base_stream_submit(reduce->stream, sum_work, &args, sizeof args, operands, 2);
}

/* The caller's function adds. */
static base_status_t give_sum(comm_group_t *group, const comm_reduce_t *reduce, const slices_t *s)
{
    const base_range_t mine = data_slice(s, s->me);
    base_mem_t *parts = group->reducer->parts;

    if (mine.row_bytes == 0) return BASE_OK;
    for (int p = 0; p < s->num_members; p++)
        parts[p] = p == s->me ? mine.mem : scratch_slot(s, p, mine.row_bytes).mem;
    return reduce->sum(reduce->sum_user, reduce->stream, mine.mem, parts, s->num_members,
                       mine.row_bytes / element_bytes(reduce->element), reduce->element);
}

/* ==== the two exchanges ==== */

static base_status_t run_exchange(comm_group_t *group, const comm_reduce_t *reduce,
                                  const slices_t *s, int32_t kind, comm_ticket_t *ticket_p)
{
    comm_reducer_t *reducer = group->reducer;
    reducer_entry_t *e = &reducer->ring[reducer->num_exchanges++ % RING];
    const int64_t mine = s->me < 0 ? 0 : data_slice(s, s->me).row_bytes;
    int n = 0;

    for (int p = 0; p < s->num_members && s->me >= 0; p++) {
        if (p == s->me) continue;
        if (kind == KIND_CONTRIBUTIONS) {
            e->send[n] = data_slice(s, p);
            e->recv[n] = scratch_slot(s, p, mine);
        } else {
            e->send[n] = data_slice(s, s->me);
            e->recv[n] = data_slice(s, p);
        }
        e->peers[n] = (comm_peer_t){.rank = member_rank(s, p),
                                    .num_send = e->send[n].row_bytes > 0,
                                    .num_recv = e->recv[n].row_bytes > 0,
                                    .send = &e->send[n],
                                    .recv = &e->recv[n]};
        n++;
    }
    const comm_exchange_t ex = {
        .tag = {.microbatch = reducer->num_reductions, .layer = -1, .kind = kind},
        .name = kind == KIND_CONTRIBUTIONS ? "contributions to a sum" : "sums",
        .num_peers = n,
        .peers = e->peers,
        .after = s->me < 0 ? NULL : reduce->stream};

    BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, ticket_p));
    return s->me < 0 ? BASE_OK : comm_exchange_arrived_all(group, *ticket_p, reduce->stream);
}

static base_status_t check_members(comm_group_t *group, const comm_reduce_t *reduce)
{
    if (reduce->members == NULL && reduce->num_members != 0)
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: all-reduce of %d members without a list", group->rank,
                         reduce->num_members);
    if (reduce->members != NULL && reduce->num_members < 1)
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: all-reduce of %d members", group->rank, reduce->num_members);
    for (int i = 0; i < reduce->num_members; i++)
        if (reduce->members[i] >= group->size || reduce->members[i] < 0 ||
            (i > 0 && reduce->members[i] <= reduce->members[i - 1]))
            return BASE_FAIL(
                group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                "rank %d: all-reduce: member %d is rank %d; wanted ascending ranks in 0..%d",
                group->rank, i, reduce->members[i], group->size - 1);
    return BASE_OK;
}

static slices_t make_slices(const comm_group_t *group, const comm_reduce_t *reduce)
{
    const int n = reduce->members != NULL ? reduce->num_members : group->size;
    const int64_t element = element_bytes(reduce->element);
    slices_t s = {.members = reduce->members,
                  .num_members = n,
                  .me = -1,
                  .bytes = (reduce->count + n - 1) / n * element,
                  .total = reduce->count * element,
                  .data = reduce->data,
                  .scratch = reduce->scratch};

    for (int i = 0; i < n; i++)
        if (member_rank(&s, i) == group->rank) s.me = i;
    return s;
}

/* What only a member needs. */
static base_status_t check_operands(comm_group_t *group, const comm_reduce_t *reduce,
                                    const slices_t *s)
{
    const int64_t element = element_bytes(reduce->element);
    const base_range_t whole = piece(s->data, s->total);
    const base_range_t scratch =
        piece(s->scratch, s->num_members > 1 ? s->num_members * s->bytes : 0);

    if (reduce->stream == NULL || s->data.offset % element != 0 || s->scratch.offset % element != 0)
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: all-reduce at offset %" PRId64 ", scratch at %" PRId64
                         "; wanted multiples of %" PRId64 "%s",
                         group->rank, s->data.offset, s->scratch.offset, element,
                         reduce->stream == NULL ? ", and a stream" : "");
    BASE_TRY(base_range_check(group->ctx, &whole, "all-reduce"));
    return base_range_check(group->ctx, &scratch, "all-reduce scratch");
}

base_status_t comm_all_reduce(comm_group_t *group, const comm_reduce_t *reduce)
{
    comm_ticket_t contributions, sums;
    slices_t s;

    if (reduce == NULL || reduce->count < 0 ||
        (reduce->element != COMM_F32 && reduce->element != COMM_F64))
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: all-reduce of %" PRId64 " elements", group->rank,
                         reduce == NULL ? 0 : reduce->count);
    BASE_TRY(check_members(group, reduce));
    s = make_slices(group, reduce);
    if (s.me >= 0) BASE_TRY(check_operands(group, reduce, &s));
    if (s.num_members == 1) return BASE_OK; /* the sum of one; nobody begins an exchange */

    group->reducer->num_reductions++;
    BASE_TRY(run_exchange(group, reduce, &s, KIND_CONTRIBUTIONS, &contributions));
    if (s.me < 0) return run_exchange(group, reduce, &s, KIND_SUMS, &sums);
    BASE_TRY(reduce->sum != NULL ? give_sum(group, reduce, &s) : submit_sum(reduce, &s));
    /* The sums arrive over slices that were sent as contributions. Member p has read slice p before
     * it can send the sum, but no transport has to know that: receives are never posted over ranges
     * whose sends may be in flight (MPI forbids it). */
    BASE_TRY(comm_exchange_sent(group, contributions, reduce->stream));
    BASE_TRY(run_exchange(group, reduce, &s, KIND_SUMS, &sums));
    return comm_exchange_sent(group, sums, reduce->stream);
}
