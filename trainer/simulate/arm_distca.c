#include "trainer/simulate/arm_distca.h"

#include "base/memory.h"
#include "base/sort.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* What of a piece is still at home: rows [a, b), and for a whole document divided from its middle
 * [a, b) and [c, d) with b <= c. */
typedef struct item {
    int32_t piece, server;
    int64_t a, b, c, d;
} item_t;

/* A part of an item that may move: rows [q0, q1) or, divided from the middle, `pairs` rows of each
 * side. */
typedef struct move {
    int32_t item;
    int64_t q0, q1, pairs;
    double work, value; /* pairs of q and k; those per byte */
} move_t;

struct tr_distca {
    base_ctx_t *ctx;
    tr_distca_config_t config;
    const data_batch_t *batch;
    double *load;   /* [servers] */
    int32_t *order; /* [servers] */
    item_t *items;
    int32_t num_items;
    as_task_t *tasks;
    int32_t num_tasks, capacity; /* of items and of tasks */
};

base_status_t tr_distca_create(base_ctx_t *ctx, const tr_distca_config_t *config,
                               tr_distca_t **arm_p)
{
    tr_distca_t *arm = base_calloc(ctx, 1, sizeof *arm, "distca arm");

    if (arm == NULL) return BASE_ERR_NOMEM;
    arm->ctx = ctx;
    arm->config = *config;
    arm->capacity = 4 * config->max_pieces + 64 * config->num_servers;
    if ((arm->load = base_calloc(ctx, config->num_servers, sizeof(double), "distca arm")) == NULL ||
        (arm->order = base_calloc(ctx, config->num_servers, sizeof(int32_t), "distca arm")) ==
            NULL ||
        (arm->items = base_calloc(ctx, arm->capacity, sizeof *arm->items, "distca arm: items")) ==
            NULL ||
        (arm->tasks = base_calloc(ctx, arm->capacity, sizeof *arm->tasks, "distca arm: tasks")) ==
            NULL) {
        tr_distca_destroy(arm);
        return BASE_ERR_NOMEM;
    }
    *arm_p = arm;
    return BASE_OK;
}

void tr_distca_destroy(tr_distca_t *arm)
{
    if (arm == NULL) return;
    base_free(arm->ctx, arm->tasks);
    base_free(arm->ctx, arm->items);
    base_free(arm->ctx, arm->order);
    base_free(arm->ctx, arm->load);
    base_free(arm->ctx, arm);
}

void tr_distca_wire(int32_t group, int32_t head_dim, int32_t real_bytes, int32_t acc_bytes,
                    as_wire_t *wire)
{
    const int64_t q = (int64_t)group * head_dim * real_bytes, stat = (int64_t)group * acc_bytes;
    const int64_t kv = 2 * (int64_t)head_dim * real_bytes;

    *wire = (as_wire_t){.row = {{q, q}, {q + stat, q + stat}, {3 * q + stat, 3 * q + stat}, {q, q}},
                        .key = {{kv, kv}, {0, 0}, {kv, kv}, {kv, kv}}};
}

/* ==== items ==== */

/* Pairs of rows [q0, q1). */
static double area(int64_t q0, int64_t q1)
{
    return 0.5 * (double)(q1 - q0) * (double)(q0 + q1 + 1);
}

static double item_work(const item_t *i)
{
    return area(i->a, i->b) + area(i->c, i->d);
}

static base_status_t add_task(tr_distca_t *arm, int32_t piece, int32_t server, int64_t q0,
                              int64_t q1)
{
    if (q0 >= q1) return BASE_OK;
    if (arm->num_tasks == arm->capacity)
        return BASE_FAIL(arm->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                         "distca arm: more than %" PRId32 " tasks", arm->capacity);
    arm->tasks[arm->num_tasks++] = (as_task_t){.document = arm->batch->pieces[piece].document,
                                               .piece = piece,
                                               .server = server,
                                               .h0 = 0,
                                               .h1 = arm->config.num_kv_heads,
                                               .q0 = q0,
                                               .q1 = q1};
    return BASE_OK;
}

static base_status_t add_item(tr_distca_t *arm, item_t item)
{
    if (item.a >= item.b && item.c >= item.d) return BASE_OK;
    if (arm->num_items == arm->capacity)
        return BASE_FAIL(arm->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                         "distca arm: more than %" PRId32 " items", arm->capacity);
    arm->items[arm->num_items++] = item;
    return BASE_OK;
}

