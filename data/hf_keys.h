/* Keys of config.json that nobody reads: which may stand there.
 *
 * Every key belongs to one of four classes; the tables are in hf_keys.c:
 *   read      by data/hf_config.c and data/hf_rope.c
 *   harmless  by an explicit list: bookkeeping (names, versions, "_..." keys), token ids,
 *             settings of generation, initial values, dtype (each tensor has its own)
 *   guarded   features that change numbers and are not supported, with the one value that switches
 *             them off; any other value is DATA-05
 *   unknown   DATA-05 unless the value is null: it may change numbers, and a config.json is never
 *             read for half its meaning */
#ifndef CADRE_DATA_HF_KEYS_H
#define CADRE_DATA_HF_KEYS_H

#include "data/json_read.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Looks at every key of the root and reports in the root's list. */
void data_hf_keys_check(const data_json_object_t *root);

#ifdef __cplusplus
}
#endif
#endif
