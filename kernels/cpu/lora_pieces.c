/* The products of LoRA that are made per adapter. Work goes piece by piece, a piece being the rows
 * of one segment for one block, so that rows of two adapters never meet in a product. */
#include "kernels/cpu/real.h"
#include "kernels/dropout.h"

/* With dropout, x is masked into a tile on the stack: 128 KiB in double. Columns are multiples of
 * the 64 that four blocks of Philox serve. */
#define TILE_ROWS 64
#define TILE_COLS 256

typedef struct piece {
    const kern_lora_route_t *route;
    const kern_lora_block_t *block;
    int64_t row0, rows;
    double scale;       /* of the adapter */
    double factor;      /* 1 / (1 - p) */
    uint32_t threshold; /* 0: no dropout */
    base_philox_key_t key;
} piece_t;

typedef void (*piece_fn)(const void *args, const piece_t *piece);

static void for_pieces(const kern_lora_route_t *route, piece_fn fn, const void *args)
{
    for (int64_t b = 0; b < route->num_blocks; b++) {
        const kern_lora_block_t *block = &route->blocks[b];
        const kern_lora_adapter_t *adapter = &route->adapters[block->adapter];
        piece_t piece = {.route = route,
                         .block = block,
                         .scale = adapter->scale,
                         .factor = kern_dropout_factor(adapter->dropout)};

        piece.threshold = kern_dropout_threshold(adapter->dropout);
        piece.key = kern_dropout_key(adapter->seed, adapter->step, (uint32_t)route->layer,
                                     (uint32_t)block->module);
        for (int64_t i = 0; i < route->num_segments; i++) {
            const kern_lora_segment_t *segment = &route->segments[i];

            if (segment->adapter != block->adapter || segment->row0 == segment->row1) continue;
            piece.row0 = segment->row0;
            piece.rows = segment->row1 - segment->row0;
            fn(args, &piece);
        }
    }
}

/* The tiles of a piece over K columns, column by column of tiles; without dropout the whole piece
 * is one. */
typedef struct tile {
    int64_t row, rows, col, cols;
} tile_t;

static void tile_extend(const piece_t *piece, int64_t cols, tile_t *tile)
{
    tile->rows = piece->row0 + piece->rows - tile->row;
    tile->cols = cols - tile->col;
    if (piece->threshold != 0 && tile->rows > TILE_ROWS) tile->rows = TILE_ROWS;
    if (piece->threshold != 0 && tile->cols > TILE_COLS) tile->cols = TILE_COLS;
}

static tile_t tile_first(const piece_t *piece, int64_t cols)
{
    tile_t tile = {piece->row0, 0, 0, 0};

    tile_extend(piece, cols, &tile);
    return tile;
}

/* 0: that was the last one. */
static int tile_next(const piece_t *piece, int64_t cols, tile_t *tile)
{
    tile->row += tile->rows;
    if (tile->row == piece->row0 + piece->rows) {
        tile->row = piece->row0;
        tile->col += tile->cols;
    }
    if (tile->col == cols) return 0;
    tile_extend(piece, cols, tile);
    return 1;
}

/* kept[j]: is column tile->col + j of that row? And a few behind the last. */
static void draw_row(const piece_t *piece, int64_t row, const tile_t *tile, uint8_t kept[TILE_COLS])
{
    const kern_mat_t *documents = &piece->route->documents;
    const int32_t *pair = int_row(documents) + row * documents->pitch;
    const uint64_t document = (uint64_t)(uint32_t)pair[1] << 32 | (uint32_t)pair[0];
    const int32_t position = int_row(&piece->route->positions)[row];

    for (int64_t j = 0; j < tile->cols; j += j % 64 < 24 ? 8 : 40) {
        const base_philox_t r = kern_dropout_words(piece->key, (int64_t)document, position,
                                                   kern_dropout_block(tile->col + j));
        const uint32_t limit = kern_dropout_limit(r, piece->threshold);

        for (int n = 0; n < 8; n++) {
            kept[j + n] = (uint8_t)kern_dropout_keeps(r, limit, j + n);
            kept[j + 32 + n] = (uint8_t)kern_dropout_keeps(r, limit, j + 32 + n);
        }
    }
}

/* A matrix in memory, or a copy of its part with the dropped elements 0. */
typedef struct view {
    const real_t *at;
    int64_t pitch;
} view_t;

static view_t masked(const piece_t *piece, const kern_mat_t *x, const tile_t *tile, real_t *scratch)
{
    uint8_t kept[TILE_COLS];

    if (piece->threshold == 0) return (view_t){real_row(x, tile->row) + tile->col, x->pitch};
    for (int64_t t = 0; t < tile->rows; t++) {
        const real_t *from = real_row(x, tile->row + t) + tile->col;
        real_t *to = scratch + t * TILE_COLS;

        draw_row(piece, tile->row + t, tile, kept);
        for (int64_t j = 0; j < tile->cols; j++)
            to[j] = kept[j] ? from[j] : 0;
    }
    return (view_t){scratch, TILE_COLS};
}

static void clear(const kern_mat_t *mat)
{
    for (int64_t t = 0; t < mat->rows; t++)
        memset(real_row(mat, t), 0, (size_t)mat->cols * sizeof(real_t));
}

/* ==== s, ds ==== */

