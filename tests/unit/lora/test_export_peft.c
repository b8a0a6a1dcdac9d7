#include "tests/unit/lora/peft_fixture.h"

#include "base/file.h"
#include "lora/adapter_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOT "export_peft_test"
#define OUT  ROOT "/out"
#define W    OUT "/adapter_model.safetensors"

/* Takes the place of libc's: a file system that cannot exchange two folders. */
static bool no_exchange;
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    if (no_exchange) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

/* And this one a file system that loses what was written: a byte of the weights, or all of them but
 * 40 bytes; or that refuses the folder its name. */
static enum { HONEST, CHANGES_A_BYTE, CUTS_OFF, REFUSES } file_system;
int rename(const char *from, const char *to)
{
    if (file_system == REFUSES && strcmp(from, OUT ".tmp-0000") == 0) {
        errno = EIO;
        return -1;
    }
    if ((file_system == CHANGES_A_BYTE || file_system == CUTS_OFF) &&
        strstr(to, "/adapter_model.safetensors") != NULL) {
        FILE *file = fopen(from, "r+b");

        assert_non_null(file);
        assert_int_equal(fseek(file, -3, SEEK_END), 0);
        assert_int_not_equal(fputc(0x55, file), EOF);
        assert_int_equal(fclose(file), 0);
        if (file_system == CUTS_OFF) assert_int_equal(truncate(from, 40), 0);
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* A case, an adapter of rank 4 on q and v, and what it is made of. */
typedef struct rig {
    peft_case_t c;
    lora_layout_t *layout;
    float *values;
    lora_export_t a;
} rig_t;

static void rig_init(rig_t *r, int32_t rank, uint32_t targets)
{
    peft_case_init(&r->c, ROOT);
    r->layout = peft_layout(&r->c, rank, targets);
    r->values = peft_values(&r->c, r->layout, 1);
    r->a = peft_adapter(&r->c, r->layout, r->values);
}

static void rig_deinit(rig_t *r)
{
    base_free(r->c.ctx, r->values);
    lora_layout_destroy(r->layout);
    peft_case_deinit(&r->c);
}

static void export_good(rig_t *r, const char *dir)
{
    base_error_t error;

    if (lora_export_peft(r->c.ctx, dir, &r->a) != BASE_OK)
        fail_msg("%s", base_ctx_error(r->c.ctx, &error) ? error.text : "no text");
}

static void read_tensor(rig_t *r, const char *name, int64_t rows, int64_t columns, float *to)
{
    data_safetensors_t *file = NULL;
    const data_safetensors_entry_t *entry;

    assert_int_equal(data_safetensors_open(r->c.ctx, W, NULL, &file), BASE_OK);
    entry = data_safetensors_find(file, name);
    assert_non_null(entry);
    assert_int_equal(entry->dtype, DATA_F32);
    assert_int_equal(entry->rank, 2);
    assert_int_equal(entry->shape[0], rows);
    assert_int_equal(entry->shape[1], columns);
    assert_int_equal(data_safetensors_read(file, entry, 0, entry->bytes, to), BASE_OK);
    data_safetensors_close(file);
}

/* ==== what is written ==== */

static void the_portable_config_is_what_peft_writes(void **state)
{
    rig_t r;
    char *text;

    (void)state;
    rig_init(&r, 4, BASE_CONFIG_TARGET_ALL);
    r.a.dropout = 0.05;
    r.a.rslora = true;
    export_good(&r, OUT);
    text = peft_text(r.c.ctx, OUT, "adapter_config.json");
    assert_string_equal(text, "{\n"
                              "  \"alpha_pattern\": {},\n"
                              "  \"base_model_name_or_path\": \"meta-llama/Llama-3.1-8B\",\n"
                              "  \"bias\": \"none\",\n"
                              "  \"exclude_modules\": null,\n"
                              "  \"fan_in_fan_out\": false,\n"
                              "  \"inference_mode\": true,\n"
                              "  \"init_lora_weights\": true,\n"
                              "  \"layers_pattern\": null,\n"
                              "  \"layers_to_transform\": null,\n"
                              "  \"lora_alpha\": 4,\n"
                              "  \"lora_bias\": false,\n"
                              "  \"lora_dropout\": 0.05,\n"
                              "  \"modules_to_save\": null,\n"
                              "  \"peft_type\": \"LORA\",\n"
                              "  \"r\": 4,\n"
                              "  \"rank_pattern\": {},\n"
                              "  \"revision\": null,\n"
                              "  \"target_modules\": [\n"
                              "    \"down_proj\",\n"
                              "    \"gate_proj\",\n"
                              "    \"k_proj\",\n"
                              "    \"o_proj\",\n"
                              "    \"q_proj\",\n"
                              "    \"up_proj\",\n"
                              "    \"v_proj\"\n"
                              "  ],\n"
                              "  \"task_type\": \"CAUSAL_LM\",\n"
                              "  \"use_dora\": false,\n"
                              "  \"use_rslora\": false\n"
                              "}\n");
    base_free(r.c.ctx, text);
    assert_int_equal(peft_entries(OUT), 3);
    assert_int_equal(peft_entries(ROOT), 2); /* base and out: nothing temporary is left */
    rig_deinit(&r);
}

/* Complaint 19: SGLang and others multiply with alpha / r whatever use_rslora says. alpha 6, r 4:
 * rsLoRA's 6 / sqrt(4) = 3 has to reach them, not 6 / 4. */
static void the_scale_is_in_b_complaint_19(void **state)
{
    rig_t r;
    float a[32], b[48];
    const lora_module_t *m;

    (void)state;
    rig_init(&r, 4, QV);
    r.a.alpha = 6.0;
    r.a.rslora = true;
    export_good(&r, OUT);
    m = &r.layout->modules[2]; /* layer 1, q */
    read_tensor(&r, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", 4, 8, a);
    read_tensor(&r, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", 12, 4, b);
    assert_memory_equal(a, r.values + m->a, sizeof a);
    for (int i = 0; i < 48; i++)
        assert_true(b[i] == 3.0f * r.values[m->b + i]); /* exact: 8 bits times 3 */
    rig_deinit(&r);
}

static void faithful_keeps_alpha_and_b(void **state)
{
    rig_t r;
    float b[24];
    char *text;

    (void)state;
    rig_init(&r, 4, QV);
    r.a.faithful = true;
    r.a.rslora = true;
    export_good(&r, OUT);
    text = peft_text(r.c.ctx, OUT, "adapter_config.json");
    assert_non_null(strstr(text, "\"lora_alpha\": 8,"));
    assert_non_null(strstr(text, "\"use_rslora\": true"));
    base_free(r.c.ctx, text);
    read_tensor(&r, "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight", 6, 4, b);
    assert_memory_equal(b, r.values + r.layout->modules[1].b, sizeof b);
    r.a.alpha = 7.5;
    export_good(&r, OUT);
    text = peft_text(r.c.ctx, OUT, "adapter_config.json");
    assert_non_null(strstr(text, "\"lora_alpha\": 7.5,"));
    base_free(r.c.ctx, text);
    text = peft_text(r.c.ctx, OUT, "README.md");
    assert_non_null(strstr(text, "SGLang ignores use_rslora"));
    assert_null(strstr(text, "convert_lora_to_gguf"));
    base_free(r.c.ctx, text);
    rig_deinit(&r);
}

/* Complaint 12: folders of 40 bytes. Every number of the file is counted, and a file that lost
 * something on its way is found. */
static void the_file_is_complete_complaint_12(void **state)
{
    rig_t r;
    struct stat info;
    uint64_t header = 0;
    FILE *file;

    (void)state;
    rig_init(&r, 4, BASE_CONFIG_TARGET_ALL);
    export_good(&r, OUT);
    file = fopen(W, "rb");
    assert_non_null(file);
    assert_int_equal(fread(&header, 1, 8, file), 8);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(stat(W, &info), 0);
    /* q, k, v, o, gate, up, down of two layers: rank (in + out). */
    assert_int_equal(r.layout->count,
                     2 * 4 * ((8 + 12) + 2 * (8 + 6) + (12 + 8) + 2 * (8 + 10) + (10 + 8)));
    assert_int_equal(info.st_size, 8 + (int64_t)header + 4 * r.layout->count);
    assert_int_equal(header % 8, 0);
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_OK);

    r.values[r.layout->modules[13].b + 5] += 0.5f; /* the file now lacks this step */
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_ERR_IO);
    fixture_expect_error(r.c.ctx, BASE_ERR_IO, "DATA-49",
                         "content of tensor \"base_model.model.model.layers.1.mlp.down_proj.lora_B"
                         ".weight\" is not what was exported");
    r.values[r.layout->modules[13].b + 5] -= 0.5f;
    r.a.dropout = 0.5;
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_ERR_IO);
    fixture_expect_error(r.c.ctx, BASE_ERR_IO, "DATA-49", "a number of \"adapter_config.json\"");
    r.a.dropout = 0.0;
    assert_int_equal(data_safetensors_write(r.c.ctx, W, NULL, NULL, 0), BASE_OK);
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_ERR_IO);
    fixture_expect_error(r.c.ctx, BASE_ERR_IO, "DATA-49", "0 tensors, 28 were exported");
    assert_int_equal(truncate(W, 20), 0);
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_ERR_FORMAT);
    fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-06", W);
    rig_deinit(&r);
}

