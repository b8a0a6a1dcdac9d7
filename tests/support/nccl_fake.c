#include "tests/support/nccl_fake.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"
#include "base/shared_memory.h"
#include "comm/nccl_link.h"

#include <stdlib.h>
#include <string.h>

#define MAX_RANKS 8
#define BOX_BYTES 4096 /* of one message's part: small, so that messages take many */
#define MAX_LINKS 64   /* that rank 0 has made and not opened yet */
#define NAP_NS    20000

/* From one rank to another: a part is here when written > read. */
typedef struct box {
    uint64_t written, read; /* atomic builtins */
    int64_t bytes;          /* of the part */
    unsigned char part[BOX_BYTES];
} box_t;

typedef struct post_office {
    box_t boxes[MAX_RANKS][MAX_RANKS]; /* [from][to] */
} post_office_t;

struct comm_nccl_link {
    base_ctx_t *ctx;
    int rank;
    int aborted;                  /* atomic builtins */
    base_shared_t *memory, *made; /* made: rank 0's own */
    post_office_t *office;
};

static struct made {
    base_shared_t *memory;
} made[MAX_LINKS];

void nccl_fake_link(void)
{
}

int comm_nccl_link_carries(base_device_kind_t kind)
{
    return kind != BASE_DEVICE_CUDA;
}

base_status_t comm_nccl_link_id(base_ctx_t *ctx, comm_nccl_id_t *id)
{
    int i = 0;

    while (i < MAX_LINKS && made[i].memory != NULL)
        i++;
    if (i == MAX_LINKS) return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "fake: links");
    BASE_TRY(base_shared_create(ctx, sizeof(post_office_t), NULL, "fake", &made[i].memory));
    const base_shared_name_t name = base_shared_name(made[i].memory);
    memset(id, 0, sizeof *id);
    memcpy(id->bytes, &name, sizeof name);
    return BASE_OK;
}

base_status_t comm_nccl_link_open(base_device_t *dev, int rank, int size, const comm_nccl_id_t *id,
                                  comm_nccl_link_t **link_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    comm_nccl_link_t *link = base_calloc(ctx, 1, sizeof *link, "fake");
    base_shared_name_t name;

    if (link == NULL) return BASE_ERR_NOMEM;
    link->ctx = ctx;
    link->rank = rank;
    memcpy(&name, id->bytes, sizeof name);
    const base_status_t st = size > MAX_RANKS
                                 ? BASE_ERR_UNSUPPORTED
                                 : base_shared_open(ctx, &name, NULL, "fake", &link->memory);
    if (st < 0) {
        base_free(ctx, link);
        return st;
    }
    link->office = base_shared_address(link->memory);
    for (int i = 0; i < MAX_LINKS && rank == 0; i++)
        if (made[i].memory != NULL && base_shared_name(made[i].memory).inode == name.inode) {
            link->made = made[i].memory;
            made[i].memory = NULL;
        }
    *link_p = link;
    return BASE_OK;
}

typedef struct group {
    comm_nccl_link_t *link;
    comm_nccl_piece_t *pieces; /* freed by the work */
    int64_t *at;               /* bytes moved of each */
    int num;
} group_t;

/* Moves one part of a piece, if there is room or something has come. */
static int step(comm_nccl_link_t *link, const comm_nccl_piece_t *p, int64_t *at)
{
    box_t *box = p->is_send ? &link->office->boxes[link->rank][p->peer]
                            : &link->office->boxes[p->peer][link->rank];
    const int is_full = __atomic_load_n(&box->written, __ATOMIC_ACQUIRE) !=
                        __atomic_load_n(&box->read, __ATOMIC_ACQUIRE);
    int64_t bytes = p->bytes - *at < BOX_BYTES ? p->bytes - *at : BOX_BYTES;

    if (is_full == p->is_send) return 0;
    if (!p->is_send && box->bytes != bytes) abort(); /* messages that do not match */
    const base_operand_t operand = {{base_mem_at(p->mem, *at), bytes, 1, bytes},
                                    p->is_send ? BASE_READ : BASE_WRITE};
    unsigned char *memory = base_mem_address(operand.range.mem);
    base_host_open(&operand, 1);
    if (p->is_send)
        memcpy(box->part, memory, (size_t)bytes);
    else
        memcpy(memory, box->part, (size_t)bytes);
    base_host_close(&operand, 1);
    if (p->is_send) box->bytes = bytes;
    (void)__atomic_add_fetch(p->is_send ? &box->written : &box->read, 1, __ATOMIC_ACQ_REL);
    *at += bytes;
    return 1;
}

/* Whether a message of the same peer and direction comes before piece i. */
static int is_behind(const group_t *g, int i)
{
    for (int k = 0; k < i; k++)
        if (g->at[k] < g->pieces[k].bytes && g->pieces[k].peer == g->pieces[i].peer &&
            g->pieces[k].is_send == g->pieces[i].is_send)
            return 1;
    return 0;
}

static base_status_t group_work(void *args)
{
    const group_t *g = args;
    base_status_t st = BASE_OK;
    int left = 1;

    while (left && st >= 0) {
        int moved = 0;

        left = 0;
        for (int i = 0; i < g->num; i++) {
            if (g->at[i] == g->pieces[i].bytes) continue;
            if (!is_behind(g, i)) moved |= step(g->link, &g->pieces[i], &g->at[i]);
            left |= g->at[i] < g->pieces[i].bytes;
        }
        if (__atomic_load_n(&g->link->aborted, __ATOMIC_ACQUIRE)) st = BASE_ERR_PEER;
        if (!moved && left) base_clock_sleep_ns(NAP_NS);
    }
    free(g->pieces);
    free(g->at);
    return st;
}

base_status_t comm_nccl_link_move(comm_nccl_link_t *link, base_stream_t *stream,
                                  const comm_nccl_piece_t *pieces, int num)
{
    group_t g = {.link = link, .num = num};

    if (num == 0) return BASE_OK;
    g.pieces = malloc((size_t)num * sizeof *pieces);
    g.at = calloc((size_t)num, sizeof *g.at);
    if (g.pieces == NULL || g.at == NULL) abort();
    memcpy(g.pieces, pieces, (size_t)num * sizeof *pieces);
    return base_stream_submit(stream, group_work, &g, sizeof g, NULL, 0);
}

base_status_t comm_nccl_link_check(comm_nccl_link_t *link)
{
    (void)link;
    return BASE_OK;
}

void comm_nccl_link_abort(comm_nccl_link_t *link)
{
    if (link != NULL) __atomic_store_n(&link->aborted, 1, __ATOMIC_RELEASE);
}

void comm_nccl_link_close(comm_nccl_link_t *link)
{
    if (link == NULL) return;
    base_shared_close(link->memory);
    base_shared_close(link->made);
    base_free(link->ctx, link);
}
