#include "tests/support/nccl_fake.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"
#include "base/shared_memory.h"
#include "comm/nccl_meet.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RANKS 8
#define BOX_BYTES 4096 /* of one message's part: small, so that messages take many */
#define MAX_LINKS 64   /* that rank 0 has made last */
#define NAP_NS    20000
#define LOOKS     3 /* for which a non-blocking communicator is in progress */

/* From one rank to another: a part is here when written > read. */
typedef struct box {
    uint64_t written, read; /* atomic builtins */
    int64_t bytes;          /* of the part */
    unsigned char part[BOX_BYTES];
} box_t;

typedef struct post_office {
    int joined;                        /* atomic builtins: ranks that have come to meet */
    box_t boxes[MAX_RANKS][MAX_RANKS]; /* [from][to] */
} post_office_t;

struct ncclComm {
    int looks;             /* that are left of those for which it is in progress */
    post_office_t *office; /* it is in progress until `size` ranks have come; NULL: one alone */
    int size;
    ncclResult_t last;      /* what it says then */
    ncclComm_t child;       /* that is being split off */
    ncclComm_t *child_to;   /* where its handle is written at the end */
    ncclResult_t child_end; /* how that goes */
};

struct comm_nccl_link {
    comm_nccl_caller_t who;
    ncclComm_t comm;
    int aborted, hangs;           /* atomic builtins */
    base_shared_t *memory, *made; /* made: rank 0's own */
    post_office_t *office;
};

/* What rank 0 has made and no link has taken. Nobody says that none will: what is older than MAX_LINKS is forgotten. */
static struct made {
    base_ctx_t *ctx; /* outlives all groups, as what NCCL keeps of an id does */
    base_shared_t *of[MAX_LINKS];
    int num;
} made;

static nccl_fake_moves_t moves; /* atomic builtins */

void nccl_fake_link(void)
{
}

static nccl_fake_meets_t meets;
static post_office_t *meeting; /* of the link that is being opened */
static int alive;

void nccl_fake_meets(nccl_fake_meets_t how)
{
    meets = how;
}

int nccl_fake_alive(void)
{
    return __atomic_load_n(&alive, __ATOMIC_ACQUIRE);
}

void nccl_fake_moves(nccl_fake_moves_t how)
{
    __atomic_store_n(&moves, how, __ATOMIC_RELEASE);
}

int comm_nccl_link_carries(base_device_kind_t kind)
{
    return kind != BASE_DEVICE_CUDA;
}

base_status_t comm_nccl_link_id(base_ctx_t *ctx, comm_nccl_id_t *id)
{
    base_shared_t **memory = &made.of[made.num++ % MAX_LINKS];

    (void)ctx;
    if (made.ctx == NULL && base_ctx_create(0, 1, NULL, &made.ctx) < 0) abort();
    base_shared_close(*memory);
    *memory = NULL;
    BASE_TRY(base_shared_create(made.ctx, sizeof(post_office_t), NULL, "fake", memory));
    const base_shared_name_t name = base_shared_name(*memory);
    memset(id, 0, sizeof *id);
    memcpy(id->bytes, &name, sizeof name);
    return BASE_OK;
}

/* ==== NCCL ==== */

const char *ncclGetErrorString(ncclResult_t r)
{
    return r == ncclSuccess ? "no error" : "fake error";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return "of the fake";
}

static ncclComm_t new_comm(int looks)
{
    ncclComm_t comm = calloc(1, sizeof *comm);

    if (comm == NULL) abort();
    comm->looks = looks;
    (void)__atomic_add_fetch(&alive, 1, __ATOMIC_ACQ_REL);
    return comm;
}

static void free_comm(ncclComm_t comm)
{
    if (comm == NULL) return;
    (void)__atomic_sub_fetch(&alive, 1, __ATOMIC_ACQ_REL);
    free(comm);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm_p, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    (void)id;
    if (size > MAX_RANKS || rank >= size || config->blocking != 0) return ncclInvalidArgument;
    if (meets == NCCL_FAKE_REFUSES_TO) return ncclSystemError;
    *comm_p = new_comm(meets == NCCL_FAKE_WAITS ? INT_MAX : LOOKS);
    (*comm_p)->office = meeting;
    (*comm_p)->size = size;
    if (meeting != NULL) (void)__atomic_add_fetch(&meeting->joined, 1, __ATOMIC_ACQ_REL);
    (*comm_p)->last = meets == NCCL_FAKE_BREAKS ? ncclSystemError : ncclSuccess;
    return ncclInProgress;
}

