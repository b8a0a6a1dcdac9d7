/* Spreads supervised rows over the trainers of a layout. Private to the packer. */
#ifndef CADRE_LORA_PACK_SPREAD_H
#define CADRE_LORA_PACK_SPREAD_H

#include "data/batch.h"

/* Trainers hold consecutive rows of a half, and the loss takes time where rows are supervised. With
 * batch->order sorted by adapter and document_head set: puts the documents of each adapter and half
 * into an order in which the share of supervised rows of every first part is near that of all.
 * Documents with equal shares keep their order. n log n, no allocation. */
void lora_pack_spread(data_batch_t *batch);

#endif
