/* Core attention, forward: tiles of keys ascending with an online softmax (Milakov, Gimelshein
 * 2018; Dao 2023, alg. 1).
 *
 * For each row: m, the largest scaled score so far; l = sum exp(s - m); o = sum exp(s - m) v. A
 * tile of keys with the larger maximum m' first multiplies l and o by exp(m - m').
 *
 * A tile whose keys a row does not see leaves the row's m, l and o as they are, bit for bit: its
 * probabilities are 0, o gets + 0 and is never -0 (it begins as +0, and a sum that rounds to zero
 * is +0). So it does not matter whether such a tile was visited, and with a window that depends on
 * the cut. */
#include "kernels/cpu/attention_tile.h"

/* One tile of rows of one head; on the stack, 1.2 MiB in double. */
typedef struct fwd_state {
    real_t s[TILE * TILE]; /* scores, then probabilities */
    real_t o[TILE_ELEMENTS], q[TILE_ELEMENTS], k[TILE_ELEMENTS], v[TILE_ELEMENTS];
    real_t m[TILE], l[TILE];
} fwd_state_t;

/* One head of one task. q and o: its first row and the pitch; lse: one element every `group`. */
typedef struct fwd_head {
    const kern_attention_fwd_t *args;
    row_range_t q_rows, kv_rows;
    const real_t *q, *k, *v;
    real_t *o, *lse;
    int64_t q_pitch, o_pitch;
} fwd_head_t;

/* Scores of one row over one tile of keys -> probabilities relative to the new maximum; zeros where
 * it sees nothing. */
static void softmax_row(fwd_state_t *st, int64_t i, row_range_t keys, real_t scale, int64_t dim)
{
    real_t *s = st->s + i * TILE, *o = st->o + i * dim, max = st->m[i], shrink;

    for (int64_t j = keys.begin; j < keys.end; j++)
        s[j] *= scale;
    if (keys.begin < keys.end) max = real_max(keys.end - keys.begin, s + keys.begin, max);
    if (keys.begin >= keys.end || max == -REAL_INFINITY) { /* (-inf) - (-inf) would be NaN */
        memset(s, 0, TILE * sizeof *s);
        return;
    }
    memset(s, 0, (size_t)keys.begin * sizeof *s);
    for (int64_t j = keys.begin; j < keys.end; j++)
        s[j] = real_exp(s[j] - max);
    memset(s + keys.end, 0, (size_t)(TILE - keys.end) * sizeof *s);

    shrink = real_exp(st->m[i] - max); /* 0 for the first tile that the row sees */
    st->m[i] = max;
    st->l[i] = st->l[i] * shrink + real_sum(TILE, s);
    for (int64_t j = 0; j < dim; j++)
        o[j] *= shrink;
}

static void softmax_tile(fwd_state_t *st, const fwd_head_t *head, int64_t row0, int64_t key0)
{
    for (int64_t i = 0; i < TILE; i++) {
        const int ours = row0 + i >= head->q_rows.begin && row0 + i < head->q_rows.end;
        const row_range_t none = {0, 0};
        const row_range_t keys = ours ? tile_keys(row0 + i, key0, head->args->window) : none;

        softmax_row(st, i, keys, (real_t)head->args->scale, head->args->head_dim);
    }
}

static void store_tile(const fwd_state_t *st, const fwd_head_t *head, int64_t row0)
{
    const int64_t dim = head->args->head_dim;
    const row_range_t rows = tile_rows(row0, head->q_rows);

    for (int64_t row = rows.begin; row < rows.end; row++) {
        const int64_t i = row - row0, at = row - head->q_rows.begin;
        real_t *o = head->o + at * head->o_pitch;

        for (int64_t j = 0; j < dim; j++)
            o[j] = st->o[i * dim + j] / st->l[i];
        head->lse[at * head->args->group] = st->m[i] + real_log(st->l[i]);
    }
}

static void head_tile(fwd_state_t *st, const fwd_head_t *head, int64_t row0)
{
    const int64_t dim = head->args->head_dim, window = head->args->window;
    const row_range_t rows = tile_rows(row0, head->q_rows);
    const int64_t first_key = window > 0 ? rows.begin - window + 1 : 0;
    const tile_view_t q = tile_load(st->q, row0, head->q, head->q_pitch, head->q_rows, dim);

    memset(st->o, 0, (size_t)(TILE * dim) * sizeof *st->o);
    for (int64_t i = 0; i < TILE; i++) {
        st->m[i] = -REAL_INFINITY;
        st->l[i] = 0;
    }
    for (int64_t key0 = first_key > 0 ? tile_floor(first_key) : 0; key0 < rows.end; key0 += TILE) {
        const tile_view_t k = tile_load(st->k, key0, head->k, dim, head->kv_rows, dim);
        const tile_view_t v = tile_load(st->v, key0, head->v, dim, head->kv_rows, dim);

        real_gemm(0, 1, TILE, TILE, dim, 1, q.at, q.pitch, k.at, k.pitch, 0, st->s, TILE);
        softmax_tile(st, head, row0, key0);
        real_gemm(0, 0, TILE, dim, TILE, 1, st->s, TILE, v.at, v.pitch, 1, st->o, dim);
    }
    store_tile(st, head, row0);
}

static void run_task(fwd_state_t *st, const kern_attention_fwd_t *p, const kern_attention_task_t *t)
{
    const int64_t dim = p->head_dim, group = p->group;
    fwd_head_t head = {.args = p, .q_pitch = group * dim, .o_pitch = t->o_row};

    head.q_rows = (row_range_t){t->q_row0, t->q_row0 + t->q_rows};
    head.kv_rows = (row_range_t){t->kv_row0, t->q_row0 + t->q_rows};
    for (int64_t h = 0; h < t->kv_heads; h++) {
        head.k = real_at(p->k) + t->kv + h * t->kv_head;
        head.v = real_at(p->v) + t->kv + h * t->kv_head;
        for (int64_t row0 = tile_floor(t->q_row0); row0 < head.q_rows.end; row0 += TILE)
            for (int64_t r = 0; r < group; r++) {
                head.q = real_at(p->q) + t->q + h * t->q_head + r * dim;
                head.o = real_at(p->o) + t->o + h * t->o_head + r * dim;
                head.lse = real_at(p->lse) + t->lse + h * t->lse_head + r;
                head_tile(st, &head, row0);
            }
    }
}

base_status_t KERN_NAME(attention_fwd)(void *args)
{
    const kern_attention_fwd_t *p = args;
    fwd_state_t st;

    for (int64_t i = 0; i < p->num_tasks; i++)
        if (p->tasks[i].q_rows > 0) run_task(&st, p, &p->tasks[i]);
    return BASE_OK;
}
