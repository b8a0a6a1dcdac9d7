#include "tests/support/mpi_world.h"

#include <stdio.h>
#include <stdlib.h>

#define PIECE_BYTES (256 * 1024)
#define MAX_SIZE    16

/* One of a program: cmocka's tests have no other place for it. */
static struct world {
    base_ctx_t *ctx;
    comm_mpi_t *mpi;
} world;

typedef struct merge {
    const mpi_piece_t *pieces;
    int num_pieces;
} merge_t;

static void give_up(const char *what)
{
    (void)fprintf(stderr, "mpi_world: %s\n", what);
    abort(); /* mpirun ends the others */
}

void mpi_world_open(void)
{
    int rank, size;

    if (!comm_mpi_launched(&rank, &size)) return;
    if (size > MAX_SIZE) give_up("too many processes");
    if (rank != 0 && freopen("/dev/null", "w", stdout) == NULL) give_up("no /dev/null");
    if (base_ctx_create(rank, size, NULL, &world.ctx) < 0) give_up("no context");
    if (comm_mpi_create(world.ctx, &world.mpi) < 0) give_up("no MPI");
}

void mpi_world_close(void)
{
    if (world.mpi == NULL) return;
    comm_mpi_destroy(world.mpi);
    base_ctx_destroy(world.ctx);
}

comm_mpi_t *mpi_world(void)
{
    return world.mpi;
}

static base_status_t merge_piece(comm_group_t *group, const mpi_piece_t *p, unsigned char *all)
{
    unsigned char *data = p->data;

    for (int64_t at = 0; at < p->bytes; at += PIECE_BYTES) {
        const int64_t left = p->bytes - at, bytes = left < PIECE_BYTES ? left : PIECE_BYTES;

        BASE_TRY(comm_allgather(group, data + at, bytes, all));
        for (int r = 0; r < comm_group_size(group); r++)
            for (int64_t i = 0; i < bytes; i++)
                data[at + i] |= all[r * bytes + i];
    }
    return BASE_OK;
}

static base_status_t merge_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                void *user)
{
    const merge_t *m = user;
    unsigned char *all = calloc((size_t)comm_group_size(group), PIECE_BYTES);
    base_status_t st = all == NULL ? BASE_ERR_NOMEM : BASE_OK;

    (void)ctx;
    (void)dev;
    for (int i = 0; i < m->num_pieces && st >= 0; i++)
        st = merge_piece(group, &m->pieces[i], all);
    free(all);
    return st;
}

void mpi_world_merge(const mpi_piece_t *pieces, int num_pieces)
{
    const comm_mpi_options_t options = {.device = BASE_DEVICE_CPU};
    merge_t m = {pieces, num_pieces};

    if (world.mpi != NULL && comm_mpi_run(world.mpi, &options, merge_rank, &m, NULL) < 0)
        give_up("results of the ranks could not be merged");
}
