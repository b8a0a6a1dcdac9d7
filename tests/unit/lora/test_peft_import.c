#include "tests/unit/lora/peft_fixture.h"

#include "base/file.h"
#include "data/json_read.h"
#include "lora/peft_config.h"
#include "lora/peft_import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROOT "peft_import_test"

typedef struct rig {
    peft_case_t c;
    peft_folder_t *f; /* r 4, alpha 8, q and v */
    lora_layout_t *layout;
    float *values;
} rig_t;

static void rig_init(rig_t *r)
{
    peft_case_init(&r->c, ROOT);
    r->f = peft_folder_create(&r->c, "in");
    r->layout = peft_layout(&r->c, 4, QV);
    r->values = peft_values(&r->c, r->layout, 7);
}

static void rig_deinit(rig_t *r)
{
    base_free(r->c.ctx, r->values);
    lora_layout_destroy(r->layout);
    free(r->f);
    peft_case_deinit(&r->c);
}

static void import_good(rig_t *r, double scale)
{
    base_error_t error;

    if (lora_peft_import(r->c.ctx, r->f->dir, r->c.spec, r->layout, scale, r->values) != BASE_OK)
        fail_msg("%s", base_ctx_error(r->c.ctx, &error) ? error.text : "no text");
}

/* The folder is refused with `count` faults, the first of which is this one. */
static void expect_faults(rig_t *r, size_t count, const char *id, const char *piece)
{
    base_error_list_t errors;
    lora_peft_t *peft = NULL;
    const int64_t live = base_memory_live_total(base_ctx_memory(r->c.ctx));

    base_error_list_init(&errors, r->c.ctx);
    assert_int_equal(lora_peft_open(r->c.ctx, r->f->dir, r->c.spec, &errors, &peft),
                     BASE_ERR_FORMAT);
    assert_null(peft);
    if (errors.count != count)
        fail_msg("%zu faults, the first: %s", errors.count, errors.items[0].text);
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(r->c.ctx, BASE_ERR_FORMAT, id, piece);
    base_error_list_deinit(&errors);
    assert_int_equal(lora_peft_open(r->c.ctx, r->f->dir, r->c.spec, NULL, &peft), BASE_ERR_FORMAT);
    fixture_expect_error(r->c.ctx, BASE_ERR_FORMAT, id, piece);
    assert_int_equal(base_memory_live_total(base_ctx_memory(r->c.ctx)), live);
}

static void set_config(rig_t *r, const char *rest)
{
    (void)snprintf(r->f->config, sizeof r->f->config,
                   "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8%s%s}",
                   rest[0] != '\0' ? "," : "", rest);
    peft_folder_write(&r->c, r->f);
}

/* Module `index` of the layout holds A and factor x B of the folder, bit for bit. */
static void expect_module(const rig_t *r, int index, const char *module, float factor)
{
    const lora_module_t *m = &r->layout->modules[index];
    char name[100];
    const peft_tensor_t *t;

    (void)snprintf(name, sizeof name, "%s.lora_A", module);
    t = peft_folder_find(r->f, name);
    assert_memory_equal(r->values + m->a, t->values, (size_t)(4 * m->in) * sizeof *t->values);
    (void)snprintf(name, sizeof name, "%s.lora_B", module);
    t = peft_folder_find(r->f, name);
    for (int64_t i = 0; i < 4 * m->out; i++)
        assert_true(r->values[m->b + i] == factor * t->values[i]);
}

/* ==== reading ==== */

