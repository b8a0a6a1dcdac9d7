/* Core attention, backward (Dao 2023, alg. 2). With s = scale q k^T, p = exp(s - lse), o = p v and
 * delta = rowsum(d_o o):
 *   dv = p^T d_o,   dp = d_o v^T,   ds = scale p (dp - delta),   dq = ds k,   dk = ds^T q.
 *
 * Order: tiles of keys outside, tiles of rows and heads of the group inside, all ascending. dk and
 * dv grow in scratch and are written once a tile; dq grows in its own memory, over tiles of keys
 * ascending, so that its bits do not depend on the cut (a tile that a row does not see adds + 0 to
 * a sum that is never -0). */
#include "kernels/cpu/attention_tile.h"

/* On the stack, 2 MiB in double. */
typedef struct bwd_state {
    real_t p[TILE * TILE], ds[TILE * TILE];
    real_t q[TILE_ELEMENTS], k[TILE_ELEMENTS], v[TILE_ELEMENTS], d_o[TILE_ELEMENTS];
    real_t dq[TILE_ELEMENTS], dk[TILE_ELEMENTS], dv[TILE_ELEMENTS];
} bwd_state_t;

/* One head of one task; pointers are to its first row, lse and delta have one element every
 * `group`. */
typedef struct bwd_head {
    const kern_attention_bwd_t *args;
    row_range_t q_rows;
    const real_t *q, *d_o, *lse, *delta;
    real_t *dq;
    int64_t q_pitch, d_o_pitch;
} bwd_head_t;

static void gradient_row(real_t *p, real_t *ds, row_range_t keys, real_t scale, real_t lse,
                         real_t delta)
{
    const int64_t begin = keys.begin < keys.end ? keys.begin : TILE;
    const int64_t end = keys.begin < keys.end ? keys.end : TILE;

    memset(p, 0, (size_t)begin * sizeof *p);
    memset(ds, 0, (size_t)begin * sizeof *ds);
    for (int64_t j = begin; j < end; j++) {
        p[j] = real_exp(p[j] * scale - lse);
        ds[j] = p[j] * (ds[j] - delta) * scale;
    }
    memset(p + end, 0, (size_t)(TILE - end) * sizeof *p);
    memset(ds + end, 0, (size_t)(TILE - end) * sizeof *ds);
}

/* Turns scores into p, and dp into ds; zeros where a row sees nothing or is not ours. */
static void gradient_tile(bwd_state_t *st, const bwd_head_t *head, int64_t row0, int64_t key0)
{
    const real_t scale = (real_t)head->args->scale;
    const row_range_t rows = tile_rows(row0, head->q_rows);

    for (int64_t row = row0; row < row0 + TILE; row++) {
        const int ours = row >= rows.begin && row < rows.end;
        const row_range_t none = {0, 0};
        const row_range_t keys = ours ? tile_keys(row, key0, head->args->window) : none;
        const int64_t stat = ours ? (row - head->q_rows.begin) * head->args->group : 0;
        real_t *p = st->p + (row - row0) * TILE, *ds = st->ds + (row - row0) * TILE;

        gradient_row(p, ds, keys, scale, ours ? head->lse[stat] : 0, ours ? head->delta[stat] : 0);
    }
}

/* dq += ds k. A tile that is not wholly ours goes through scratch: its other rows are not our
 * memory. */
static void add_dq(bwd_state_t *st, const bwd_head_t *head, int64_t row0, tile_view_t k)
{
    const int64_t dim = head->args->head_dim, pitch = head->q_pitch;
    const row_range_t rows = tile_rows(row0, head->q_rows);
    real_t *dq = head->dq + (rows.begin - head->q_rows.begin) * pitch;

    if (rows.end - rows.begin == TILE) {
        real_gemm(0, 0, TILE, dim, TILE, 1, st->ds, TILE, k.at, k.pitch, 1, dq, pitch);
        return;
    }
    tile_copy(st->dq, row0, head->dq, pitch, head->q_rows, dim);
    real_gemm(0, 0, TILE, dim, TILE, 1, st->ds, TILE, k.at, k.pitch, 1, st->dq, dim);
    for (int64_t row = rows.begin; row < rows.end; row++, dq += pitch)
        memcpy(dq, st->dq + (row - row0) * dim, (size_t)dim * sizeof *dq);
}

