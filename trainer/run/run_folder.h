/* The folder of a run: `output` of the configuration, and where everything in it lies.
 *
 *   tr_run_folder_t *folder;
 *   BASE_TRY(tr_run_folder_create(ctx, config, resume, &folder));
 *   ... with resume: compare with the run that it holds (resume.h) ...
 *   BASE_TRY(tr_run_folder_take_config(folder, config));
 *   BASE_TRY(tr_manifest_write(ctx, folder, &manifest));       from here on it holds a run
 *   ... tr_run_folder_path(folder, TR_RUN_METRICS) ...
 *   tr_run_folder_destroy(folder);
 *
 * A folder holds a run when it has a run.json, a metrics.jsonl or checkpoints. config.yaml,
 * status.json, and the folders adapters, logs and prepared do not make it one: `cadre prepare`
 * leaves some of them before training, and a start that failed on its data may be repeated with the
 * same command.
 *
 * One process at a time works in the folder: it is locked (flock) until destroy, or until the
 * process ends however it ends. A file system that cannot lock is taken as it is.
 *
 * Rank 0 creates; the other ranks join after it has. Not thread-safe. Paths are as `output` says, relative ones to the folder the process
 * was started in, which it must not leave. */
#ifndef CADRE_TRAINER_RUN_RUN_FOLDER_H
#define CADRE_TRAINER_RUN_RUN_FOLDER_H

#include "base/config/config.h"
#include "base/context.h"

#include <stdbool.h>

/* X(name, path below output) */
#define TR_RUN_ENTRY_MAP(X)                                                                        \
    X(CONFIG, "config.yaml")    /* resolved: every key with its value */                           \
    X(MANIFEST, "run.json")     /* manifest.h */                                                   \
    X(STATUS, "status.json")    /* run_status.h */                                                 \
    X(METRICS, "metrics.jsonl") /* metrics.h */                                                    \
    X(ADAPTERS, "adapters")     /* one folder an adapter, when it ends */                          \
    X(MODEL, "model")           /* train.mode full: the trained model */                           \
    X(PREPARED, "prepared")     /* datasets made by `cadre prepare` */                             \
    X(PRODUCTS, "products.bin") /* product_choices.h: on a GPU */                                  \
    X(CHECKPOINTS, "checkpoints")                                                                  \
    X(LOGS, "logs") /* rank-0000.log and so on */

typedef enum tr_run_entry {
#define X(name, path) TR_RUN_##name,
    TR_RUN_ENTRY_MAP(X)
#undef X
        TR_RUN_ENTRY_COUNT
} tr_run_entry_t;

typedef struct tr_run_folder tr_run_folder_t;

/* Creates the folder with logs/ (and adapters/ for train.mode lora), takes the lock and sends the
 * log of `ctx` to logs/rank-NNNN.log (appending). Rank 0. `config` is not kept.
 * Without `resume` a folder that holds a run is BASE_ERR_CONFIG (RUN-01) and is left as it is; with
 * it both are fine, and tr_run_folder_resumed says which one it was. RUN-02: another process works
 * in it. RUN-03: it is the folder of the model, or lies inside it, or what is trained would take the
 * place of the model. RUN-11: a run would begin there
 * and its config.yaml take the place of one that no run wrote. IO-02 for what the system refuses. The caller owns *folder_p. */
base_status_t tr_run_folder_create(base_ctx_t *ctx, const base_config_t *config, bool resume,
                                   tr_run_folder_t **folder_p) BASE_MUST_CHECK;
/* The same folder on another rank, after it has been created: neither locks nor writes. `own_log`:
 * of a rank that is a process, whose log goes to logs/rank-NNNN.log. The caller owns *folder_p. */
base_status_t tr_run_folder_join(base_ctx_t *ctx, const base_config_t *config, bool own_log,
                                 tr_run_folder_t **folder_p) BASE_MUST_CHECK;
/* Gives the lock back; the files stay. NULL is legal. */
void tr_run_folder_destroy(tr_run_folder_t *folder);

/* Writes config.yaml. Rank 0. */
base_status_t tr_run_folder_take_config(const tr_run_folder_t *folder,
                                        const base_config_t *config) BASE_MUST_CHECK;

/* True when `resume` was asked for and there was a run to continue. */
bool tr_run_folder_resumed(const tr_run_folder_t *folder);

/* `output` itself, and the path of an entry below it: borrowed, valid until destroy. */
const char *tr_run_folder_root(const tr_run_folder_t *folder);
const char *tr_run_folder_path(const tr_run_folder_t *folder, tr_run_entry_t entry);

/* output/adapters/NAME. The caller owns *path_p (base_free). The folder is not created. */
base_status_t tr_run_folder_adapter(const tr_run_folder_t *folder, const char *name,
                                    char **path_p) BASE_MUST_CHECK;

#endif