static base_status_t list_items(tr_distca_t *arm, int32_t half)
{
    arm->num_items = 0;
    memset(arm->load, 0, (size_t)arm->config.num_servers * sizeof *arm->load);
    for (int32_t p = 0; p < arm->batch->num_pieces; p++) {
        const data_piece_t *piece = &arm->batch->pieces[p];
        const int64_t end = piece->doc_row + piece->rows;
        item_t item = {.piece = p, .server = piece->trainer, .a = piece->doc_row, .b = end};

        if (piece->half != half) continue;
        if (arm->config.shipped && piece->rows == arm->batch->documents[piece->document].rows &&
            end > 1)
            item = (item_t){p, piece->trainer, 0, end / 2, end / 2, end};
        arm->load[piece->trainer] += item_work(&item);
        BASE_TRY(add_item(arm, item));
    }
    return BASE_OK;
}

/* ==== what may move ==== */

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

/* Rows [start, ?) of `work` pairs. */
static double rows_from(double start, double work)
{
    return sqrt(start * start + 2 * work) - start;
}

/* Appendix B: of all shards of `work` pairs within rows [a, b), the one of least bytes. */
static move_t best_shard(const tr_distca_t *arm, int32_t index, double work)
{
    const item_t *i = &arm->items[index];
    const double beta = (double)arm->config.kv_bytes / arm->config.q_bytes;
    const double a = (double)i->a, b = (double)i->b;
    double rows = sqrt(2 * work * beta / (beta + 2)), keys = work / rows + rows / 2;

    if (keys > b) { /* at the end */
        keys = b;
        rows = b - sqrt(b * b - 2 * work > a * a ? b * b - 2 * work : a * a);
    } else if (keys - rows < a) { /* at the start */
        rows = rows_from(a, work);
        keys = smaller(a + rows, b);
    }
    int64_t count = ((int64_t)rows + DATA_ROW_ALIGN / 2) / DATA_ROW_ALIGN * DATA_ROW_ALIGN;
    int64_t end = (int64_t)keys;

    if (count < DATA_ROW_ALIGN) count = DATA_ROW_ALIGN;
    if (count > i->b - i->a) count = i->b - i->a;
    if (end > i->b) end = i->b;
    if (end - count < i->a) end = i->a + count;
    const double bytes = (double)count * arm->config.q_bytes + (double)end * arm->config.kv_bytes;
    move_t m = {.item = index, .q0 = end - count, .q1 = end};

    m.work = area(m.q0, m.q1);
    m.value = m.work / bytes;
    return m;
}

/* The code's estimate: q once although head and tail both move, keys of the whole document twice. */
static move_t shipped_shard(const tr_distca_t *arm, int32_t index, double work)
{
    const item_t *i = &arm->items[index];
    const int paired = i->c < i->d;
    const double length = (double)(paired ? i->a + i->d : i->b) + 1;
    const double rows = work / length;
    move_t m = {.item = index};

    if (paired) {
        m.pairs = (int64_t)rows < i->b - i->a ? (int64_t)rows : i->b - i->a;
        if (m.pairs == i->b - i->a && work < item_work(i)) m.pairs--;
        m.work = area(i->b - m.pairs, i->b) + area(i->c, i->c + m.pairs);
        if (work >= item_work(i)) {
            m.pairs = i->b - i->a;
            m.work = item_work(i);
        }
    } else {
        const double b = (double)i->b, left = b * b - 2 * work;
        int64_t count = (int64_t)(b - sqrt(left > 0 ? left : 0));

        if (count > i->b - i->a || work >= item_work(i)) count = i->b - i->a;
        m.q0 = i->b - count;
        m.q1 = i->b;
        m.work = area(m.q0, m.q1);
    }
    m.value = m.work / (rows * arm->config.q_bytes + 2 * length * arm->config.kv_bytes);
    return m;
}

/* Carries the move out; what stays of its item is one item or two. */
static base_status_t apply(tr_distca_t *arm, const move_t *m, int32_t server)
{
    item_t *i = &arm->items[m->item];

    arm->load[i->server] -= m->work;
    arm->load[server] += m->work;
    if (i->c < i->d) { /* the middle rows of a pair touch when nothing was taken before */
        const int64_t b = i->b, c = i->c;
        const int whole = m->pairs == i->b - i->a;

        i->b -= m->pairs;
        i->c += m->pairs;
        if (whole) i->c = i->d;
        if (b == c) return add_task(arm, i->piece, server, i->b, i->c);
        BASE_TRY(add_task(arm, i->piece, server, i->b, b));
        return add_task(arm, i->piece, server, c, i->c);
    }
    const item_t rest = {.piece = i->piece, .server = i->server, .a = m->q1, .b = i->b};

    i->b = m->q0;
    i->c = i->d = i->b;
    BASE_TRY(add_task(arm, rest.piece, server, m->q0, m->q1));
    return add_item(arm, rest);
}