static void a_folder_is_read(void **state)
{
    rig_t r;
    lora_peft_t *peft = NULL;
    const lora_peft_info_t *info;

    (void)state;
    rig_init(&r);
    /* All keys of PEFT 0.21.0, and one of a version to come. */
    set_config(&r,
               "\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,"
               "\"auto_mapping\":null,\"base_model_name_or_path\":\"b\",\"bias\":\"none\","
               "\"corda_config\":null,\"ensure_weight_tying\":false,\"eva_config\":null,"
               "\"exclude_modules\":null,\"fan_in_fan_out\":false,\"inference_mode\":true,"
               "\"init_lora_weights\":true,\"kasa_config\":null,\"layer_replication\":null,"
               "\"layers_pattern\":null,\"layers_to_transform\":null,\"loftq_config\":{},"
               "\"lora_bias\":false,\"lora_dropout\":0.1,\"lora_ga_config\":null,"
               "\"megatron_config\":null,\"megatron_core\":\"megatron.core\","
               "\"modules_to_save\":null,\"monteclora_config\":null,\"peft_version\":\"0.21.0\","
               "\"qalora_group_size\":16,\"rank_pattern\":{},\"revision\":null,"
               "\"target_modules\":\".*(q|v)_proj\",\"target_parameters\":null,"
               "\"task_type\":\"CAUSAL_LM\",\"trainable_token_indices\":null,"
               "\"use_bdlora\":null,\"use_dora\":false,\"use_qalora\":false,"
               "\"use_rslora\":false,\"velora_config\":null,\"new_switch\":false");
    assert_int_equal(lora_peft_open(r.c.ctx, r.f->dir, r.c.spec, NULL, &peft), BASE_OK);
    info = lora_peft_info(peft);
    assert_int_equal(info->rank, 4);
    assert_int_equal(info->targets, QV);
    assert_true(info->alpha == 8.0 && info->dropout == 0.1 && info->scale == 2.0);
    assert_false(info->rslora || info->patterns);
    assert_string_equal(info->base_model, "b");
    assert_int_equal(info->parameters, 2 * 4 * ((8 + 12) + (8 + 6)));
    assert_int_equal(lora_peft_num_modules(peft), 4);
    assert_int_equal(lora_peft_module(peft, 3)->out, 6);
    assert_int_equal(lora_peft_read(peft, r.layout, info->scale, r.values), BASE_OK);
    lora_peft_close(peft);
    expect_module(&r, 0, "layers.0.self_attn.q_proj", 1.0f);
    expect_module(&r, 1, "layers.0.self_attn.v_proj", 1.0f);
    expect_module(&r, 2, "layers.1.self_attn.q_proj", 1.0f);
    expect_module(&r, 3, "layers.1.self_attn.v_proj", 1.0f);
    rig_deinit(&r);
}

/* Complaint 19: alpha 6, r 4 is 3 with rsLoRA and 1.5 without; ours is 0.5. */
static void rslora_is_honoured_complaint_19(void **state)
{
    rig_t r;

    (void)state;
    rig_init(&r);
    (void)snprintf(r.f->config, sizeof r.f->config,
                   "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"use_rslora\":true}");
    peft_folder_write(&r.c, r.f);
    import_good(&r, 0.5);
    expect_module(&r, 2, "layers.1.self_attn.q_proj", 6.0f);
    (void)snprintf(r.f->config, sizeof r.f->config,
                   "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"use_rslora\":false}");
    peft_folder_write(&r.c, r.f);
    import_good(&r, 0.5);
    expect_module(&r, 2, "layers.1.self_attn.q_proj", 3.0f);
    rig_deinit(&r);
}

/* Complaint 20: rank_pattern and alpha_pattern. Layer 0's v has rank 2: scale 8 / 2; layer 1's q
 * has alpha 12: 12 / 4; the others 8 / 4. Ours is 1. */
