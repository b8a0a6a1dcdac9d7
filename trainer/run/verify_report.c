#include "trainer/run/verify_report.h"

#include "base/json_write.h"
#include "lora/adapter_folder.h"
#include "lora/export_peft.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define LINE_BYTES 8192

/* ==== per target ==== */

typedef struct target_sum {
    int64_t modules, zero_b;
    double delta; /* Frobenius norm over its modules */
} target_sum_t;

static void sum_targets(const lora_verify_t *report, target_sum_t sums[LORA_NUM_TARGETS])
{
    memset(sums, 0, LORA_NUM_TARGETS * sizeof *sums);
    for (int64_t m = 0; m < report->num_modules; m++) {
        const lora_verify_module_t *module = &report->modules[m];
        target_sum_t *s = &sums[module->target];

        s->modules++;
        s->zero_b += module->zero_b;
        s->delta = hypot(s->delta, module->delta);
    }
}

/* ==== the lines that serve it ==== */

typedef struct line {
    char text[LINE_BYTES];
    size_t bytes;
} line_t;

static void put(line_t *l, const char *text)
{
    const size_t room = sizeof l->text - l->bytes, bytes = strlen(text);

    if (bytes >= room) return; /* paths are shorter, all together */
    memcpy(l->text + l->bytes, text, bytes + 1);
    l->bytes += bytes;
}

/* As one word of a shell. */
static void put_word(line_t *l, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_-./+:,@";

    if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
        put(l, word);
        return;
    }
    put(l, "'");
    for (const char *p = word; *p != '\0'; p++) {
        const char one[2] = {*p, '\0'};
        put(l, *p == '\'' ? "'\\''" : one);
    }
    put(l, "'");
}

