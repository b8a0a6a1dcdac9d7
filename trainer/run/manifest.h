/* run.json, the manifest: what a run was made of, so that it can be repeated and its adapters
 * traced.
 *
 *   {"format": 1,
 *    "program": {"version", "commit", "preset", "compiler"},
 *    "command": ["cadre", "train", "run.yaml"], "folder": "/home/a", "start_time": "2026-...Z",
 *    "resumed": false, "host": "n17", "cpu": "...", "num_ranks": 1,
 *    "model": {"path", "hash"}, "tokenizer": {"hash"}, "output": "/home/a/runs/three",
 *    "datasets": [{"adapter", "use", "path", "content_sha256", "documents", "tokens",
 *                  "supervised_tokens"}],
 *    "seeds": {"train": 7, "adapters": {"legal": 7}},
 *    "config_hash": "16 hex digits", "config": {...}}
 *
 * `config` is the resolved configuration with the keys and the nesting of its YAML. Every path in
 * the manifest is absolute; config.yaml beside it keeps them as they were given. Hashes are what
 * the caller gives; one that it does not know is null. */
#ifndef CADRE_TRAINER_RUN_MANIFEST_H
#define CADRE_TRAINER_RUN_MANIFEST_H

#include "base/config/config.h"
#include "base/context.h"

#include <stdbool.h>

typedef struct tr_manifest_dataset {
    const char *adapter; /* "model" with train.mode full */
    const char *use;     /* "train" or "eval" */
    const char *path;    /* of what was read: the .h5 */
    const char *content_sha256;
    int64_t documents;
    int64_t tokens;
    int64_t supervised_tokens;
} tr_manifest_dataset_t;

/* Everything is borrowed for the call. */
typedef struct tr_manifest {
    const base_config_t *config;
    int argc; /* the command line, with the name of the program */
    const char *const *argv;
    int num_ranks;
    bool resumed;
    const char *model_hash;
    const char *tokenizer_hash;
    int64_t num_datasets;
    const tr_manifest_dataset_t *datasets;
} tr_manifest_t;

/* Writes `path` (tr_run_folder_path, TR_RUN_MANIFEST) atomically. IO-02, BASE_ERR_NOMEM. */
base_status_t tr_manifest_write(base_ctx_t *ctx, const char *path,
                                const tr_manifest_t *manifest) BASE_MUST_CHECK;

#endif
