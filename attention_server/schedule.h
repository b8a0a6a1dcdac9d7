/* What one rank does with a plan: derived once per microbatch and attention kind, used by every
 * layer of that kind. Private to attention_server/.
 *
 * Both sides of an exchange derive their lists from the same plan: transfers are enumerated in one
 * canonical order (tasks ascending, then KV runs ascending, then pieces, then KV heads) and each
 * rank keeps those in which it takes part, so the k-th range a rank sends to a peer is the k-th
 * that peer receives.
 *
 * Places are kept as {region, half, byte offset} and become addresses per layer (schedule_resolve),
 * since a layer's tensors are known only when they are given to the seam. Offsets for kernels are
 * elements from a region's base. */
#ifndef CADRE_ATTENTION_SERVER_SCHEDULE_H
#define CADRE_ATTENTION_SERVER_SCHEDULE_H

#include "attention_server/attention.h"
#include "attention_server/list.h"

typedef enum as_region {
    /* the trainer's tensors of a half, one layer */
    AS_REGION_Q,
    AS_REGION_K,
    AS_REGION_V,
    AS_REGION_O,
    AS_REGION_LSE,
    AS_REGION_D_O,
    AS_REGION_DELTA, /* the seam's own, one per half */
    AS_REGION_DQ,
    AS_REGION_DK,
    AS_REGION_DV,
    AS_REGION_SCRATCH, /* staged pieces of one attention kind, both halves */
    AS_REGION_KEEP,    /* retained pieces, one layer */
    AS_NUM_REGIONS
} as_region_t;

typedef struct as_bases {
    base_mem_t mem[DATA_NUM_HALVES][AS_NUM_REGIONS];
} as_bases_t;

/* Sizes that the schedule needs of the seam's configuration. */
typedef struct as_shape {
    int32_t group, head_dim, num_kv_heads; /* R, D, G */
    int32_t sums_per_server;               /* as_attention_config_t */
    kern_dtype_t dtype;
    int64_t workspace_bytes; /* of a backward launch at most; 0: none */
    int64_t real_bytes, acc_bytes;
    int64_t head_rows, o_pitch, d_o_pitch;
} as_shape_t;

/* The four exchanges of a half. */
typedef enum as_leg { AS_FWD_OUT, AS_FWD_BACK, AS_BWD_OUT, AS_BWD_BACK, AS_NUM_LEGS } as_leg_t;

/* One end of a transfer, on this rank. */
typedef struct as_entry {
    int32_t peer;                           /* rank */
    int16_t send;                           /* 1: from here, 0: to here */
    int8_t region;                          /* as_region_t */
    int8_t half;                            /* of the region */
    int64_t offset, row_bytes, rows, pitch; /* bytes */
} as_entry_t;

/* A leg's entries, grouped by peer; within a peer first what is sent, then what is received, in
 * canonical order. */
typedef struct as_peer_span {
    int32_t rank, num_send, num_recv;
    int64_t first; /* entry */
} as_peer_span_t;
typedef struct as_exchange {
    as_list_t entries; /* as_entry_t */
    as_list_t peers;   /* as_peer_span_t, ascending rank */
    int64_t sent_bytes;
} as_exchange_t;

/* Contiguous keys of a document on a server that some of its tasks share: rows [k0, k1) of KV heads
 * [h0, h1), stored (h1 - h0, k1 - k0, D) for k and the same for v. Tasks that read keys where they
 * are belong to no run. */
typedef struct as_run {
    int32_t server, document;
    int32_t h0, h1;
    int32_t retained; /* lies in KEEP, is sent in the forward only */
    int32_t spans;    /* has keys in ping and a task in pong */
    int64_t k0, k1;
    int64_t first_member, num_members; /* into run_members: task indices */
    int64_t k_offset;                  /* bytes in SCRATCH or KEEP, on its server */
} as_run_t;

/* What the schedule knows of each task of the plan. */
typedef struct as_task_info {
    int32_t owner_rank, server_rank;
    int32_t half;
    int32_t in_place; /* keys are read in the trainer's tensors */
    int32_t run;      /* -1 when in place */
    int32_t
        real; /* here: rounds its dk, dv itself; in place into the trainer's tensors (partials.c) */
    int64_t local_row;
    /* offsets in bytes, only where this rank is the server */
    int64_t q, o, lse, d_o,
        delta;       /* staged q, (o, later dq), lse, d_o, delta; q and lse in KEEP when retained */
    int64_t partial; /* dk of this task in SCRATCH, acc or real; dv lies partial_stride behind */
} as_task_info_t;

