#include "lora/peft_config.h"

#include "base/file.h"
#include "base/json_write.h"
#include "lora/layout.h"

#include <math.h>

static void put_number(base_json_t *j, const char *key, double value)
{
    base_json_key(j, key);
    if (value == floor(value) && fabs(value) < 1e15)
        base_json_int(j, (int64_t)value);
    else
        base_json_double(j, value);
}

static void put_null(base_json_t *j, const char *key)
{
    base_json_key(j, key);
    base_json_null(j);
}

static void put_empty(base_json_t *j, const char *key)
{
    base_json_key(j, key);
    base_json_begin_object(j);
    base_json_end(j);
}

static void put_targets(base_json_t *j, uint32_t targets)
{
    static const int32_t sorted[LORA_NUM_TARGETS] = {6, 4, 1, 3, 0, 5, 2}; /* by name */

    base_json_key(j, "target_modules");
    base_json_begin_array(j);
    for (int i = 0; i < LORA_NUM_TARGETS; i++)
        if ((targets & (1u << sorted[i])) != 0) base_json_string(j, lora_target_name(sorted[i]));
    base_json_end(j);
}

static void put_all(base_json_t *j, const lora_peft_words_t *words)
{
    base_json_begin_object(j);
    put_empty(j, "alpha_pattern");
    base_json_put_string(j, "base_model_name_or_path", words->base_model);
    base_json_put_string(j, "bias", "none");
    put_null(j, "exclude_modules");
    base_json_put_bool(j, "fan_in_fan_out", false);
    base_json_put_bool(j, "inference_mode", true);
    base_json_put_bool(j, "init_lora_weights", true);
    put_null(j, "layers_pattern");
    put_null(j, "layers_to_transform");
    put_number(j, "lora_alpha", words->alpha);
    base_json_put_bool(j, "lora_bias", false);
    put_number(j, "lora_dropout", words->dropout);
    put_null(j, "modules_to_save");
    base_json_put_string(j, "peft_type", "LORA");
    put_number(j, "r", (double)words->rank);
    put_empty(j, "rank_pattern");
    put_null(j, "revision");
    put_targets(j, words->targets);
    base_json_put_string(j, "task_type", "CAUSAL_LM");
    base_json_put_bool(j, "use_dora", false);
    base_json_put_bool(j, "use_rslora", words->rslora);
    base_json_end(j);
    base_json_newline(j);
}

base_status_t lora_peft_config_write(base_ctx_t *ctx, const char *path,
                                     const lora_peft_words_t *words)
{
    base_file_t *file;
    base_json_t j;
    base_status_t st;

    BASE_TRY(base_file_create(ctx, path, &file));
    base_json_to_file(&j, base_file_stream(file));
    base_json_set_indent(&j, 2);
    base_json_refuse_nonfinite(&j);
    put_all(&j, words);
    st = base_json_finish(&j, ctx, path);
    if (st < 0) {
        base_file_discard(file);
        return st;
    }
    return base_file_commit(file);
}
