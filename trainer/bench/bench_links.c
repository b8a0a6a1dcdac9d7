#include "trainer/bench/bench_links.h"

#include "base/clock.h"
#include "base/json_write.h"
#include "base/memory.h"
#include "base/sort.h"
#include "comm/bare.h"
#include "comm/share.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_BYTES (INT64_C(256) << 20)          /* of the pieces that are on their way together */
#define MAX_DEPTH  (COMM_MAX_OPEN_EXCHANGES - 2) /* two more, for the host to run ahead */
#define MIB        (INT64_C(1) << 20)
#define LINKS_KIND 1000 /* in tags */

enum { LACKS_BYTES = 64 };

typedef struct pattern {
    const char *name;
    int to, from; /* -1: nobody */
} pattern_t;

typedef struct lane {
    comm_group_t *group;
    base_ctx_t *ctx;
    base_stream_t *stream;
    base_buffer_t *send, *recv;
    comm_ticket_t tickets[MAX_DEPTH];
    base_range_t out[MAX_DEPTH], in[MAX_DEPTH];
    comm_peer_t peers[MAX_DEPTH][2];
    int num_peers;
    int64_t exchanges; /* so far */
} lane_t;

typedef struct row {
    const char *pattern;
    int64_t bytes, repeat, bare_ns, told_ns, ns, alone_ns; /* of a piece */
    int depth;
} row_t;

/* ==== exchanges ==== */

static void make_lists(lane_t *l, const pattern_t *p, int64_t bytes, int depth)
{
    for (int k = 0; k < depth; k++) {
        comm_peer_t *peer = l->peers[k];
        const base_range_t piece = {.row_bytes = bytes, .rows = 1, .pitch = bytes};
        const comm_peer_t to = {.rank = p->to, .num_send = 1, .send = &l->out[k]};
        const comm_peer_t from = {.rank = p->from, .num_recv = 1, .recv = &l->in[k]};

        l->out[k] = l->in[k] = piece;
        l->out[k].mem = base_mem(l->send, k * bytes);
        l->in[k].mem = base_mem(l->recv, k * bytes);
        l->num_peers = 0;
        if (p->to >= 0 && p->to == p->from) {
            peer[l->num_peers++] = (comm_peer_t){
                .rank = p->to, .num_send = 1, .num_recv = 1, .send = &l->out[k], .recv = &l->in[k]};
            continue;
        }
        if (p->to >= 0 && (p->from < 0 || p->to < p->from)) peer[l->num_peers++] = to;
        if (p->from >= 0) peer[l->num_peers++] = from;
        if (p->from >= 0 && p->to > p->from) peer[l->num_peers++] = to;
    }
}

static base_status_t run_exchanges(lane_t *l, int depth, int64_t repeat, int64_t *ns)
{
    for (int k = 0; k < depth; k++)
        l->tickets[k] = (comm_ticket_t){0};
    BASE_TRY(comm_barrier(l->group));
    const int64_t start_ns = base_clock_ns();
    for (int64_t i = 0; i < repeat; i++) {
        const int k = (int)(i % depth);
        const comm_exchange_t ex = {.tag = {.microbatch = l->exchanges++, .kind = LINKS_KIND},
                                    .num_peers = l->num_peers,
                                    .peers = l->peers[k],
                                    .after = l->stream,
                                    .independent = depth >= COMM_SHARE};

        BASE_TRY(comm_exchange_complete(l->group, l->tickets[k], l->stream));
        BASE_TRY(comm_exchange_begin(l->group, COMM_CHANNEL_PING, &ex, &l->tickets[k]));
    }
    for (int k = 0; k < depth; k++)
        BASE_TRY(comm_exchange_complete(l->group, l->tickets[k], l->stream));
    BASE_TRY(base_stream_sync(l->stream));
    *ns = base_clock_ns() - start_ns;
    return BASE_OK;
}

/* ==== measuring ==== */