/* Rows [row0, row1) of a run that some task of one KV head needs; row1 0: none does. */
typedef struct as_need {
    int64_t row0, row1;
    int32_t has_ping; /* one of those tasks is in ping */
    int32_t only;     /* the one task that does; -1: several or none */
} as_need_t;

/* One end's place of a transfer: a region and a 2-D range in it. */
typedef struct as_place {
    as_region_t region;
    int half;
    int64_t offset, pitch;
} as_place_t;

/* With sums_per_server: dk and dv of a run over rows [row0, row0 + rows) of KV heads [h0, h1), all
 * in one piece of another rank than the run's server, which adds its tasks' and sends this. */
typedef struct as_grad {
    int32_t run, piece;
    int32_t h0, h1;
    int32_t half;     /* with whose results it travels */
    int32_t received; /* 1: to here; 0: from here */
    int64_t row0, rows;
    int64_t offset; /* bytes of dk in SCRATCH: (h1 - h0, rows, D) real; dv partial_stride behind */
} as_grad_t;

/* What goes into a sum of dk: rows [row0, row1) of a document and KV heads [h0, h1), at `src`
 * elements of SCRATCH, heads src_head apart; dv likewise behind it. */
typedef struct as_term {
    int64_t row0, row1;
    int32_t h0, h1;
    int64_t src, src_head;
    int32_t real;   /* an as_grad_t or a task that is real; else partial sums of a task (acc) */
    int32_t placed; /* lies where the sum belongs, and nothing else goes into it */
} as_term_t;

/* A copy on this rank: keys that are here already go to a run. */
typedef struct as_local_copy {
    int8_t half;          /* of the rows */
    int8_t backward_half; /* half in whose backward serve it runs; -1: not in the backward */
    int8_t to_region;
    int8_t reserved;
    int64_t from, to; /* byte offsets in K and the run; v likewise, `to_v` */
    int64_t to_v;
    int64_t row_bytes, rows, from_pitch, to_pitch;
} as_local_copy_t;

/* A kernel call: tasks with common bases, and the exchanges that it waits for. */
typedef struct as_wait {
    int32_t half, peer;
} as_wait_t;
typedef struct as_launch {
    int32_t half;
    int32_t remote;   /* q staged here; 0: in the trainer's tensors */
    int32_t retained; /* remote: q and lse in KEEP */
    int8_t kv_region; /* K (in place), SCRATCH or KEEP */
    int8_t reserved[3];
    int64_t first_task, num_tasks;         /* into kernel_tasks */
    int64_t first_wait, num_waits;         /* forward */
    int64_t first_bwd_wait, num_bwd_waits; /* backward */
} as_launch_t;

/* Sort keys of the build. */
typedef struct as_run_key {
    int32_t server, document;
    int64_t k0;
    int32_t task;
} as_run_key_t;

/* Tasks with the same key, apart from the task itself, make one launch. Tasks whose rows are here
 * come first: they wait for nothing, or for keys only. Then one launch per owner, so that a task
 * starts when its own inputs are there. */
typedef struct as_launch_key {
    int32_t half, remote, kv_region, retained, owner;
    int32_t task;
} as_launch_key_t;

typedef struct as_sort_entry {
    int64_t order; /* canonical */
    as_entry_t entry;
} as_sort_entry_t;

typedef struct as_schedule {
    const data_batch_t *batch;
    const as_topology_t *topology;
    const as_plan_t *plan;
    as_shape_t shape;
    int rank;

    as_list_t info;        /* as_task_info_t, by task */
    as_list_t run_keys;    /* as_run_key_t of the tasks that need runs */
    as_list_t runs;        /* as_run_t, ascending (server, document, k0) */
    as_list_t run_members; /* int32_t */
    as_exchange_t legs[DATA_NUM_HALVES][AS_NUM_LEGS];
    as_list_t sort_entries;           /* as_sort_entry_t */
    as_list_t copies;                 /* as_local_copy_t */
    as_list_t kernel_tasks;           /* kern_attention_task_t */
    as_list_t launch_keys;            /* as_launch_key_t */
    as_list_t launches;               /* as_launch_t, by half */
    as_list_t waits;                  /* as_wait_t */
    as_list_t received;               /* as_received_t, ascending (task, piece) */
    as_list_t grads;                  /* as_grad_t, ascending (run, heads, piece) */
    as_list_t terms;                  /* as_term_t of the sum at hand */
    as_list_t row_cuts, head_cuts;    /* int64_t */
    as_list_t sums[DATA_NUM_HALVES];  /* kern_sum_t, of the owner's rows */
    as_list_t parts[DATA_NUM_HALVES]; /* kern_sum_part_t */
    /* of the server, for what it sends */
    as_list_t server_sums[DATA_NUM_HALVES], server_parts[DATA_NUM_HALVES];
    as_list_t pads[DATA_NUM_HALVES]; /* as_pad_t */

    int64_t scratch_bytes, keep_bytes; /* needed on this rank; keep: one layer */
    int64_t run_stride;                /* from k to v of a run in SCRATCH */
    int64_t keep_stride;               /* and in KEEP */
    int64_t partial_stride;            /* from dk to dv, of tasks and of as_grad_t */
    int64_t tasks_here, local_tasks;
} as_schedule_t;