/* Complaint 12 again: what the file system lost is noticed before the folder has its name. */
static void a_failed_export_is_thrown_away_complaint_12(void **state)
{
    rig_t r;
    int faulty;

    (void)state;
    rig_init(&r, 4, QV);
    for (faulty = CHANGES_A_BYTE; faulty <= CUTS_OFF; faulty++) {
        base_error_t error;

        file_system = faulty == CUTS_OFF ? CUTS_OFF : CHANGES_A_BYTE;
        assert_true(lora_export_peft(r.c.ctx, OUT, &r.a) < 0);
        file_system = HONEST;
        assert_true(base_ctx_error(r.c.ctx, &error));
        assert_string_equal(base_message_id(error.message),
                            faulty == CUTS_OFF ? "DATA-06" : "DATA-49");
        base_ctx_clear_error(r.c.ctx);
        assert_int_equal(peft_entries(ROOT), 1);
    }
    export_good(&r, OUT);
    r.values[3] = 0.25f;
    file_system = CHANGES_A_BYTE;
    assert_int_equal(lora_export_peft(r.c.ctx, OUT, &r.a), BASE_ERR_IO);
    file_system = HONEST;
    base_ctx_clear_error(r.c.ctx);
    file_system = REFUSES;
    no_exchange = true;
    assert_int_equal(lora_export_peft(r.c.ctx, OUT, &r.a), BASE_ERR_IO);
    file_system = HONEST;
    no_exchange = false;
    fixture_expect_error(r.c.ctx, BASE_ERR_IO, "IO-02", OUT ": cannot rename " OUT ".tmp-0000");
    peft_fill(r.values, r.layout->count, 1);
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_OK); /* the old one */
    assert_int_equal(peft_entries(ROOT), 2);
    rig_deinit(&r);
}

