/* What the tests of adapter folders share: a small base folder, adapters in memory, and adapter
 * folders that are written tensor by tensor, without the code under test. */
#ifndef CADRE_TESTS_UNIT_LORA_PEFT_FIXTURE_H
#define CADRE_TESTS_UNIT_LORA_PEFT_FIXTURE_H

#include "tests/support/ctx_fixture.h"

#include "base/config/config.h"
#include "data/hf_folder.h"
#include "data/safetensors_write.h"
#include "lora/export_peft.h"
#include "lora/layout.h"

#define QV (BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V)

/* Two layers; all dimensions differ: hidden 8, q 12, k and v 6, intermediate 10. */
typedef struct peft_case {
    base_ctx_t *ctx;
    char root[64];
    data_hf_folder_t *base;
    const data_model_spec_t *spec;
} peft_case_t;

/* Makes the folder ROOT (of the test's own) with ROOT/base in it. */
void peft_case_init(peft_case_t *c, const char *root);
void peft_case_deinit(peft_case_t *c); /* removes ROOT */

/* Uniform in [-1, 1), 8 bits: products with small integers are exact. */
void peft_fill(float *values, int64_t count, uint32_t seed);
lora_layout_t *peft_layout(peft_case_t *c, int32_t rank, uint32_t targets);
/* Filled values of a layout; freed with base_free. */
float *peft_values(peft_case_t *c, const lora_layout_t *layout, uint32_t seed);
/* alpha 8, no dropout, not rsLoRA. */
lora_export_t peft_adapter(const peft_case_t *c, const lora_layout_t *layout, const float *values);

/* ==== folders by hand ==== */

#define PEFT_MAX_TENSORS 40

typedef struct peft_tensor {
    char name[160];
    data_dtype_t dtype;
    int64_t rows, columns;
    float values[256]; /* converted to dtype when written */
} peft_tensor_t;

typedef struct peft_folder {
    char dir[80];
    char config[2048];
    int count;
    peft_tensor_t tensors[PEFT_MAX_TENSORS];
} peft_folder_t;

/* r 4, alpha 8, q_proj and v_proj of both layers, filled with values that differ. Freed with free.
 */
peft_folder_t *peft_folder_create(const peft_case_t *c, const char *name);
/* Adds A (rank x in) and B (out x rank) of a module. */
void peft_folder_add(peft_folder_t *f, const char *module, int64_t rank, int64_t in, int64_t out);
peft_tensor_t *peft_folder_find(peft_folder_t *f, const char *name);
void peft_folder_write(const peft_case_t *c, const peft_folder_t *f);

/* Whole content of a text file, freed with base_free. */
char *peft_text(base_ctx_t *ctx, const char *dir, const char *file);
void peft_put(base_ctx_t *ctx, const char *dir, const char *file, const char *text);
bool peft_exists(const char *dir, const char *file); /* file "": the folder */
int peft_entries(const char *dir);                   /* names in a folder */
void peft_remove(const char *path);                  /* a file or a whole folder */

#endif