static void patterns_are_honoured_complaint_20(void **state)
{
    rig_t r;
    lora_peft_t *peft = NULL;
    const lora_module_t *m;
    const peft_tensor_t *t;

    (void)state;
    rig_init(&r);
    t = peft_folder_find(r.f, "0.self_attn.v_proj.lora_A");
    peft_folder_find(r.f, "0.self_attn.v_proj.lora_A")->rows = 2;
    peft_folder_find(r.f, "0.self_attn.v_proj.lora_B")->columns = 2;
    set_config(&r, "\"rank_pattern\":{\"layers.0.self_attn.v_proj\":2},\"alpha_pattern\":"
                   "{\"^model\\\\.layers\\\\.1\\\\.self_attn\\\\.q_proj$\":12,\"q_proj\":8}");
    import_good(&r, 1.0);
    expect_module(&r, 0, "layers.0.self_attn.q_proj", 2.0f);
    expect_module(&r, 2, "layers.1.self_attn.q_proj", 3.0f);
    expect_module(&r, 3, "layers.1.self_attn.v_proj", 2.0f);
    m = &r.layout->modules[1];
    for (int i = 0; i < 32; i++)
        assert_true(r.values[m->a + i] == (i < 16 ? t->values[i] : 0.0f));
    t = peft_folder_find(r.f, "0.self_attn.v_proj.lora_B");
    for (int o = 0; o < 6; o++)
        for (int i = 0; i < 4; i++)
            assert_true(r.values[m->b + o * 4 + i] == (i < 2 ? 4.0f * t->values[o * 2 + i] : 0.0f));
    assert_int_equal(lora_peft_open(r.c.ctx, r.f->dir, r.c.spec, NULL, &peft), BASE_OK);
    assert_true(lora_peft_info(peft)->patterns);
    lora_peft_close(peft);
    rig_deinit(&r);
}