static void piece_s(const void *args, const piece_t *piece)
{
    const kern_lora_s_t *p = args;
    const kern_mat_t *a = &piece->block->a;
    const real_t alpha = (real_t)(piece->scale * piece->factor);
    real_t scratch[TILE_ROWS * TILE_COLS];
    tile_t tile = tile_first(piece, p->x.cols);

    do {
        const view_t x = masked(piece, &p->x, &tile, scratch);

        real_gemm(0, 1, tile.rows, a->rows, tile.cols, alpha, x.at, x.pitch,
                  real_row(a, 0) + tile.col, a->pitch, 1,
                  real_row(&p->s, tile.row) + piece->block->column, p->s.pitch);
    } while (tile_next(piece, p->x.cols, &tile));
}

base_status_t KERN_NAME(lora_s)(void *args)
{
    const kern_lora_s_t *p = args;

    clear(&p->s);
    for_pieces(&p->route, piece_s, p);
    return BASE_OK;
}

static void piece_ds(const void *args, const piece_t *piece)
{
    const kern_lora_ds_t *p = args;
    const kern_mat_t *b = &piece->block->b;

    real_gemm(0, 0, piece->rows, b->cols, b->rows, (real_t)piece->scale,
              real_row(&p->dy, piece->row0) + piece->block->out_column, p->dy.pitch, real_row(b, 0),
              b->pitch, 1, real_row(&p->ds, piece->row0) + piece->block->column, p->ds.pitch);
}

base_status_t KERN_NAME(lora_ds)(void *args)
{
    const kern_lora_ds_t *p = args;

    clear(&p->ds);
    for_pieces(&p->route, piece_ds, p);
    return BASE_OK;
}

/* ==== dA, dB: tiles of rows ascend, and so do segments ==== */

static void piece_da(const void *args, const piece_t *piece)
{
    const kern_lora_da_t *p = args;
    const kern_mat_t *da = &piece->block->da;
    real_t scratch[TILE_ROWS * TILE_COLS];
    tile_t tile = tile_first(piece, p->x.cols);

    do {
        const view_t x = masked(piece, &p->x, &tile, scratch);

        real_gemm(1, 0, da->rows, tile.cols, tile.rows, (real_t)piece->factor,
                  real_row(&p->ds, tile.row) + piece->block->column, p->ds.pitch, x.at, x.pitch, 1,
                  real_row(da, 0) + tile.col, da->pitch);
    } while (tile_next(piece, p->x.cols, &tile));
}

base_status_t KERN_NAME(lora_da)(void *args)
{
    const kern_lora_da_t *p = args;

    for_pieces(&p->route, piece_da, p);
    return BASE_OK;
}

static void piece_db(const void *args, const piece_t *piece)
{
    const kern_lora_db_t *p = args;
    const kern_mat_t *db = &piece->block->db;

    real_gemm(1, 0, db->rows, db->cols, piece->rows, 1,
              real_row(&p->dy, piece->row0) + piece->block->out_column, p->dy.pitch,
              real_row(&p->s, piece->row0) + piece->block->column, p->s.pitch, 1, real_row(db, 0),
              db->pitch);
}

base_status_t KERN_NAME(lora_db)(void *args)
{
    const kern_lora_db_t *p = args;

    for_pieces(&p->route, piece_db, p);
    return BASE_OK;
}

base_status_t KERN_NAME(lora_dy)(void *args)
{
    const kern_lora_dy_t *p = args;
    const kern_lora_ds_t ds = {p->route, p->dy, p->ds};
    const kern_lora_db_t db = {p->route, p->dy, p->s};

    clear(&p->ds);
    for_pieces(&p->route, piece_ds, &ds);
    for_pieces(&p->route, piece_db, &db);
    return BASE_OK;
}

/* ==== dx ==== */

/* dx += the tile of ds A that the product left in z, where the mask keeps it. */
static void add_masked(const piece_t *piece, const tile_t *tile, const real_t *z,
                       const kern_mat_t *dx)
{
    uint8_t kept[TILE_COLS];

    for (int64_t t = 0; t < tile->rows; t++) {
        real_t *to = real_row(dx, tile->row + t) + tile->col;

        draw_row(piece, tile->row + t, tile, kept);
        for (int64_t j = 0; j < tile->cols; j++)
            if (kept[j]) to[j] += z[t * TILE_COLS + j];
    }
}

static void piece_dx(const void *args, const piece_t *piece)
{
    const kern_lora_dx_dropout_t *p = args;
    const kern_mat_t *a = &piece->block->a;
    const int plain = piece->threshold == 0;
    real_t z[TILE_ROWS * TILE_COLS];
    tile_t tile = tile_first(piece, p->dx.cols);

    do {
        real_t *to = plain ? real_row(&p->dx, tile.row) + tile.col : z;

        real_gemm(0, 0, tile.rows, tile.cols, a->rows, (real_t)piece->factor,
                  real_row(&p->ds, tile.row) + piece->block->column, p->ds.pitch,
                  real_row(a, 0) + tile.col, a->pitch, plain ? 1 : 0, to,
                  plain ? p->dx.pitch : TILE_COLS);
        if (!plain) add_masked(piece, &tile, z, &p->dx);
    } while (tile_next(piece, p->dx.cols, &tile));
}

base_status_t KERN_NAME(lora_dx_dropout)(void *args)
{
    const kern_lora_dx_dropout_t *p = args;

    for_pieces(&p->route, piece_dx, p);
    return BASE_OK;
}
