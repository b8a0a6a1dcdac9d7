/* How weights are loaded, and what that takes. For trainer/model/hf_load.c, beside what hf_load.h has of it, and
 * for its bench. */
#ifndef CADRE_TRAINER_MODEL_HF_LOAD_WAY_H
#define CADRE_TRAINER_MODEL_HF_LOAD_WAY_H

#include "trainer/model/hf_load.h"

/* As *way, with slots that hold a row of each weight and no more than the largest, and without landings where no
 * weight's rows lie apart. */
tr_hf_load_way_t tr_hf_load_settled(const tr_model_t *model, const tr_hf_load_way_t *way);
/* Bytes from one slot to the next. */
int64_t tr_hf_load_stride(const tr_hf_load_way_t *way);

/* A file's dtype that needs no conversion. */
data_dtype_t tr_hf_load_dtype(kern_dtype_t dtype);

/* Floats by way of which tensors become BF16, for all threads that read, a slot's worth each; 0: none are
 * needed. */
int64_t tr_hf_load_singles(const tr_model_t *model, const data_hf_folder_t *folder,
                           const tr_hf_load_way_t *way);

#endif