/* re.match("(.*\.)?(KEY)$", NAME), worked out by hand. */
static void patterns_match_as_in_peft(void **state)
{
    static const struct {
        const char *key;
        bool matches;
    } cases[] = {
        {"q_proj", true},
        {"proj", false},      /* a whole word of the path */
        {"self_attn", false}, /* not at the end */
        {"self_attn.q_proj", true},
        {"selfxattn.q_proj", false},
        {"self.attn.q_proj", true}, /* '.' is any character */
        {"self\\.attn\\.q_proj", false},
        {"layers\\.1\\.self_attn\\.q_proj", true},
        {"layers.0.self_attn.q_proj", false},
        {".1.self_attn.q_proj", false}, /* no '.' before that '.' */
        {"model.layers.1.self_attn.q_proj", true},
        {"^model.layers.1.self_attn.q_proj", true},
        {"^layers.1.self_attn.q_proj", false},
        {"xmodel.layers.1.self_attn.q_proj", false},
        {"q_proj$", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const lora_peft_pattern_t pattern = {cases[i].key, 3.0};
        const lora_peft_config_t config = {
            .rank = 8, .alpha = 8.0, .num_ranks = 1, .ranks = &pattern};

        if (lora_peft_config_rank(&config, "model.layers.1.self_attn.q_proj") !=
            (cases[i].matches ? 3 : 8))
            fail_msg("%s", cases[i].key);
    }
}

static void other_dtypes_are_read(void **state)
{
    static const data_dtype_t dtypes[] = {DATA_F16, DATA_BF16, DATA_F64, DATA_F32};
    rig_t r;

    (void)state;
    rig_init(&r);
    for (int i = 0; i < 4; i++) {
        for (int t = 0; t < r.f->count; t++)
            r.f->tensors[t].dtype = dtypes[i];
        set_config(&r, "");
        peft_fill(r.values, r.layout->count, 9);
        import_good(&r, 2.0);
        /* 8 bits are exact in all of them. */
        expect_module(&r, 2, "layers.1.self_attn.q_proj", 1.0f);
        expect_module(&r, 1, "layers.0.self_attn.v_proj", 1.0f);
    }
    rig_deinit(&r);
}

/* What export writes comes back, in both forms. */
static void an_export_comes_back(void **state)
{
    rig_t r;
    lora_export_t a;
    float *kept;

    (void)state;
    rig_init(&r);
    kept = peft_values(&r.c, r.layout, 7);
    a = peft_adapter(&r.c, r.layout, kept);
    a.rslora = true; /* 8 / sqrt(4): folding is exact */
    for (int faithful = 0; faithful < 2; faithful++) {
        a.faithful = faithful == 1;
        assert_int_equal(lora_export_peft(r.c.ctx, r.f->dir, &a), BASE_OK);
        peft_fill(r.values, r.layout->count, 9);
        import_good(&r, 4.0);
        assert_memory_equal(r.values, kept, (size_t)r.layout->count * sizeof *kept);
    }
    base_free(r.c.ctx, kept);
    rig_deinit(&r);
}

/* ==== what is refused ==== */

static void other_ranks_and_targets_are_refused(void **state)
{
    rig_t r;
    lora_layout_t *other;

    (void)state;
    rig_init(&r);
    set_config(&r, "");
    for (int32_t rank = 2; rank <= 8; rank *= 4) {
        char piece[80];

        other = peft_layout(&r.c, rank, QV);
        assert_int_equal(lora_peft_import(r.c.ctx, r.f->dir, r.c.spec, other, 2.0, r.values),
                         BASE_ERR_CONFIG);
        (void)snprintf(piece, sizeof piece, "rank 4, the configuration has rank %d", (int)rank);
        fixture_expect_error(r.c.ctx, BASE_ERR_CONFIG, "DATA-46", piece);
        lora_layout_destroy(other);
    }
    other = peft_layout(&r.c, 4, QV | BASE_CONFIG_TARGET_UP);
    assert_int_equal(lora_peft_import(r.c.ctx, r.f->dir, r.c.spec, other, 2.0, r.values),
                     BASE_ERR_CONFIG);
    fixture_expect_error(
        r.c.ctx, BASE_ERR_CONFIG, "DATA-46",
        "adapts q_proj, v_proj, the configuration has targets q_proj, v_proj, up_proj");
    lora_layout_destroy(other);
    assert_int_equal(lora_peft_import(r.c.ctx, r.f->dir, r.c.spec, r.layout, 0.0, r.values),
                     BASE_ERR_ARG);
    fixture_expect_error(r.c.ctx, BASE_ERR_ARG, "INT-01", "scale 0");
    rig_deinit(&r);
}

static void features_are_refused_by_key(void **state)
{
    static const char *const keys[] = {
        "\"use_dora\":true",
        "\"bias\":\"lora_only\"",
        "\"modules_to_save\":[\"lm_head\"]",
        "\"lora_bias\":true",
        "\"fan_in_fan_out\":true",
        "\"layers_to_transform\":[0]",
        "\"layer_replication\":[[0,2]]",
        "\"init_lora_weights\":\"pissa\"",
        "\"init_lora_weights\":\"pissa_niter_16\"",
        "\"init_lora_weights\":\"olora\"",
        "\"init_lora_weights\":\"corda\"",
        "\"init_lora_weights\":\"loftq\"",
        "\"task_type\":\"SEQ_CLS\"",
        "\"use_qalora\":true",
        "\"zap\":1",
    };
    rig_t r;

    (void)state;
    rig_init(&r);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[40];

        (void)snprintf(key, sizeof key, "%.*s", (int)strcspn(keys[i], ":"), keys[i]);
        set_config(&r, keys[i]);
        expect_faults(&r, 1, "DATA-42", key);
    }
    set_config(&r, "\"rank_pattern\":{\"(q|v)_proj\":4},\"alpha_pattern\":{\"layers.[01].q\":8,"
                   "\"v\\\\d\":4,\"\":1,\"^\":1}");
    expect_faults(&r, 5, "DATA-42", "\"rank_pattern.(q|v)_proj\": is a regular expression");
    set_config(&r, "\"rank_pattern\":{\"q_proj\":1.5,\"v_proj\":0},\"alpha_pattern\":"
                   "{\"q_proj\":-1,\"v_proj\":\"8\"}");
    expect_faults(&r, 4, "DATA-04", "\"rank_pattern.q_proj\": is no positive integer");
    (void)snprintf(r.f->config, sizeof r.f->config, "{\"peft_type\":\"IA3\",\"use_dora\":true}");
    peft_folder_write(&r.c, r.f);
    expect_faults(&r, 4, "DATA-42", "\"use_dora\": is not supported");
    (void)snprintf(r.f->config, sizeof r.f->config, "{\"peft_type\":\"LORA\",\"lora_alpha\":8}");
    peft_folder_write(&r.c, r.f);
    expect_faults(&r, 1, "DATA-03", ROOT "/in/adapter_config.json: \"r\": is missing");
    rig_deinit(&r);
}

