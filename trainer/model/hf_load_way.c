#include "trainer/model/hf_load_way.h"

#include "base/version.h"

/* Readers carry 5 GB/s each on an H200's host, whose link carries 55 (docs/kernels/step.md). Slots beyond
 * the readers' are on their way or wait for that: so many that no reader sleeps before the link is behind. */
#define MOST_READERS 12
#define MORE_SLOTS   12
#define AT_ONCE      4

data_dtype_t tr_hf_load_dtype(kern_dtype_t dtype)
{
    return dtype == KERN_F64 ? DATA_F64 : dtype == KERN_BF16 ? DATA_BF16 : DATA_F32;
}

static int64_t slot_bytes(const tr_model_t *model, int64_t wanted)
{
    const int64_t element = kern_dtype_bytes(model->config.dtype);
    int64_t widest = 0, largest = 0;

    for (int32_t i = 0; i < model->num_weights; i++) {
        const tr_weight_spec_t *w = &model->weights[i];

        widest = w->cols > widest ? w->cols : widest;
        largest = w->rows * w->cols > largest ? w->rows * w->cols : largest;
    }
    if (largest * element <= wanted) return largest * element;
    return widest * element > wanted ? widest * element : wanted;
}

tr_hf_load_way_t tr_hf_load_way(const tr_model_t *model)
{
    const int processors = base_version_processors();
    const int most = processors - 2 < MOST_READERS ? processors - 2 : MOST_READERS;
    const int threads = most > 2 ? most : 2;

    return (tr_hf_load_way_t){.num_threads = threads,
                              .num_slots = threads + MORE_SLOTS,
                              .at_once = AT_ONCE,
                              .slot_bytes = slot_bytes(model, TR_HF_LOAD_SLOT_BYTES)};
}

/* Some weight's rows do not lie side by side. */
static int has_pitch(const tr_model_t *model)
{
    for (int32_t i = 0; i < model->num_weights; i++)
        if (model->weights[i].pitch > model->weights[i].cols) return 1;
    return 0;
}

tr_hf_load_way_t tr_hf_load_settled(const tr_model_t *model, const tr_hf_load_way_t *way)
{
    tr_hf_load_way_t settled = *way;

    settled.slot_bytes = slot_bytes(model, way->slot_bytes);
    if (!has_pitch(model)) settled.num_landings = 0;
    return settled;
}

int64_t tr_hf_load_stride(const tr_hf_load_way_t *way)
{
    return (way->slot_bytes + 2 * TR_HF_LOAD_ALIGN - 1) / TR_HF_LOAD_ALIGN * TR_HF_LOAD_ALIGN;
}

/* Some tensor is of another dtype than the weights. */
static int has_other(const data_hf_folder_t *folder, data_dtype_t dtype)
{
    const int64_t num = data_model_spec_num_tensors(data_hf_folder_spec(folder));

    for (int64_t i = 0; i < num; i++)
        if (data_hf_folder_entry(folder, i)->dtype != dtype) return 1;
    return 0;
}

int64_t tr_hf_load_singles(const tr_model_t *model, const data_hf_folder_t *folder,
                           const tr_hf_load_way_t *way)
{
    const int64_t slot = slot_bytes(model, way->slot_bytes);

    if (model->config.dtype != KERN_BF16 || !has_other(folder, DATA_BF16)) return 0;
    return way->num_threads * (slot / kern_dtype_bytes(KERN_BF16));
}

tr_hf_load_bytes_t tr_hf_load_bytes(const tr_model_t *model, const data_hf_folder_t *folder,
                                    const tr_hf_load_way_t *way)
{
    const tr_hf_load_way_t settled = tr_hf_load_settled(model, way);
    const int converts = has_other(folder, tr_hf_load_dtype(model->config.dtype));
    tr_hf_load_bytes_t bytes = {.slots = settled.num_slots * tr_hf_load_stride(&settled),
                                .device = settled.num_landings * settled.slot_bytes,
                                .num_streams = settled.num_landings > 0 ? 2 : 1};

    bytes.convert = tr_hf_load_singles(model, folder, way) * (int64_t)sizeof(float);
    if (converts) bytes.convert += way->num_threads * (INT64_C(1) << 20); /* data/hf_folder.h */
    return bytes;
}