/* The number that every tool prints for this adapter. */
static void llama_8b_has_41943040_parameters(void **state)
{
    const data_model_spec_t spec = {.num_layers = 32,
                                    .hidden = 4096,
                                    .intermediate = 14336,
                                    .vocab = 128256,
                                    .num_q_heads = 32,
                                    .num_kv_heads = 8,
                                    .head_dim = 128};
    base_ctx_t *ctx = fixture_ctx();
    char name[LORA_TENSOR_NAME_BYTES];
    lora_layout_t *layout = NULL;

    (void)state;
    assert_int_equal(lora_layout_create(ctx, &spec, 16, BASE_CONFIG_TARGET_ALL, &layout), BASE_OK);
    assert_int_equal(layout->count, 41943040);
    assert_int_equal(2 * layout->num_modules, 448);
    lora_tensor_name(layout->modules[223].layer, layout->modules[223].target, true, name);
    assert_string_equal(name, "base_model.model.model.layers.31.mlp.down_proj.lora_B.weight");
    assert_int_equal(layout->modules[223].b + layout->modules[223].out * 16, 41943040);
    lora_layout_destroy(layout);
    fixture_ctx_end(ctx);
}

/* Complaint 15: the exact serve line. */
static void the_readme_has_the_serve_lines_complaint_15(void **state)
{
    rig_t r;
    char *text;

    (void)state;
    rig_init(&r, 24, QV);
    export_good(&r, OUT);
    text = peft_text(r.c.ctx, OUT, "README.md");
    assert_non_null(strstr(text, "    vllm serve meta-llama/Llama-3.1-8B --enable-lora "
                                 "--max-lora-rank 32 --lora-modules code=" OUT "\n"));
    assert_non_null(strstr(text, "--max-lora-rank 24 --lora-target-modules q_proj v_proj "
                                 "--lora-paths code=" OUT "\n"));
    assert_non_null(strstr(text, "PeftModel.from_pretrained(base, \"" OUT "\")"));
    assert_non_null(strstr(text, "convert_lora_to_gguf.py --base meta-llama/Llama-3.1-8B"));
    base_free(r.c.ctx, text);
    export_good(&r, ROOT "/it's here/");
    text = peft_text(r.c.ctx, ROOT "/it's here", "README.md");
    assert_non_null(strstr(text, "code='" ROOT "/it'\\''s here'\n"));
    base_free(r.c.ctx, text);
    assert_int_equal(lora_export_vllm_rank(1), 8);
    assert_int_equal(lora_export_vllm_rank(16), 16);
    assert_int_equal(lora_export_vllm_rank(17), 32);
    assert_int_equal(lora_export_vllm_rank(257), 320);
    assert_int_equal(lora_export_vllm_rank(512), 512);
    assert_int_equal(lora_export_vllm_rank(513), 0);
    rig_deinit(&r);
}