static void tensors_are_checked_in_one_pass(void **state)
{
    rig_t r;
    peft_tensor_t *t;

    (void)state;
    rig_init(&r);
    r.f->count--; /* B of layer 1's v */
    set_config(&r, "");
    expect_faults(&r, 1, "DATA-43",
                  "in/adapter_model.safetensors: tensor \"base_model.model.model.layers.1."
                  "self_attn.v_proj.lora_B.weight\" is missing, its other half is there");
    r.f->count--; /* and A */
    set_config(&r, "");
    expect_faults(&r, 1, "DATA-43", "no tensor of \"model.layers.1.self_attn.v_proj\"");
    r.f->count += 2;
    peft_folder_add(r.f, "model.layers.2.self_attn.q_proj", 4, 8, 12);
    set_config(&r, "");
    expect_faults(&r, 2, "DATA-44",
                  "the base has no linear layer \"model.layers.2.self_attn.q_proj\" within its 2 "
                  "layers");
    r.f->count -= 2;
    t = peft_folder_find(r.f, "0.self_attn.q_proj.lora_A");
    t->rows = 2;
    peft_folder_find(r.f, "0.self_attn.q_proj.lora_B")->rows = 11;
    t = peft_folder_find(r.f, "1.self_attn.q_proj.lora_B");
    t->dtype = DATA_I32;
    set_config(&r, "");
    expect_faults(&r, 3, "DATA-45", "has shape [2, 8], the base and rank 4 give [4, 8]");
    t->dtype = DATA_F32;
    t = peft_folder_find(r.f, "0.self_attn.q_proj.lora_A");
    t->rows = 4;
    peft_folder_find(r.f, "0.self_attn.q_proj.lora_B")->rows = 12;
    set_config(&r, "\"target_modules\":[\"q_proj\",\"layers.1.self_attn.v_proj\",\"o_proj\"]");
    expect_faults(&r, 2, "DATA-44", "\"target_modules\" of adapter_config.json leaves its module");
    rig_deinit(&r);
}

/* Complaint 14: names that loaders pass over, so that the adapter does nothing. */
static void names_of_other_tools_are_refused_complaint_14(void **state)
{
    static const struct {
        const char *name, *why;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj.lora_A.weight", "does not begin with"},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "is neither"},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"},
        {"base_model.model.model.embed_tokens.lora_embedding_A", "embedding"},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", "is a bias"},
        {"base_model.model.lm_head.weight", "modules_to_save"},
        {"base_model.model.lm_head.lora_A.weight", "no linear layer \"lm_head\""},
        {"base_model.model.layers.0.self_attn.q_proj.lora_A.weight", "no linear layer \"layers.0"},
        {"base_model.model.model.layers.0.input_layernorm.lora_A.weight", "no linear layer"},
    };
    rig_t r;

    (void)state;
    rig_init(&r);
    r.f->count++;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        peft_tensor_t *t = &r.f->tensors[r.f->count - 1];

        *t = (peft_tensor_t){.dtype = DATA_F32, .rows = 4, .columns = 8};
        (void)snprintf(t->name, sizeof t->name, "%s", cases[i].name);
        set_config(&r, "");
        expect_faults(&r, 1, "DATA-44", cases[i].why);
    }
    rig_deinit(&r);
}

