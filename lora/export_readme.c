/* README.md of an exported adapter; the header is lora/export_peft.h. */
#include "lora/export_peft.h"

#include "base/file.h"
#include "lora/peft_import.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int64_t lora_export_vllm_rank(int64_t rank)
{
    static const int64_t allowed[] = {8, 16, 32, 64, 128, 256, 320, 512};

    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (rank <= allowed[i]) return allowed[i];
    return 0;
}

/* One word of a shell, quoted unless it is plain. */
static void put_word(FILE *f, const char *word)
{
    const char *const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "_-./=+:,@";

    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        (void)fputs(word, f);
        return;
    }
    (void)fputc('\'', f);
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '\'')
            (void)fputs("'\\''", f);
        else
            (void)fputc(*p, f);
    }
    (void)fputc('\'', f);
}

/* A literal of Python. */
static void put_literal(FILE *f, const char *text)
{
    (void)fputc('"', f);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') (void)fputc('\\', f);
        (void)fputc(*p, f);
    }
    (void)fputc('"', f);
}

/* NAME=DIR as one word. */
static void put_pair(FILE *f, const char *name, const char *dir)
{
    put_word(f, name);
    (void)fputc('=', f);
    put_word(f, dir);
}

static void put_vllm(FILE *f, const char *dir, const lora_export_t *a)
{
    const int64_t rank = lora_export_vllm_rank(a->layout->rank);

    (void)fprintf(f, "## vLLM\n\n");
    if (rank == 0) {
        (void)fprintf(f, "vLLM takes ranks up to 512; this one is %" PRId32 ".\n\n",
                      a->layout->rank);
        return;
    }
    (void)fprintf(f, "    vllm serve ");
    put_word(f, a->base_model);
    (void)fprintf(f, " --enable-lora --max-lora-rank %" PRId64 " --lora-modules ", rank);
    put_pair(f, a->name, dir);
    (void)fprintf(f, "\n\n");
}

static void put_sglang(FILE *f, const char *dir, const lora_export_t *a)
{
    (void)fprintf(f, "## SGLang\n\n");
    if (a->faithful && a->rslora) {
        (void)fprintf(f,
                      "SGLang ignores use_rslora: export this adapter in the portable form.\n\n");
        return;
    }
    (void)fprintf(f, "    python3 -m sglang.launch_server --model-path ");
    put_word(f, a->base_model);
    (void)fprintf(f, " --enable-lora --max-lora-rank %" PRId32 " --lora-target-modules",
                  a->layout->rank);
    for (int32_t t = 0; t < LORA_NUM_TARGETS; t++)
        if ((a->layout->targets & (1u << t)) != 0) (void)fprintf(f, " %s", lora_target_name(t));
    (void)fprintf(f, " --lora-paths ");
    put_pair(f, a->name, dir);
    (void)fprintf(f, "\n\n");
}

static void put_peft(FILE *f, const char *dir, const lora_export_t *a)
{
    (void)fprintf(f, "## PEFT\n\n"
                     "    from peft import PeftModel\n"
                     "    from transformers import AutoModelForCausalLM\n"
                     "    base = AutoModelForCausalLM.from_pretrained(");
    put_literal(f, a->base_model);
    (void)fprintf(f, ")\n    model = PeftModel.from_pretrained(base, ");
    put_literal(f, dir);
    (void)fprintf(f, ")\n\n");
}

static void put_llama_cpp(FILE *f, const char *dir, const lora_export_t *a)
{
    (void)fprintf(f, "## llama.cpp\n\n");
    if (a->faithful && a->rslora) {
        (void)fprintf(f, "The converter ignores use_rslora: export this adapter in the portable "
                         "form.\n");
        return;
    }
    (void)fprintf(f, "    python3 convert_lora_to_gguf.py --base ");
    put_word(f, a->base_model);
    (void)fprintf(f, " --outtype f32 --outfile ");
    put_word(f, a->name);
    (void)fprintf(f, ".gguf ");
    put_word(f, dir);
    (void)fprintf(f, "\n    llama-server -m BASE.gguf --lora ");
    put_word(f, a->name);
    (void)fprintf(f, ".gguf\n");
}

static void put_all(FILE *f, const char *dir, const lora_export_t *a)
{
    char targets[80];

    (void)fprintf(f,
                  "# %s\n\nA LoRA adapter of rank %" PRId32 " on %s: %" PRId64
                  " parameters, trained with alpha %.15g%s.\n%s\n\n",
                  a->name, a->layout->rank,
                  lora_targets_text(a->layout->targets, targets, sizeof targets), a->layout->count,
                  a->alpha, a->rslora ? " and rsLoRA" : "",
                  a->faithful ? "B is as trained; adapter_config.json has the scale."
                              : "Its scale is multiplied into B, so that every loader applies it.");
    put_vllm(f, dir, a);
    put_sglang(f, dir, a);
    put_peft(f, dir, a);
    put_llama_cpp(f, dir, a);
}

base_status_t lora_export_readme(base_ctx_t *ctx, const char *path, const char *dir,
                                 const lora_export_t *adapter)
{
    base_file_t *file;

    BASE_TRY(base_file_create(ctx, path, &file));
    put_all(base_file_stream(file), dir, adapter);
    return base_file_commit(file);
}