static void head_tile(bwd_state_t *st, const bwd_head_t *head, int64_t row0, int64_t key0,
                      tile_view_t k, tile_view_t v)
{
    const int64_t dim = head->args->head_dim;
    const tile_view_t q = tile_load(st->q, row0, head->q, head->q_pitch, head->q_rows, dim);
    const tile_view_t d_o = tile_load(st->d_o, row0, head->d_o, head->d_o_pitch, head->q_rows, dim);

    real_gemm(0, 1, TILE, TILE, dim, 1, q.at, q.pitch, k.at, k.pitch, 0, st->p, TILE);
    real_gemm(0, 1, TILE, TILE, dim, 1, d_o.at, d_o.pitch, v.at, v.pitch, 0, st->ds, TILE);
    gradient_tile(st, head, row0, key0);
    real_gemm(1, 0, TILE, dim, TILE, 1, st->p, TILE, d_o.at, d_o.pitch, 1, st->dv, dim);
    real_gemm(1, 0, TILE, dim, TILE, 1, st->ds, TILE, q.at, q.pitch, 1, st->dk, dim);
    add_dq(st, head, row0, k);
}

/* One KV head: k, v and their gradients begin at row kv_rows.begin; `head` is the group's first
 * query head. */
typedef struct bwd_keys {
    row_range_t kv_rows;
    const real_t *k, *v;
    real_t *dk, *dv;
} bwd_keys_t;

static void key_tile(bwd_state_t *st, const bwd_head_t *group_head, const bwd_keys_t *keys,
                     int64_t key0)
{
    const int64_t dim = group_head->args->head_dim, window = group_head->args->window;
    const row_range_t all = group_head->q_rows, rows = tile_rows(key0, keys->kv_rows);
    const tile_view_t k = tile_load(st->k, key0, keys->k, dim, keys->kv_rows, dim);
    const tile_view_t v = tile_load(st->v, key0, keys->v, dim, keys->kv_rows, dim);
    const int64_t at = (rows.begin - keys->kv_rows.begin) * dim,
                  count = (rows.end - rows.begin) * dim;
    int64_t row0 = tile_floor(all.begin);

    memset(st->dk, 0, (size_t)(TILE * dim) * sizeof *st->dk);
    memset(st->dv, 0, (size_t)(TILE * dim) * sizeof *st->dv);
    for (row0 = row0 > key0 ? row0 : key0; row0 < all.end; row0 += TILE) {
        if (window > 0 && tile_rows(row0, all).begin - window + 1 >= key0 + TILE)
            break; /* this and all later rows are past the tile */
        for (int32_t r = 0; r < group_head->args->group; r++) {
            bwd_head_t head = *group_head;

            head.q += r * dim;
            head.d_o += r * dim;
            head.dq += r * dim;
            head.lse += r;
            head.delta += r;
            head_tile(st, &head, row0, key0, k, v);
        }
    }
    memcpy(keys->dk + at, st->dk + (rows.begin - key0) * dim, (size_t)count * sizeof *st->dk);
    memcpy(keys->dv + at, st->dv + (rows.begin - key0) * dim, (size_t)count * sizeof *st->dv);
}

static void run_task(bwd_state_t *st, const kern_attention_bwd_t *p, const kern_attention_task_t *t)
{
    const int64_t dim = p->head_dim, width = p->group * dim;
    const row_range_t q_rows = {t->q_row0, t->q_row0 + t->q_rows};
    bwd_keys_t keys = {.kv_rows = {t->kv_row0, q_rows.end}};
    bwd_head_t head = {.args = p, .q_rows = q_rows, .q_pitch = width, .d_o_pitch = t->d_o_row};
    const base_mem_t dk = t->real ? p->dk_real : p->dk, dv = t->real ? p->dv_real : p->dv;

    for (int64_t h = 0; h < t->kv_heads; h++) {
        head.q = real_at(p->q) + t->q + h * t->q_head;
        head.d_o = real_at(p->d_o) + t->d_o + h * t->d_o_head;
        head.lse = real_at(p->lse) + t->lse + h * t->lse_head;
        head.delta = real_at(p->delta) + t->delta + h * t->delta_head;
        head.dq = real_at(p->dq) + t->dq + h * t->dq_head;
        keys.k = real_at(p->k) + t->kv + h * t->kv_head;
        keys.v = real_at(p->v) + t->kv + h * t->kv_head;
        keys.dk = real_at(dk) + t->dkv + h * t->dkv_head; /* acc and real are one type here */
        keys.dv = real_at(dv) + t->dkv + h * t->dkv_head;
        memset(head.dq, 0, (size_t)(t->q_rows * width) * sizeof *head.dq);
        for (int64_t key0 = t->kv_row0; key0 < q_rows.end; key0 += TILE)
            key_tile(st, &head, &keys, key0);
    }
}

base_status_t KERN_NAME(attention_bwd)(void *args)
{
    const kern_attention_bwd_t *p = args;
    bwd_state_t st;

    for (int64_t i = 0; i < p->num_tasks; i++)
        if (p->tasks[i].q_rows > 0) run_task(&st, p, &p->tasks[i]);
    return BASE_OK;
}
