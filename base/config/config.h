/* Configuration of a run: what a YAML file and `--set` say, with every default filled in.
 *
 *     base_config_t *config = NULL;
 *     base_error_list_t errors;
 *
 *     base_error_list_init(&errors, ctx);
 *     st = base_config_load(ctx, "run.yaml", sets, num_sets, &errors, &config);
 *     if (st == BASE_ERR_CONFIG)
 *         base_error_list_print(&errors, stderr);
 *     base_error_list_deinit(&errors);
 *     ... config->adapters[0].rank ...
 *     base_config_destroy(config);
 *
 * The keys, their types, ranges, defaults and meaning are the table in schema.c, and only there;
 * docs/config.md is printed from it. After a successful load every rule between keys holds. Nothing
 * is shared between loads: ranks that are threads may load at the same time, each with its own
 * context. A loaded configuration is read-only and may be shared. Numbers are read and written in
 * the C locale. */
#ifndef CADRE_BASE_CONFIG_CONFIG_H
#define CADRE_BASE_CONFIG_CONFIG_H

#include "base/config/error_list.h"
#include "base/config/text_pool.h"
#include "base/context.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Words of the enum keys, in the order of schema.c. */
typedef enum base_config_placement {
    BASE_CONFIG_PLACEMENT_IN_PLACE,
    BASE_CONFIG_PLACEMENT_POOL,
    BASE_CONFIG_PLACEMENT_LOCAL
} base_config_placement_t;
typedef enum base_config_packer {
    BASE_CONFIG_PACKER_FAST,
    BASE_CONFIG_PACKER_EXACT
} base_config_packer_t;
typedef enum base_config_mode { BASE_CONFIG_MODE_LORA, BASE_CONFIG_MODE_FULL } base_config_mode_t;
typedef enum base_config_dtype {
    BASE_CONFIG_DTYPE_AUTO,
    BASE_CONFIG_DTYPE_FP32,
    BASE_CONFIG_DTYPE_BF16
} base_config_dtype_t;
typedef enum base_config_recompute {
    BASE_CONFIG_RECOMPUTE_AUTO,
    BASE_CONFIG_RECOMPUTE_NONE,
    BASE_CONFIG_RECOMPUTE_QKV,
    BASE_CONFIG_RECOMPUTE_BLOCK
} base_config_recompute_t;
typedef enum base_config_device {
    BASE_CONFIG_DEVICE_AUTO,
    BASE_CONFIG_DEVICE_CPU,
    BASE_CONFIG_DEVICE_CUDA
} base_config_device_t;
typedef enum base_config_transport {
    BASE_CONFIG_TRANSPORT_AUTO,
    BASE_CONFIG_TRANSPORT_MPI,
    BASE_CONFIG_TRANSPORT_COPY_ENGINE,
    BASE_CONFIG_TRANSPORT_NCCL
} base_config_transport_t;
typedef enum base_config_schedule {
    BASE_CONFIG_SCHEDULE_CONSTANT,
    BASE_CONFIG_SCHEDULE_LINEAR,
    BASE_CONFIG_SCHEDULE_COSINE
} base_config_schedule_t;
typedef enum base_config_order {
    BASE_CONFIG_ORDER_SHUFFLE,
    BASE_CONFIG_ORDER_FILE
} base_config_order_t;

/* Linear layers that an adapter can sit on: bits of base_config_adapter_t.targets. X(name, PEFT's
 * word) */
#define BASE_CONFIG_TARGET_MAP(X)                                                                  \
    X(Q, 0, "q_proj")                                                                              \
    X(K, 1, "k_proj")                                                                              \
    X(V, 2, "v_proj")                                                                              \
    X(O, 3, "o_proj")                                                                              \
    X(GATE, 4, "gate_proj")                                                                        \
    X(UP, 5, "up_proj")                                                                            \
    X(DOWN, 6, "down_proj")

typedef enum base_config_target {
#define X(name, bit, word) BASE_CONFIG_TARGET_##name = 1 << (bit),
    BASE_CONFIG_TARGET_MAP(X)
#undef X
        BASE_CONFIG_TARGET_ALL = (1 << 7) - 1 /* all-linear */
} base_config_target_t;

/* The resolved text of so many still loads (BASE_YAML_MAX_NODES). */
#define BASE_CONFIG_MAX_ADAPTERS 1024

/* One training job: an adapter, or with train.mode full the model itself. Numbers that may be left
 * out are 0 then, texts NULL. Fields of a word are int so that the table can address them: compare
 * with the enum named beside. */