static base_status_t slowest(lane_t *l, int64_t *ns)
{
    const int size = comm_group_size(l->group);
    int64_t *all = base_calloc(l->ctx, size, sizeof *all, "times");

    if (all == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = comm_allgather(l->group, ns, sizeof *ns, all);
    for (int r = 0; r < size && st >= 0; r++)
        *ns = all[r] > *ns ? all[r] : *ns;
    base_free(l->ctx, all);
    return st;
}

static int by_value(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return base_compare_i64(*(const int64_t *)a, *(const int64_t *)b);
}

static int64_t median(int64_t *ns, int32_t num)
{
    base_sort(ns, num, sizeof *ns, by_value, NULL);
    return ns[num / 2];
}

static base_status_t run_bare(lane_t *l, const pattern_t *p, const row_t *row, int64_t repeat,
                              int told, int64_t *ns)
{
    const comm_bare_t bare = {.to = p->to,
                              .from = p->from,
                              .send = base_mem(l->send, 0),
                              .recv = base_mem(l->recv, 0),
                              .bytes = row->bytes,
                              .depth = row->depth,
                              .repeat = (int)repeat,
                              .told = told};

    BASE_TRY(comm_bare_run(l->group, &bare, ns));
    return slowest(l, ns);
}

/* Bare and exchange in turn. */
static base_status_t both_ways(lane_t *l, const pattern_t *p, row_t *row, int64_t *bare_ns,
                               int64_t *ns)
{
    BASE_TRY(run_bare(l, p, row, row->repeat, 0, bare_ns));
    BASE_TRY(run_exchanges(l, row->depth, row->repeat, ns));
    return slowest(l, ns);
}

/* What explains the others, in a quarter of their time: these are longer each. */
static base_status_t measure_rest(const tr_bench_links_t *b, lane_t *l, const pattern_t *p,
                                  row_t *row)
{
    const int64_t alone = row->repeat / (4 * row->depth) + 1, told = row->repeat / 4 + 1;
    int64_t alone_ns[TR_LINKS_ROUNDS], told_ns[TR_LINKS_ROUNDS];

    for (int i = 0; i < b->rounds; i++) {
        BASE_TRY(run_bare(l, p, row, told, b->tell_every, &told_ns[i]));
        BASE_TRY(run_exchanges(l, 1, alone, &alone_ns[i]));
        BASE_TRY(slowest(l, &alone_ns[i]));
    }
    row->alone_ns = median(alone_ns, b->rounds) / alone;
    row->told_ns = median(told_ns, b->rounds) / told;
    return BASE_OK;
}

static base_status_t measure(const tr_bench_links_t *b, lane_t *l, const pattern_t *p, row_t *row)
{
    int64_t bare_ns[TR_LINKS_ROUNDS], ns[TR_LINKS_ROUNDS];

    row->depth = (int)(ROOM_BYTES / row->bytes);
    row->depth = row->depth < 1 ? 1 : row->depth > MAX_DEPTH ? MAX_DEPTH : row->depth;
    row->repeat = 2 * row->depth;
    make_lists(l, p, row->bytes, row->depth);
    /* The first time warms up, the second one says how many make a round. */
    for (int i = 0; i < 2; i++)
        BASE_TRY(both_ways(l, p, row, &bare_ns[0], &ns[0]));
    const int64_t rounds = b->round_ms * 1000000 / (ns[0] > bare_ns[0] ? ns[0] : bare_ns[0]);
    row->repeat *= rounds > 1 ? rounds : 1;
    row->repeat = row->repeat < INT32_MAX / 2 ? row->repeat : INT32_MAX / 2;
    for (int i = 0; i < b->rounds; i++)
        BASE_TRY(both_ways(l, p, row, &bare_ns[i], &ns[i]));
    row->bare_ns = median(bare_ns, b->rounds) / row->repeat;
    row->ns = median(ns, b->rounds) / row->repeat;
    return measure_rest(b, l, p, row);
}

/* ==== saying ==== */

/* Adds what was wanted and is not there. */
static void lack(char lacks[LACKS_BYTES], double wanted, const char *unit)
{
    const size_t used = strlen(lacks);

    (void)snprintf(lacks + used, LACKS_BYTES - used, "%s%.0f %s", used > 0 ? ", " : "", wanted,
                   unit);
}

static base_status_t say(tr_bench_links_t *b, const lane_t *l, base_device_t *dev, const row_t *row)
{
    static const char *const kinds[] = {"cpu", "strict", "cuda"};
    const char *kind = kinds[base_device_kind(dev)], *transport = comm_group_transport(l->group);
    const int size = comm_group_size(l->group);
    const double gb = (double)row->bytes / (double)row->ns;
    const double bare = (double)row->bytes / (double)row->bare_ns;
    const char *chunk = strcmp(transport, "nccl") == 0 ? getenv("NCCL_P2P_NVL_CHUNKSIZE") : NULL;
    char lacks[LACKS_BYTES] = "";
    base_json_t j;

    if (row->bytes >= MIB && gb < b->want_share * bare)
        lack(lacks, 100 * b->want_share, "% of bare");
    if (row->bytes >= 64 * MIB && gb < b->want_gb) lack(lacks, b->want_gb, "GB/s");
    b->met = b->met && lacks[0] == '\0';
    if (!b->json && !b->said)
        (void)fprintf(b->out, "%-12s %-7s %5s %-5s %11s %9s %9s %9s %9s %9s %6s\n", "transport",
                      "device", "ranks", "way", "bytes", "alone us", "told us", "us", "GB/s",
                      "bare GB/s", "share");
    b->said = true;
    if (!b->json) {
        (void)fprintf(b->out,
                      "%-12s %-7s %5d %-5s %11" PRId64 " %9.1f %9.1f %9.1f %9.3f %9.3f %6.2f%s%s\n",
                      transport, kind, size, row->pattern, row->bytes, (double)row->alone_ns / 1e3,
                      (double)row->told_ns / 1e3, (double)row->ns / 1e3, gb, bare, gb / bare,
                      lacks[0] != '\0' ? "  LESS THAN " : "", lacks);
        return BASE_OK;
    }
    base_json_to_file(&j, b->out);
    base_json_begin_object(&j);
    base_json_put_string(&j, "transport", transport);
    base_json_put_string(&j, "device", base_device_name(dev));
    base_json_put_int(&j, "ranks", size);
    base_json_put_string(&j, "way", row->pattern);
    base_json_put_int(&j, "bytes", row->bytes);
    base_json_put_int(&j, "depth", row->depth);
    base_json_put_int(&j, "repeat", row->repeat);
    base_json_put_int(&j, "ns", row->ns);
    base_json_put_int(&j, "alone_ns", row->alone_ns);
    base_json_put_int(&j, "bare_ns", row->bare_ns);
    base_json_put_int(&j, "bare_told_ns", row->told_ns);
    base_json_put_int(&j, "told_every", b->tell_every);
    base_json_put_double(&j, "gb_per_s", gb);
    base_json_put_double(&j, "bare_gb_per_s", bare);
    base_json_put_double(&j, "share", gb / bare);
    if (chunk != NULL) base_json_put_string(&j, "nccl_p2p_nvl_chunksize", chunk);
    base_json_put_string(&j, "less_than", lacks);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, l->ctx, "links");
}