/* "code=runs/three/adapters/code": the folder's own name, by which requests ask for it. */
static void put_pair(line_t *l, const char *dir)
{
    size_t end = strlen(dir), begin;
    char name[256];

    while (end > 1 && dir[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && dir[begin - 1] != '/';)
        begin--;
    (void)snprintf(name, sizeof name, "%.*s", (int)(end - begin), dir + begin);
    put_word(l, name);
    put(l, "=");
    put_word(l, dir);
}

static void vllm_line(const tr_verify_t *v, const lora_peft_info_t *info, line_t *l)
{
    const int64_t rank = lora_export_vllm_rank(info->rank);
    char number[32];

    l->bytes = 0;
    if (rank == 0) {
        put(l, "# vLLM takes ranks up to 512");
        return;
    }
    (void)snprintf(number, sizeof number, "%" PRId64, rank);
    put(l, "vllm serve ");
    put_word(l, v->sources.model);
    put(l, " --enable-lora --max-lora-rank ");
    put(l, number);
    put(l, " --lora-modules ");
    put_pair(l, v->sources.adapter);
}

static void sglang_line(const tr_verify_t *v, const lora_peft_info_t *info, line_t *l)
{
    char number[32];

    l->bytes = 0;
    if (info->rslora || info->patterns) {
        put(l, "# SGLang ignores use_rslora and patterns of adapter_config.json: export the "
               "adapter in the portable form");
        return;
    }
    (void)snprintf(number, sizeof number, "%" PRId32, info->rank);
    put(l, "python3 -m sglang.launch_server --model-path ");
    put_word(l, v->sources.model);
    put(l, " --enable-lora --max-lora-rank ");
    put(l, number);
    put(l, " --lora-target-modules");
    for (int32_t t = 0; t < LORA_NUM_TARGETS; t++) {
        if ((info->targets & (1u << t)) == 0) continue;
        put(l, " ");
        put(l, lora_target_name(t));
    }
    put(l, " --lora-paths ");
    put_pair(l, v->sources.adapter);
}

/* ==== text ==== */

static void print_targets(FILE *out, const lora_verify_t *report)
{
    target_sum_t sums[LORA_NUM_TARGETS];

    sum_targets(report, sums);
    (void)fprintf(out, "\nmodule     layers  without effect  |change of the weight|\n");
    for (int32_t t = 0; t < LORA_NUM_TARGETS; t++) {
        if (sums[t].modules == 0) continue;
        (void)fprintf(out, "%-9s  %6" PRId64 "  %14" PRId64 "  %22.6g\n", lora_target_name(t),
                      sums[t].modules, sums[t].zero_b, sums[t].delta);
    }
    (void)fprintf(out, "%-9s  %6s  %14s  %22.6g\n", "all", "", "", report->delta);
    if (report->does_nothing) return;
    char name[DATA_MODEL_NAME_BYTES];
    const lora_verify_module_t *most = &report->modules[report->max_module];
    lora_module_name(most->layer, most->target, name);
    (void)fprintf(out, "largest: %s, %.6g\n", name, report->max_delta);
}

void tr_verify_print_text(const tr_verify_t *v, const tr_score_inputs_t *in,
                          const tr_verify_logits_t *found)
{
    const lora_peft_info_t *info = lora_peft_info(in->adapter);
    const lora_verify_t *report = in->verified;
    FILE *out = v->out;
    line_t line;

    (void)fprintf(out,
                  "model    %s\nadapter  %s\n"
                  "fits: %" PRId64 " tensors, %" PRId64 " parameters, rank %" PRId32
                  ", names and shapes as in the base\n",
                  v->sources.model, v->sources.adapter, report->num_tensors, report->parameters,
                  info->rank);
    print_targets(out, report);
    (void)fprintf(out, "\nlogits over %" PRId64 " rows of %s\n", found->rows,
                  in->dataset != NULL ? data_dataset_path(in->dataset) : "random tokens");
    (void)fprintf(out,
                  "largest |difference|  %.6g\n"
                  "mean |difference|     %.6g\n"
                  "best token differs    in %" PRId64 " rows, %.1f %%\n\n",
                  found->max, found->mean, found->changed,
                  100.0 * (double)found->changed / (double)found->rows);
    if (v->does_nothing) {
        (void)fprintf(out, "no: the adapter does nothing; every logit is the base's\n");
        return;
    }
    (void)fprintf(out, "yes: the adapter changes the model. To serve it:\n");
    vllm_line(v, info, &line);
    (void)fprintf(out, "  %s\n", line.text);
    sglang_line(v, info, &line);
    (void)fprintf(out, "  %s\n", line.text);
}

/* ==== JSON ==== */

static void put_targets(base_json_t *j, const lora_verify_t *report)
{
    target_sum_t sums[LORA_NUM_TARGETS];

    sum_targets(report, sums);
    base_json_key(j, "targets");
    base_json_begin_object(j);
    for (int32_t t = 0; t < LORA_NUM_TARGETS; t++)
        if (sums[t].modules > 0) base_json_put_double(j, lora_target_name(t), sums[t].delta);
    base_json_end(j);
}

base_status_t tr_verify_print_json(base_ctx_t *ctx, const tr_verify_t *v,
                                   const tr_score_inputs_t *in, const tr_verify_logits_t *found)
{
    const lora_peft_info_t *info = lora_peft_info(in->adapter);
    line_t line;
    base_json_t j;

    base_json_to_file(&j, v->out);
    base_json_begin_object(&j);
    base_json_put_bool(&j, "changes", !v->does_nothing);
    base_json_put_int(&j, "rank", info->rank);
    base_json_put_int(&j, "tensors", in->verified->num_tensors);
    base_json_put_int(&j, "parameters", in->verified->parameters);
    base_json_put_int(&j, "modules_without_effect", in->verified->num_zero_b);
    base_json_put_double(&j, "delta", in->verified->delta);
    put_targets(&j, in->verified);
    base_json_put_int(&j, "rows", found->rows);
    base_json_put_double(&j, "max_difference", found->max);
    base_json_put_double(&j, "mean_difference", found->mean);
    base_json_put_int(&j, "changed_rows", found->changed);
    base_json_key(&j, "serve");
    base_json_begin_array(&j);
    vllm_line(v, info, &line);
    base_json_string(&j, line.text);
    sglang_line(v, info, &line);
    base_json_string(&j, line.text);
    base_json_end(&j);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, ctx, "standard output");
}
