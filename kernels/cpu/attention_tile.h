/* What the forward and the backward of core attention share: tiles on the document's grid.
 *
 * A tile holds B = KERN_ATTENTION_TILE rows of D elements. Every matrix product takes full tiles,
 * so that a row lies at the same place of the same product however its document was cut; that is
 * what makes bits independent of the cut, since BLAS may treat the rows of a product differently by
 * their place. Rows outside a task are zeros: they may be another rank's memory, and 0 NaN is NaN.
 *
 * Only for sources of KERN_REAL_SOURCES. */
#ifndef CADRE_KERNELS_CPU_ATTENTION_TILE_H
#define CADRE_KERNELS_CPU_ATTENTION_TILE_H

#include "kernels/cpu/real.h"

#define TILE          KERN_ATTENTION_TILE
#define TILE_ELEMENTS (TILE * KERN_ATTENTION_MAX_HEAD_DIM)

typedef struct row_range {
    int64_t begin, end; /* rows of the document */
} row_range_t;

/* A full tile to read: in place, or in scratch. */
typedef struct tile_view {
    const real_t *at;
    int64_t pitch;
} tile_view_t;

static inline int64_t tile_floor(int64_t row)
{
    return row - row % TILE;
}

/* The rows of `all` in the tile that begins at row0. */
static inline row_range_t tile_rows(int64_t row0, row_range_t all)
{
    const row_range_t rows = {all.begin > row0 ? all.begin : row0,
                              all.end < row0 + TILE ? all.end : row0 + TILE};

    return rows;
}

/* Copies the tile's rows, zeros round them. `from` is row all.begin. */
static inline void tile_copy(real_t *to, int64_t row0, const real_t *from, int64_t pitch,
                             row_range_t all, int64_t dim)
{
    const row_range_t rows = tile_rows(row0, all);

    memset(to, 0, (size_t)(TILE * dim) * sizeof *to);
    for (int64_t i = rows.begin; i < rows.end; i++)
        memcpy(to + (i - row0) * dim, from + (i - all.begin) * pitch, (size_t)dim * sizeof *to);
}

/* A tile with all its rows needs no copy: BLAS takes a pitch, and only the order of operations
 * makes bits. */
static inline tile_view_t tile_load(real_t *scratch, int64_t row0, const real_t *from,
                                    int64_t pitch, row_range_t all, int64_t dim)
{
    if (all.begin <= row0 && row0 + TILE <= all.end)
        return (tile_view_t){from + (row0 - all.begin) * pitch, pitch};
    tile_copy(scratch, row0, from, pitch, all, dim);
    return (tile_view_t){scratch, dim};
}

/* Columns of the tile of keys that begins at key0 which row `row` sees: causal, window (0: none).
 * Empty: begin >= end. */
static inline row_range_t tile_keys(int64_t row, int64_t key0, int64_t window)
{
    const int64_t first = window > 0 ? row - window + 1 - key0 : 0, last = row - key0;
    const row_range_t keys = {first > 0 ? first : 0, last < TILE ? last + 1 : TILE};

    return keys;
}

#endif