typedef struct base_config_adapter {
    char *name;
    char *data;
    char *eval;                      /* NULL: eval_documents, or no evaluation */
    int64_t eval_documents;          /* 0: none held out of data */
    int64_t early_stopping_patience; /* 0: never */
    int64_t rank;                    /* 0 with train.mode full, like the other LoRA numbers */
    double alpha;
    double dropout;   /* 0 <= dropout < 1 */
    uint32_t targets; /* bits of base_config_target_t */
    bool rslora;
    char *init;     /* "kaiming", "gaussian", or the folder of an adapter: it contains a slash */
    int64_t epochs; /* exactly one of epochs and steps is > 0 */
    int64_t steps;
    int64_t global_batch_documents;
    double learning_rate;
    int schedule;        /* base_config_schedule_t */
    double warmup_ratio; /* at most one of warmup_ratio and warmup_steps is > 0 */
    int64_t warmup_steps;
    int64_t eval_every_steps;
    double weight_decay;
    double betas[2];
    double eps;
    double clip_norm; /* 0: never clipped */
    int64_t seed;
    int order; /* base_config_order_t */
} base_config_adapter_t;

/* A list of numbers, of the configuration's memory. */
typedef struct base_config_numbers {
    int64_t count;
    const double *of; /* [count] */
} base_config_numbers_t;

typedef struct base_config {
    char *words; /* the file and its sets as words of a shell: `run.yaml --set output=runs/b` */
    char *model;
    char *output;
    char *data; /* mode full only, equal to full.data */
    struct {
        int placement;                              /* base_config_placement_t */
        int64_t servers_per_host;                   /* 0 unless placement is pool */
        char *cost_profile;                         /* NULL: built in */
        const base_config_numbers_t *server_speeds; /* NULL: all alike */
        int64_t retain_mib;
    } attention;
    struct {
        int64_t tokens_per_trainer;
        int64_t max_rank_columns; /* 0 with train.mode full */
        int packer;               /* base_config_packer_t */
    } batch;
    struct {
        int mode; /* base_config_mode_t */
        int64_t seed;
        int dtype;  /* base_config_dtype_t; auto is not yet resolved here: it depends on the device
                     */
        int device; /* base_config_device_t; auto is the build's */
        int transport; /* base_config_transport_t; auto depends on hosts and device */
        int recompute; /* base_config_recompute_t; auto depends on the memory of the device */
        bool deterministic;
        int64_t checkpoint_every_minutes; /* exactly one of the two is > 0 */
        int64_t checkpoint_every_microbatches;
        int64_t keep_checkpoints;
    } train;
    int64_t num_adapters;            /* 0 with train.mode full */
    base_config_adapter_t *adapters; /* in the order of the file */
    base_config_adapter_t full; /* mode full: the job, made of `defaults` and `data`; else zero */
    base_text_pool_t pool;      /* owns all of it; private */
} base_config_t;

/* ==== load ==== */

/* Reads `path`, applies `sets` in their order and checks everything in one pass.
 *
 * A set is PATH=VALUE as given to `--set`: "attention.placement=pool",
 * "defaults.targets=[q_proj,v_proj]", "adapters.code.rank=64" (the adapter called code). VALUE is
 * YAML. It replaces what the file says, also the other key of a pair: adapters.code.steps=10 puts
 * the epochs of that adapter aside.
 *
 * Returns owned *config_p (base_config_destroy). BASE_ERR_CONFIG when anything is wrong: `errors`
 * (initialised by the caller, or NULL) then holds everything found and the first is recorded in the
 * context. BASE_ERR_NOMEM. */
base_status_t base_config_load(base_ctx_t *ctx, const char *path, const char *const *sets,
                               size_t num_sets, base_error_list_t *errors,
                               base_config_t **config_p) BASE_MUST_CHECK;

/* The same from memory. `name` takes the place of the file's name in messages. The text needs no
 * zero byte. */
base_status_t base_config_load_text(base_ctx_t *ctx, const char *name, const char *text,
                                    size_t bytes, const char *const *sets, size_t num_sets,
                                    base_error_list_t *errors,
                                    base_config_t **config_p) BASE_MUST_CHECK;

void base_config_destroy(base_config_t *config); /* NULL is legal */

/* The adapter of that name, or NULL. */
const base_config_adapter_t *base_config_adapter(const base_config_t *config, const char *name);

#ifdef __cplusplus
}
#endif
#endif
