/* Weights from a Hugging Face folder to the device.
 *
 *   BASE_TRY(tr_hf_load(weights, folder, stream));
 *
 * Threads read pieces of tensors, in the weights' dtype, into slots of host memory (pinned on a GPU). One
 * thread gives them to the device, each by one copy that puts rows where they belong, also beside
 * adapters' columns, and hands slots back when their upload has passed (trainer/model/hf_load_feed.h).
 * The calling thread takes the slots' memory meanwhile, a few slots at once, since a driver needs
 * milliseconds for it: reading begins with the first few. What is read is as long as memory and disk
 * allow, and nothing goes through doubles.
 *
 * Every rank loads what it computes with: trainers all weights (they divide rows, not matrices), attention
 * servers nothing, which have no weights to give to this.
 *
 * Values are rounded to the weights' dtype (F32 from F32, F16 and BF16, BF16 from BF16: exact; F64 to BF16
 * by way of F32). */
#ifndef CADRE_TRAINER_MODEL_HF_LOAD_H
#define CADRE_TRAINER_MODEL_HF_LOAD_H

#include "data/hf_folder.h"
#include "trainer/model/weights.h"

#define TR_HF_LOAD_THREADS  16 /* most that read */
#define TR_HF_LOAD_SLOTS    32 /* most */
#define TR_HF_LOAD_LANDINGS 8  /* most */
#define TR_HF_LOAD_ALIGN    64 /* bytes: what copies by the kernel go in */
/* So that a slot's memory is a page of 2 MiB (base/device/cuda_pinned.h). */
#define TR_HF_LOAD_SLOT_BYTES ((INT64_C(2) << 20) - TR_HF_LOAD_ALIGN)

typedef struct tr_hf_load_way {
    int num_threads;  /* that read; 1 to TR_HF_LOAD_THREADS */
    int num_slots;    /* from num_threads to TR_HF_LOAD_SLOTS */
    int at_once;      /* slots whose memory is taken in one piece; 1 to num_slots */
    int num_landings; /* for rows that lie apart; 0: they go to their place at once */
    /* 0: what is read as it is lies as far behind a multiple of TR_HF_LOAD_ALIGN as in its file: the tensors of a
     * file begin where its header ends, and to copy between places that are out of step costs a kernel up to a
     * third of its speed. 1: at the start of its slot. */
    int at_start;
    /* What a slot and a landing hold. At least a row of the widest weight; the functions below see to it. */
    int64_t slot_bytes;
} tr_hf_load_way_t;

/* How tr_hf_load does it: with two threads less than this process has processors, at least 2 and at most
 * 12, twelve slots more, four at once, and no landings; slots no larger than the largest weight. */
tr_hf_load_way_t tr_hf_load_way(const tr_model_t *model);

/* Fills the weights and waits for that and, first, for the stream. Errors name file and tensor
 * (data/safetensors_read.h); MEM-01 where there is no memory for slots or landings. After an error the
 * weights hold anything, and all threads and streams have ended. */
base_status_t tr_hf_load(const tr_weights_t *weights, const data_hf_folder_t *folder,
                         base_stream_t *stream) BASE_MUST_CHECK;
/* In another way, for tests and for comparisons. */
base_status_t tr_hf_load_by(const tr_weights_t *weights, const data_hf_folder_t *folder,
                            const tr_hf_load_way_t *way, base_stream_t *stream) BASE_MUST_CHECK;

/* What loading takes until it ends: slots (pinned memory on a GPU) and what conversions need beside them,
 * landings, and streams of kind ASYNC. */
typedef struct tr_hf_load_bytes {
    int64_t slots, convert, device;
    int num_streams;
} tr_hf_load_bytes_t;
tr_hf_load_bytes_t tr_hf_load_bytes(const tr_model_t *model, const data_hf_folder_t *folder,
                                    const tr_hf_load_way_t *way);

#endif
