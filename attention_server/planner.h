/* The planner: cuts the documents of a microbatch into CA-tasks and gives them to servers, so that
 * no server is busy much longer than any plan could make it, and few bytes go over the busiest link.
 * docs/planner.md has the algorithm, its complexity and what it reaches.
 *
 *   as_planner_create(ctx, &config, &planner);
 *   as_planner_run(planner, batch, plan, &score);      once for each microbatch
 *   as_planner_destroy(planner);
 *
 * A pure function of layout and configuration, in 64-bit integers with total tie-break orders:
 * every rank, compiler and machine gets the same plan. Nothing is allocated after creation. One
 * thread at a time; planners share nothing. */
#ifndef CADRE_ATTENTION_SERVER_PLANNER_H
#define CADRE_ATTENTION_SERVER_PLANNER_H

#include "attention_server/plan_judge.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Terms of the objective that can be left out, to see what they are worth. */
enum {
    AS_WITHOUT_LINKS = 1,       /* what moves, and whereto, is chosen without counting bytes */
    AS_WITHOUT_GRID = 2,        /* cuts at any multiple of 16 rows: such a plan is not finished (no
                                 as_plan_finish) and only fit to be judged */
    AS_WITHOUT_RESIDENCY = 4,   /* as if rows and keys lay on another server than they do */
    AS_WITHOUT_BOTH_HALVES = 8, /* each half balanced by itself */
    AS_WITHOUT_TIERS = 16,      /* no preference for the document's own host */
    AS_WITHOUT_EACH_HALF = 32   /* only the sum of both halves is balanced */
};

typedef struct as_planner_config {
    const as_machine_t *machine; /* borrowed, with what it borrows */
    const as_cost_t *cost;       /* borrowed; of the window that is planned */
    int32_t num_kv_heads;
    int32_t cut_heads; /* 1: tasks may hold some of the KV heads */
    int32_t retain;    /* 1: tasks are retained where retain_bytes allows it; 0: all are resent */
    /* 0: the cuts are a function of the layout alone, as if every trainer were a server of equal
     * speed without limits of memory; the servers decide only who gets what. Then dk and dv have
     * the same bits whichever servers compute (placement invariance, docs/design.md), as long as
     * memory suffices.
     * 1: cut for the servers there are. */
    int32_t cuts_follow_servers;
    int32_t without;                   /* AS_WITHOUT_* */
    int32_t max_documents, max_pieces; /* of a batch */
} as_planner_config_t;

typedef struct as_planner as_planner_t;

base_status_t as_planner_create(base_ctx_t *ctx, const as_planner_config_t *config,
                                as_planner_t **planner_p) BASE_MUST_CHECK;
void as_planner_destroy(as_planner_t *planner);

/* A plan of this capacity suffices for every batch of so many pieces. */
int32_t as_planner_max_tasks(const as_planner_t *planner);

/* Fills and finishes `plan` and judges it. A plan that would take more than the machine's memory is
 * made again for less, where cuts follow the servers, and at last with every piece whole on the
 * nearest server and all tasks resent (score->at_home), which never takes more than
 * as_planner_home_bytes. BASE_ERR_ARG for a batch or plan that does not fit the configuration;
 * BASE_ERR_NOMEM (MEM-01) when a machine has less memory than even that takes. */
base_status_t as_planner_run(as_planner_t *planner, const data_batch_t *batch, as_plan_t *plan,
                             as_score_t *score) BASE_MUST_CHECK;

/* Scratch with which a plan of last resort suffices for every batch whose documents have at most
 * `longest` rows and whose trainers have at most max_rows rows of a half: of a server's rank, and of
 * a rank that only trains (0 where there is none). For layouts of lora_pack_fast, some of which take
 * as much; plan_home.c derives it. */
typedef struct as_home_bytes {
    int64_t server, trainer;
} as_home_bytes_t;
as_home_bytes_t as_planner_home_bytes(const as_planner_t *planner, int64_t longest,
                                      int64_t max_rows);

/* What to give the machine: so much more that hardly any plan is replaced, in particular none whose
 * cuts are to be the same on other servers. */
as_home_bytes_t as_planner_staging_bytes(const as_planner_t *planner, int64_t longest,
                                         int64_t max_rows);

/* The judge that as_planner_run asked last, for what a score does not say. */
const as_judge_t *as_planner_judge(const as_planner_t *planner);

#ifdef __cplusplus
}
#endif
#endif