/* As NCCL 2.28 does it: it returns success while the split goes on, and the handle is NULL until it has ended. */
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *comm_p,
                           ncclConfig_t *config)
{
    const char *fails = getenv("CADRE_NCCL_FAKE_SPLIT_FAILS"); /* on this rank */

    *comm_p = NULL;
    if (color < 0 || config->blocking != 1 || comm->looks > 0 || comm->last != ncclSuccess)
        return ncclInvalidArgument;
    comm->child = new_comm(0);
    comm->child_to = comm_p;
    comm->child_end =
        fails != NULL && strtol(fails, NULL, 10) == key ? ncclSystemError : ncclSuccess;
    comm->looks = LOOKS;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *r)
{
    *r = ncclInProgress;
    if (comm->office != NULL &&
        __atomic_load_n(&comm->office->joined, __ATOMIC_ACQUIRE) < comm->size)
        return ncclSuccess;
    if (comm->looks > 0 && --comm->looks == 0 && comm->child != NULL) {
        *comm->child_to = comm->child; /* also when it failed */
        comm->last = comm->child_end;
        comm->child = NULL;
    }
    *r = comm->looks > 0 ? ncclInProgress : comm->last;
    return ncclSuccess;
}

/* One that is in progress cannot be destroyed. */
ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (comm == NULL) return ncclSuccess;
    if (comm->looks > 0) return ncclInvalidArgument;
    free_comm(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    if (comm == NULL) return ncclSuccess;
    free_comm(comm->child);
    free_comm(comm);
    return ncclSuccess;
}

/* ==== a link ==== */

/* Rank 0 keeps what it has made as long as the link. */
static void take_made(comm_nccl_link_t *link, const base_shared_name_t *name)
{
    for (int i = 0; i < MAX_LINKS && link->who.rank == 0; i++) {
        if (made.of[i] == NULL || base_shared_name(made.of[i]).inode != name->inode) continue;
        link->made = made.of[i];
        made.of[i] = NULL;
    }
}

base_status_t comm_nccl_link_open(base_device_t *dev, int rank, int size, const comm_nccl_id_t *id,
                                  comm_nccl_way_t way, comm_nccl_link_t **link_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    comm_nccl_link_t *link = base_calloc(ctx, 1, sizeof *link, "fake");
    base_shared_name_t name;

    if (link == NULL) return BASE_ERR_NOMEM;
    link->who = (comm_nccl_caller_t){.ctx = ctx, .rank = rank};
    memcpy(&name, id->bytes, sizeof name);
    base_status_t st = base_shared_open(ctx, &name, NULL, "fake", &link->memory);
    if (st >= 0) {
        meeting = base_shared_address(link->memory);
        st = comm_nccl_meet(&link->who, size, id, way, &link->comm);
        meeting = NULL;
    }
    if (st == BASE_OK) {
        take_made(link, &name);
        link->office = base_shared_address(link->memory);
        *link_p = link;
    } else {
        comm_nccl_link_close(link);
    }
    return st;
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
    box_t *box = p->is_send ? &link->office->boxes[link->who.rank][p->peer]
                            : &link->office->boxes[p->peer][link->who.rank];
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
        const int hangs = __atomic_load_n(&g->link->hangs, __ATOMIC_ACQUIRE);
        int moved = 0;

        left = hangs;
        for (int i = 0; i < g->num && !hangs; i++) {
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
    if (link->comm == NULL)
        return comm_nccl_failed(&link->who, ncclInvalidArgument, "comm argument is NULL");
    if (__atomic_load_n(&moves, __ATOMIC_ACQUIRE) == NCCL_FAKE_REFUSES)
        return comm_nccl_failed(&link->who, ncclSystemError, "ncclGroupEnd");
    if (__atomic_load_n(&moves, __ATOMIC_ACQUIRE) == NCCL_FAKE_HANGS)
        __atomic_store_n(&link->hangs, 1, __ATOMIC_RELEASE);
    g.pieces = malloc((size_t)num * sizeof *pieces);
    g.at = calloc((size_t)num, sizeof *g.at);
    if (g.pieces == NULL || g.at == NULL) abort();
    memcpy(g.pieces, pieces, (size_t)num * sizeof *pieces);
    return base_stream_submit(stream, group_work, &g, sizeof g, NULL, 0);
}

base_status_t comm_nccl_link_check(comm_nccl_link_t *link)
{
    return __atomic_load_n(&link->hangs, __ATOMIC_ACQUIRE)
               ? comm_nccl_failed(&link->who, ncclSystemError, "a transfer")
               : BASE_OK;
}

void comm_nccl_link_abort(comm_nccl_link_t *link)
{
    if (link != NULL) __atomic_store_n(&link->aborted, 1, __ATOMIC_RELEASE);
}

void comm_nccl_link_close(comm_nccl_link_t *link)
{
    if (link == NULL) return;
    (void)ncclCommDestroy(link->comm);
    base_shared_close(link->memory);
    base_shared_close(link->made);
    base_free(link->who.ctx, link);
}