/* ==== the greedy ==== */

/* The best move of at most `need` pairs from servers above the mean (or from `from` only). */
static int find_move(const tr_distca_t *arm, double mean, double need, int32_t from, move_t *best)
{
    best->value = 0;
    for (int32_t i = 0; i < arm->num_items; i++) {
        const item_t *item = &arm->items[i];
        const double surplus = arm->load[item->server] - mean;

        if (surplus <= 0 || (from >= 0 && item->server != from)) continue;
        const double all = item_work(item);
        if (all <= 0) continue;
        const double work = smaller(all, smaller(surplus, need));
        const move_t m =
            arm->config.shipped ? shipped_shard(arm, i, work) : best_shard(arm, i, work);
        if (m.work > 0 && m.work <= 2 * work && m.value > best->value) *best = m;
    }
    return best->value > 0;
}

static int32_t extreme(const tr_distca_t *arm, int sign)
{
    int32_t found = 0;

    for (int32_t s = 1; s < arm->config.num_servers; s++)
        if (sign * arm->load[s] > sign * arm->load[found]) found = s;
    return found;
}

static int by_load(const void *a, const void *b, const void *arg)
{
    const tr_distca_t *arm_ = arg;
    const int32_t s = *(const int32_t *)a, t = *(const int32_t *)b;
    const double x = arm_->load[s], y = arm_->load[t];

    return x != y ? (x > y) - (x < y) : base_compare_i64(s, t);
}

/* Servers below the mean, most needy first, until each is near it or no item fits. */
static base_status_t fill_needy(tr_distca_t *arm, double mean, double near)
{
    const int32_t n = arm->config.num_servers;
    move_t m;

    for (int32_t s = 0; s < n; s++)
        arm->order[s] = s;
    base_sort(arm->order, n, sizeof *arm->order, by_load, arm);
    for (int32_t i = 0; i < n; i++) {
        const int32_t s = arm->order[i];

        while (mean - arm->load[s] > near && find_move(arm, mean, mean - arm->load[s], -1, &m))
            BASE_TRY(apply(arm, &m, s));
    }
    return BASE_OK;
}

/* What is left above the mean, to those with least: none takes more than the tolerance. */
static base_status_t relieve_rich(tr_distca_t *arm, double mean, double near)
{
    move_t m;

    for (int32_t turn = 0; turn < 16 * arm->config.num_servers; turn++) {
        const int32_t from = extreme(arm, 1), to = extreme(arm, -1);
        const double surplus = arm->load[from] - mean, room = mean + near - arm->load[to];

        if (surplus <= near || room <= 0) break;
        if (!find_move(arm, mean, smaller(surplus, room), from, &m)) break;
        BASE_TRY(apply(arm, &m, to));
    }
    return BASE_OK;
}

static base_status_t level_half(tr_distca_t *arm, int32_t half)
{
    const int32_t n = arm->config.num_servers;
    double mean = 0, near;

    BASE_TRY(list_items(arm, half));
    for (int32_t s = 0; s < n; s++)
        mean += arm->load[s] / n;
    near = mean * arm->config.tolerance_per_mille / 1000;
    BASE_TRY(fill_needy(arm, mean, near));
    if (!arm->config.shipped) BASE_TRY(relieve_rich(arm, mean, near));
    for (int32_t i = 0; i < arm->num_items; i++) {
        const item_t *item = &arm->items[i];

        if (item->b == item->c && item->c < item->d) {
            BASE_TRY(add_task(arm, item->piece, item->server, item->a, item->d));
            continue;
        }
        BASE_TRY(add_task(arm, item->piece, item->server, item->a, item->b));
        BASE_TRY(add_task(arm, item->piece, item->server, item->c, item->d));
    }
    return BASE_OK;
}

static int by_rows(const void *a, const void *b, const void *unused)
{
    const as_task_t *x = a, *y = b;
    const int c = base_compare_i64(x->document, y->document);

    (void)unused;
    return c != 0 ? c : base_compare_i64(x->q0, y->q0);
}

base_status_t tr_distca_run(tr_distca_t *arm, const data_batch_t *batch, const as_task_t **tasks_p,
                            int32_t *num_tasks_p)
{
    arm->batch = batch;
    arm->num_tasks = 0;
    for (int32_t half = 0; half < DATA_NUM_HALVES; half++)
        BASE_TRY(level_half(arm, half));
    base_sort(arm->tasks, arm->num_tasks, sizeof *arm->tasks, by_rows, NULL);
    *tasks_p = arm->tasks;
    *num_tasks_p = arm->num_tasks;
    return BASE_OK;
}