/* ==== what is refused ==== */

static void values_that_are_not_finite_are_refused(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 2e38f}; /* the last times 2 */
    rig_t r;
    float *value;

    (void)state;
    rig_init(&r, 4, QV);
    value = &r.values[r.layout->modules[3].b + 7];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        *value = bad[i];
        assert_int_equal(lora_export_peft(r.c.ctx, OUT, &r.a), BASE_ERR_FORMAT);
        fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-47",
                             OUT ": tensor \"base_model.model.model.layers.1.self_attn.v_proj."
                                 "lora_B.weight\": element 7 is not finite; nothing is written");
        assert_int_equal(peft_entries(ROOT), 1);
    }
    r.a.faithful = true; /* 2e38 itself is a number */
    export_good(&r, OUT);
    r.values[0] = NAN;
    assert_int_equal(lora_export_peft(r.c.ctx, OUT, &r.a), BASE_ERR_FORMAT);
    base_ctx_clear_error(r.c.ctx);
    r.values[0] = 0.0f;
    peft_fill(r.values, 1, 1);
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_OK); /* the old one is intact */
    rig_deinit(&r);
}

/* Complaint 14: names and shapes against the base folder's own tensors. */
static void another_base_is_refused_complaint_14(void **state)
{
    rig_t r;

    (void)state;
    rig_init(&r, 4, QV);
    r.layout->modules[2].layer = 2;
    assert_int_equal(lora_export_peft(r.c.ctx, OUT, &r.a), BASE_ERR_FORMAT);
    fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-44",
                         "code: the base has no tensor \"model.layers.2.self_attn.q_proj.weight\"");
    r.layout->modules[2].layer = 1;
    r.layout->modules[2].in = 12;
    assert_int_equal(lora_export_peft(r.c.ctx, OUT, &r.a), BASE_ERR_FORMAT);
    fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-45",
                         "B A of \"model.layers.1.self_attn.q_proj\" has shape [12, 12], the "
                         "base's \"model.layers.1.self_attn.q_proj.weight\" has [12, 8]");
    assert_int_equal(peft_entries(ROOT), 1);
    rig_deinit(&r);
}

static void refuse_folder(rig_t *r, const char *dir, const char *piece)
{
    assert_int_equal(lora_export_peft(r->c.ctx, dir, &r->a), BASE_ERR_CONFIG);
    fixture_expect_error(r->c.ctx, BASE_ERR_CONFIG, "DATA-48", piece);
}

static void only_adapter_folders_are_replaced(void **state)
{
    rig_t r;

    (void)state;
    rig_init(&r, 4, QV);
    refuse_folder(&r, ROOT "/base", ROOT "/base: holds what no adapter folder has: ");
    assert_true(peft_exists(ROOT "/base", "model.safetensors"));
    peft_put(r.c.ctx, OUT, "README.md", "mine");
    refuse_folder(&r, OUT, "is no adapter folder: it has no adapter_config.json");
    peft_put(r.c.ctx, OUT, "adapter_config.json", "{}");
    peft_put(r.c.ctx, OUT, "notes.txt", "mine");
    refuse_folder(&r, OUT, OUT ": holds what no adapter folder has: notes.txt");
    assert_true(peft_exists(OUT, "notes.txt"));
    assert_int_equal(unlink(OUT "/notes.txt"), 0);
    export_good(&r, OUT "/"); /* slashes at the end are dropped */
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_OK);
    peft_put(r.c.ctx, ROOT, "file", "mine");
    refuse_folder(&r, ROOT "/file", ROOT "/file: is a file");
    assert_int_equal(symlink("out", ROOT "/link"), 0);
    refuse_folder(&r, ROOT "/link", ROOT "/link: is a link");
    assert_int_equal(lora_export_peft(r.c.ctx, ROOT "/file/out", &r.a), BASE_ERR_IO);
    fixture_expect_error(r.c.ctx, BASE_ERR_IO, "IO-02", ROOT "/file");
    rig_deinit(&r);
}