/* ==== a rank ==== */

static base_status_t open_lane(lane_t *l, base_device_t *dev, int64_t max_bytes)
{
    const int64_t bytes = max_bytes > ROOM_BYTES ? max_bytes : ROOM_BYTES;
    const int64_t most = max_bytes * MAX_DEPTH < bytes ? max_bytes * MAX_DEPTH : bytes;

    BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, most, "links send", &l->send));
    BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, most, "links receive", &l->recv));
    BASE_TRY(base_stream_create(dev, BASE_STREAM_ASYNC, "links", &l->stream));
    /* Memory that nobody has written yet is slow to touch. */
    const base_range_t out = {.mem = base_mem(l->send, 0), .row_bytes = most, .rows = 1};
    const base_range_t in = {.mem = base_mem(l->recv, 0), .row_bytes = most, .rows = 1};
    BASE_TRY(base_fill(l->stream, &out, 1));
    BASE_TRY(base_fill(l->stream, &in, 2));
    return base_stream_sync(l->stream);
}

static void close_lane(lane_t *l)
{
    base_stream_destroy(l->stream);
    base_buffer_free(l->recv);
    base_buffer_free(l->send);
}

base_status_t tr_bench_links_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    tr_bench_links_t *b = user;
    const int me = comm_group_rank(group), size = comm_group_size(group);
    const int has_next = me + 1 < size;
    const pattern_t patterns[2] = {
        {"one", me % 2 == 0 && has_next ? me + 1 : -1, me % 2 == 1 ? me - 1 : -1},
        {"both", (me + 1) % size, (me + size - 1) % size}};
    lane_t l = {.group = group, .ctx = ctx};
    base_status_t st;

    if (size < 2)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "bench links: a rank alone has no link; start two or more");
    BASE_TRY_GOTO(open_lane(&l, dev, b->max_bytes), st, out);
    for (int p = 0; p < 2; p++)
        for (int64_t bytes = TR_LINKS_MIN_BYTES; bytes <= b->max_bytes; bytes *= 4) {
            row_t row = {.pattern = patterns[p].name, .bytes = bytes};

            BASE_TRY_GOTO(measure(b, &l, &patterns[p], &row), st, out);
            if (me == 0) BASE_TRY_GOTO(say(b, &l, dev, &row), st, out);
        }
out:
    if (st < 0) comm_group_stop(group, NULL);
    close_lane(&l);
    return st;
}