static void what_is_no_adapter_folder(void **state)
{
    rig_t r;
    const char *const weights = ROOT "/in/adapter_model.safetensors";
    FILE *file;

    (void)state;
    rig_init(&r);
    expect_faults(&r, 1, "DATA-40", ROOT "/in: there is no such folder");
    peft_put(r.c.ctx, r.f->dir, "adapter_model.bin", "PK");
    expect_faults(&r, 1, "DATA-40", "has no adapter_config.json");
    peft_put(r.c.ctx, r.f->dir, "adapter_config.json", "{}");
    expect_faults(&r, 1, "DATA-41", "has only adapter_model.bin, a pickle");
    assert_int_equal(unlink(ROOT "/in/adapter_model.bin"), 0);
    expect_faults(&r, 1, "DATA-40", "has no adapter_model.safetensors");
    set_config(&r, "");
    assert_int_equal(truncate(weights, 900), 0);
    expect_faults(&r, 1, "DATA-06", weights);
    assert_int_equal(truncate(weights, 0), 0);
    expect_faults(&r, 1, "DATA-06", weights);
    /* Complaint 12: an empty adapter, as tools have saved it. */
    r.f->count = 0;
    set_config(&r, "");
    expect_faults(&r, 1, "DATA-43", "holds no tensor: the adapter was saved empty");
    /* A file that cannot be one is not read, and is no success either. */
    file = fopen(ROOT "/in/adapter_config.json", "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(ROOT "/in/adapter_config.json", 1 << 25), 0);
    assert_int_equal(lora_peft_import(r.c.ctx, r.f->dir, r.c.spec, r.layout, 2.0, r.values),
                     BASE_ERR_FORMAT);
    fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "IO-03", "adapter_config.json");
    (void)snprintf(r.f->dir, sizeof r.f->dir, ROOT "/base");
    expect_faults(&r, 1, "DATA-40", ROOT "/base: is a model, an adapter is wanted");
    rig_deinit(&r);
}

static void values_that_are_not_finite_are_refused(void **state)
{
    static const float bad[] = {NAN, INFINITY, 3e38f}; /* the last times 2 */
    rig_t r;

    (void)state;
    rig_init(&r);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        peft_folder_find(r.f, "1.self_attn.q_proj.lora_B")->values[9] = bad[i];
        set_config(&r, "");
        assert_int_equal(lora_peft_import(r.c.ctx, r.f->dir, r.c.spec, r.layout, 1.0, r.values),
                         BASE_ERR_FORMAT);
        fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-47",
                             "layers.1.self_attn.q_proj.lora_B.weight\": element 9 is ");
    }
    rig_deinit(&r);
}

static void memory_failures_leave_nothing(void **state)
{
    rig_t r;
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    rig_init(&r);
    set_config(&r, "\"rank_pattern\":{\"q_proj\":4},\"target_modules\":[\"q_proj\",\"v_proj\"]");
    for (int n = 1; st != BASE_OK; n++) {
        const int64_t live = base_memory_live_total(base_ctx_memory(r.c.ctx));

        assert_true(n < 200);
        base_memory_fail_at(base_ctx_memory(r.c.ctx), n);
        st = lora_peft_import(r.c.ctx, r.f->dir, r.c.spec, r.layout, 2.0, r.values);
        base_memory_fail_at(base_ctx_memory(r.c.ctx), 0);
        assert_true(st == BASE_OK || st == BASE_ERR_NOMEM);
        base_ctx_clear_error(r.c.ctx);
        assert_int_equal(base_memory_live_total(base_ctx_memory(r.c.ctx)), live);
    }
    expect_module(&r, 2, "layers.1.self_attn.q_proj", 1.0f);
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_is_read),
        cmocka_unit_test(rslora_is_honoured_complaint_19),
        cmocka_unit_test(patterns_are_honoured_complaint_20),
        cmocka_unit_test(patterns_match_as_in_peft),
        cmocka_unit_test(other_dtypes_are_read),
        cmocka_unit_test(an_export_comes_back),
        cmocka_unit_test(other_ranks_and_targets_are_refused),
        cmocka_unit_test(features_are_refused_by_key),
        cmocka_unit_test(tensors_are_checked_in_one_pass),
        cmocka_unit_test(names_of_other_tools_are_refused_complaint_14),
        cmocka_unit_test(what_is_no_adapter_folder),
        cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(memory_failures_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