static void replace_as_a_whole(void)
{
    rig_t r;
    char *first, *second;

    rig_init(&r, 4, QV);
    assert_int_equal(base_file_make_dirs(r.c.ctx, OUT), BASE_OK); /* empty */
    export_good(&r, OUT);
    peft_put(r.c.ctx, OUT, "adapter_model.bin", "a pickle of an older export");
    peft_put(r.c.ctx, OUT, "README.md.tmp-0003", "of a run that died");
    peft_put(r.c.ctx, ROOT "/out.tmp-0000", "adapter_config.json", "of a run that died");
    first = peft_text(r.c.ctx, OUT, "README.md");
    r.values[3] = 0.25f;
    export_good(&r, OUT);
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_OK);
    assert_int_equal(peft_entries(OUT), 3);
    assert_int_equal(peft_entries(ROOT), 2);
    second = peft_text(r.c.ctx, OUT, "README.md");
    assert_string_equal(first, second);
    base_free(r.c.ctx, first);
    base_free(r.c.ctx, second);

    peft_put(r.c.ctx, ROOT "/out.tmp-0000", "mine", "text");
    assert_int_equal(lora_export_peft(r.c.ctx, OUT, &r.a), BASE_ERR_IO);
    fixture_expect_error(r.c.ctx, BASE_ERR_IO, "IO-02", "out.tmp-0000: is in the way");
    assert_true(peft_exists(ROOT "/out.tmp-0000", "mine"));
    rig_deinit(&r);
}

static void what_was_there_is_replaced_as_a_whole(void **state)
{
    (void)state;
    replace_as_a_whole();
    no_exchange = true;
    replace_as_a_whole();
    no_exchange = false;
}

/* Whatever allocation fails: an error, nothing left in memory, nothing new on disk but the whole
 * folder. */
static void fail_all_allocations(void)
{
    rig_t r;
    base_status_t st = BASE_ERR_NOMEM;

    rig_init(&r, 4, QV);
    export_good(&r, OUT);
    for (int n = 1; st != BASE_OK; n++) {
        const int64_t live = base_memory_live_total(base_ctx_memory(r.c.ctx));

        assert_true(n < 500);
        r.values[3] = (float)n;
        base_memory_fail_at(base_ctx_memory(r.c.ctx), n);
        st = lora_export_peft(r.c.ctx, OUT, &r.a);
        base_memory_fail_at(base_ctx_memory(r.c.ctx), 0);
        assert_true(st == BASE_OK || st == BASE_ERR_NOMEM);
        base_ctx_clear_error(r.c.ctx);
        assert_int_equal(base_memory_live_total(base_ctx_memory(r.c.ctx)), live);
        assert_int_equal(peft_entries(ROOT), 2);
        assert_int_equal(peft_entries(OUT), 3);
    }
    assert_int_equal(lora_export_compare(r.c.ctx, OUT, &r.a), BASE_OK);
    rig_deinit(&r);
}

static void memory_failures_leave_nothing(void **state)
{
    (void)state;
    fail_all_allocations();
    no_exchange = true;
    fail_all_allocations();
    no_exchange = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_portable_config_is_what_peft_writes),
        cmocka_unit_test(the_scale_is_in_b_complaint_19),
        cmocka_unit_test(faithful_keeps_alpha_and_b),
        cmocka_unit_test(the_file_is_complete_complaint_12),
        cmocka_unit_test(a_failed_export_is_thrown_away_complaint_12),
        cmocka_unit_test(llama_8b_has_41943040_parameters),
        cmocka_unit_test(the_readme_has_the_serve_lines_complaint_15),
        cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(another_base_is_refused_complaint_14),
        cmocka_unit_test(only_adapter_folders_are_replaced),
        cmocka_unit_test(what_was_there_is_replaced_as_a_whole),
        cmocka_unit_test(memory_failures_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