/* A remote task's partial dk over the rows of one piece of this trainer: (heads of the task, rows,
 * D) acc. */
typedef struct as_received {
    int32_t task, piece;
    int64_t row0, rows;
    int64_t offset; /* bytes of dk in SCRATCH; dv partial_stride behind */
} as_received_t;

/* Local rows without a document. */
typedef struct as_pad {
    int64_t row, rows;
} as_pad_t;

void as_schedule_init(as_schedule_t *s, base_ctx_t *ctx, const as_topology_t *topology,
                      const as_shape_t *shape, int rank);
void as_schedule_deinit(as_schedule_t *s);
/* Room for plans of so many tasks, so that no later microbatch allocates (exchange entries: about
 * four a task; a plan with many runs may still grow a list). */
base_status_t as_schedule_reserve(as_schedule_t *s, int32_t max_tasks) BASE_MUST_CHECK;

/* Derives everything. Borrows batch and plan. */
base_status_t as_schedule_build(as_schedule_t *s, const data_batch_t *batch,
                                const as_plan_t *plan) BASE_MUST_CHECK;

/* The steps of the build, one file each. */
base_status_t as_schedule_runs(as_schedule_t *s)
    BASE_MUST_CHECK; /* runs.c: task info, KV runs, storage on the server */
base_status_t as_schedule_transfers(as_schedule_t *s)
    BASE_MUST_CHECK; /* transfers.c: exchange lists, local copies */
base_status_t as_schedule_launches(as_schedule_t *s)
    BASE_MUST_CHECK; /* launches.c: kernel tasks and their waits */
base_status_t
as_schedule_sums(as_schedule_t *s) BASE_MUST_CHECK; /* sums.c: dk, dv of the owner's rows */
/* Within as_schedule_transfers: partials.c: where tasks leave dk and dv, and without
 * sums_per_server their way home; within that, grads.c: the way home of a server's sums. */
base_status_t as_schedule_partials(as_schedule_t *s) BASE_MUST_CHECK;
base_status_t as_schedule_grads(as_schedule_t *s) BASE_MUST_CHECK;
/* Within as_schedule_sums, grads.c: what the server adds before it sends. */
base_status_t as_schedule_server_sums(as_schedule_t *s) BASE_MUST_CHECK;

as_need_t as_run_need(const as_schedule_t *s, const as_run_t *run, int32_t h);
/* First task of `document` in the plan, whose tasks are sorted by document. */
int32_t as_first_task(const as_plan_t *plan, int32_t document);

/* A transfer of rows x row_bytes from `from` on rank `src` to `to` on rank `dst`, kept when this
 * rank is one of them. A place is only looked at on the rank where it lies. */
base_status_t as_schedule_transfer(as_schedule_t *s, as_exchange_t *leg, int32_t src, int32_t dst,
                                   const as_place_t *from, const as_place_t *to, int64_t row_bytes,
                                   int64_t rows) BASE_MUST_CHECK;

/* Adds sums of the terms s->terms, in their order, over a block of rows and heads: one for each part
 * of the block in which every term covers all or nothing, none where that is placed. dst: elements of the
 * block's first row. */
typedef struct as_block {
    int64_t row0, row1;
    int32_t h0, h1;
    int64_t dst, dst_head;
} as_block_t;
base_status_t as_add_block_sums(as_schedule_t *s, const as_block_t *block, as_list_t *sums,
                                as_list_t *parts) BASE_MUST_CHECK;
/* The term of a task that is served here. */
as_term_t as_task_term(const as_schedule_t *s, int32_t task);

static inline as_task_info_t *as_info(const as_schedule_t *s, int64_t task)
{
    return (as_task_info_t *)s->info.items + task;
}

static inline int64_t as_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t as_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Storage offsets are multiples of this, so that they are whole elements of every dtype and rows of
 * a line. */
#define AS_ALIGN 256
#define AS_PAGE  4096
static inline int64_t as_page(int64_t bytes)
{
    return (bytes + AS_PAGE - 1) / AS_PAGE * AS_PAGE;
}

static inline int64_t as_align(int64_t bytes)
{
    return (bytes + AS_ALIGN - 1) / AS_ALIGN * AS_ALIGN;
}

#endif
