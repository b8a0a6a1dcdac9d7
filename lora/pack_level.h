/* Spreads supervised rows: exchanges documents between microbatches of a schedule. Private to the
 * packer. */
#ifndef CADRE_LORA_PACK_LEVEL_H
#define CADRE_LORA_PACK_LEVEL_H

#include "lora/pack_window.h"

/* int64_t values that `scratch` needs. */
int64_t lora_level_scratch(int32_t max_documents);

/* Exchanges two documents of one global batch that lie in two microbatches wherever the supervised
 * rows of the two come closer to each other and both still have room. Microbatches, adapters and
 * the order of batches stay as they are. Nothing without window->supervised. */
void lora_level_supervised(const lora_window_t *window, lora_schedule_t *schedule,
                           int64_t *scratch);

/* For a schedule of one microbatch (0, and -1 for what stays): exchanges a document that is in for
 * one of the same batch that is not, wherever the supervised rows that are in come closer to their
 * share, which is that of the rows, and there is still room. */
void lora_level_next(const lora_window_t *window, lora_schedule_t *schedule);

#endif
