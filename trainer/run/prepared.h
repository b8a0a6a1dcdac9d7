/* Prepared data: the dataset that `cadre prepare` makes of a JSONL that the configuration names.
 *
 *   char *path = NULL;
 *   st = tr_prepared_check(ctx, config, &config->adapters[a], TR_PREPARED_DATA, "run.yaml", errors,
 *                          &path);
 *   if (path != NULL) ... data_dataset_open(ctx, path, errors, &ds) ...
 *   base_free(ctx, path);
 *
 * A configuration says .jsonl or .h5. An .h5 is used as it is. What comes of a .jsonl lies in
 * OUTPUT/prepared: NAME.h5 for the data of the adapter NAME and NAME.eval.h5 for its evaluation
 * set; data.h5 and data.eval.h5 with train.mode full. It is fresh while it was made from that very
 * file with the tokenizer and the chat template of the model folder: hashes are compared, times of
 * files mean nothing. With which options it was made (--overlong and the like) is not asked, and
 * whether the vocabulary fits says data_dataset_match. Everything here is thread-safe with a
 * context each. */
#ifndef CADRE_TRAINER_RUN_PREPARED_H
#define CADRE_TRAINER_RUN_PREPARED_H

#include "base/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tr_prepared_set { TR_PREPARED_DATA, TR_PREPARED_EVAL } tr_prepared_set_t;

typedef enum tr_prepared_state {
    TR_PREPARED_GIVEN,   /* the configuration names an .h5 itself */
    TR_PREPARED_FRESH,   /* there, and made from what is there now */
    TR_PREPARED_MISSING, /* not there */
    TR_PREPARED_STALE    /* made from something else, or not readable as a dataset */
} tr_prepared_state_t;

#define TR_PREPARED_REASON_BYTES 512

/* What the job names: its `data` or its `eval`, NULL when it has none. Borrowed from `job`, which
 * is &config->adapters[i], or &config->full with train.mode full. */
const char *tr_prepared_source(const base_config_adapter_t *job, tr_prepared_set_t set);

/* True for a path that ends in .h5: nothing has to be prepared. */
bool tr_prepared_is_dataset(const char *source);

/* Path of the dataset: the source itself if it is an .h5. The job has to name one, as a loaded
 * configuration does. Owned (base_free). */
base_status_t tr_prepared_path(base_ctx_t *ctx, const base_config_t *config,
                               const base_config_adapter_t *job, tr_prepared_set_t set,
                               char **path_p) BASE_MUST_CHECK;

/* Whether it can be used. `reason` is "" but for STALE: then it says what differs. Reads the whole
 * source (0.3 GB/s). A chat template that stands in tokenizer_config.json as a list of several is
 * not compared. IO-01 when source or tokenizer cannot be read; DATA-02 for a tokenizer_config.json
 * that is not JSON. */
base_status_t tr_prepared_look(base_ctx_t *ctx, const base_config_t *config,
                               const base_config_adapter_t *job, tr_prepared_set_t set,
                               tr_prepared_state_t *state,
                               char reason[TR_PREPARED_REASON_BYTES]) BASE_MUST_CHECK;

/* For verbs that read it: *path_p is owned, and set when it can be used. Otherwise DATA-35 (not
 * prepared) or DATA-36 (out of date); the text holds the command, of which
 * `prepare_words` (config->words) says what follows `cadre prepare`. With `errors` such a fault is added there, the status is BASE_OK
 * and *path_p stays as it was, so that all jobs are looked at; with NULL it is recorded. Other
 * faults are recorded and returned in any case. */
base_status_t tr_prepared_check(base_ctx_t *ctx, const base_config_t *config,
                                const base_config_adapter_t *job, tr_prepared_set_t set,
                                const char *prepare_words, base_error_list_t *errors,
                                char **path_p) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
