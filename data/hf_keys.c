#include "data/hf_keys.h"

#include <string.h>

static const char *const read_keys[] = {
    "architectures",
    "attention_bias",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "transformers_version",
    "use_sliding_window",
    "vocab_size",
};

static const char *const harmless_keys[] = {
    /* bookkeeping */
    "attn_implementation",
    "dtype",
    "torch_dtype",
    "torchscript",
    "finetuning_task",
    "id2label",
    "label2id",
    "license",
    "model_max_length",
    "max_sequence_length",
    "name_or_path",
    "neftune_noise_alpha",
    "num_labels",
    "prefix",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "tokenizer_model_max_length",
    "unsloth_fixed",
    "unsloth_version",
    "use_unsloth",
    "initializer_range",
    "is_decoder",
    /* how it is computed or what is returned, not what: pretraining_tp only splits products */
    "chunk_size_feed_forward",
    "gradient_checkpointing",
    "keys_to_ignore_at_inference",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pretraining_tp",
    "return_dict",
    "return_dict_in_generate",
    "tf_legacy_loss",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    /* tokens */
    "bos_token_id",
    "pad_token_id",
    "sep_token_id",
    "unk_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    /* generation */
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "remove_invalid_values",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
};

typedef enum neutral { ONLY_NULL, ONLY_FALSE, ONLY_ZERO, ONLY_ONE, ONLY_EMPTY } neutral_t;

static const struct {
    const char *key;
    neutral_t neutral;
} guarded_keys[] = {
    {"add_cross_attention", ONLY_FALSE},
    {"attention_chunk_size", ONLY_NULL},
    {"attention_dropout", ONLY_ZERO},
    {"attention_multiplier", ONLY_NULL},
    {"attn_logit_softcapping", ONLY_NULL},
    {"auto_map", ONLY_NULL}, /* code of the repository, which can do anything */
    {"clip_qkv", ONLY_NULL},
    {"compression_config", ONLY_NULL},
    {"embd_pdrop", ONLY_ZERO},
    {"embedding_multiplier", ONLY_ONE},
    {"final_logit_softcapping", ONLY_NULL},
    {"hidden_dropout", ONLY_ZERO},
    {"is_encoder_decoder", ONLY_FALSE},
    {"kv_lora_rank", ONLY_NULL},
    {"logit_scale", ONLY_ONE},
    {"logits_scaling", ONLY_ONE},
    {"n_routed_experts", ONLY_NULL},
    {"no_rope_layers", ONLY_NULL},
    {"num_experts", ONLY_NULL},
    {"num_experts_per_tok", ONLY_NULL},
    {"num_local_experts", ONLY_NULL},
    {"partial_rotary_factor", ONLY_ONE},
    {"pruned_heads", ONLY_EMPTY},
    {"qk_layernorm", ONLY_FALSE},
    {"quantization_config", ONLY_NULL},
    {"query_pre_attn_scalar", ONLY_NULL},
    {"resid_pdrop", ONLY_ZERO},
    {"residual_multiplier", ONLY_ONE},
    {"rope_interleaved", ONLY_FALSE},
    {"tie_encoder_decoder", ONLY_FALSE},
    {"use_mrope", ONLY_FALSE},
    {"use_qk_norm", ONLY_FALSE},
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static bool listed(const char *const *keys, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(keys[i], key) == 0) return true;
    return false;
}

static bool is_neutral(neutral_t neutral, data_json_kind_t kind, double number)
{
    switch (neutral) {
    case ONLY_NULL:
        return false;
    case ONLY_FALSE:
        return kind == DATA_JSON_BOOL && number == 0.0;
    case ONLY_ZERO:
        return kind == DATA_JSON_NUMBER && number == 0.0;
    case ONLY_ONE:
        return kind == DATA_JSON_NUMBER && number == 1.0;
    case ONLY_EMPTY:
        return (kind == DATA_JSON_ARRAY || kind == DATA_JSON_OBJECT) && number == 0.0;
    }
    return false;
}

static const char *neutral_word(neutral_t neutral)
{
    static const char *const word[] = {"null", "false", "0", "1", "an empty value"};

    return word[neutral];
}

static void check_key(void *arg, const char *key, data_json_kind_t kind, double number)
{
    const data_json_object_t *root = arg;

    if (kind == DATA_JSON_NULL || key[0] == '_' || listed(read_keys, COUNT(read_keys), key) ||
        listed(harmless_keys, COUNT(harmless_keys), key))
        return;
    for (size_t i = 0; i < COUNT(guarded_keys); i++) {
        if (strcmp(guarded_keys[i].key, key) != 0) continue;
        if (is_neutral(guarded_keys[i].neutral, kind, number)) return;
        data_json_fault(root, BASE_MSG_DATA_05, key, "is not supported; only %s is allowed",
                        neutral_word(guarded_keys[i].neutral));
        return;
    }
    data_json_fault(root, BASE_MSG_DATA_05, key,
                    "is not known; it may change what the model computes");
}

void data_hf_keys_check(const data_json_object_t *root)
{
    data_json_object_t arg = *root;

    data_json_each(root, check_key, &arg);
}
