#include "trainer/bench/bench_attention.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/version.h"
#include "trainer/bench/bench_attention_peer.h"
#include "trainer/bench/bench_attention_profile.h"
#include "trainer/bench/bench_attention_report.h"

#include <string.h>
#include <unistd.h>

#define HELD_OUT_PER_CENT 5

typedef struct bench {
    base_ctx_t *ctx;
    tr_bench_attention_t *options;
    tr_attention_rig_t *rig;
    tr_attention_peer_t *peer; /* or NULL */
    base_json_t *json;         /* or NULL */
    tr_attention_rig_t
        *dense;         /* TR_ATTENTION_DENSE, loaded; NULL until a case is compared with it */
    double dense_flops; /* of its forward */
} bench_t;

/* ==== cases ==== */

/* The dense case beside others: a rig of its own, so that both stay loaded. */
static base_status_t load_dense(bench_t *b)
{
    const tr_attention_case_t *of = tr_attention_case_find(TR_ATTENTION_DENSE);
    tr_attention_set_t set = {0};
    base_status_t st;

    if (b->dense != NULL) return BASE_OK;
    BASE_TRY(tr_attention_set_make(b->ctx, of, b->options->shrink, &set));
    BASE_TRY_GOTO(tr_attention_rig_open(b->ctx, b->options->device, b->options->ops, &b->dense), st,
                  done);
    BASE_TRY_GOTO(tr_attention_rig_load(b->dense, &of->shape, &set), st, done);
    b->dense_flops = tr_attention_set_flops(&of->shape, &set);
done:
    tr_attention_set_free(b->ctx, &set);
    return st;
}

static base_status_t time_direction(const bench_t *b, int d, tr_attention_result_t *result)
{
    const int32_t first = result->num_samples;
    tr_attention_time_t time;

    for (int32_t i = 0; i < b->options->samples; i++)
        BASE_TRY(tr_attention_rig_time(b->rig, d, &result->times[d][first + i]));
    for (int32_t i = 0; i < b->options->samples && result->of->of_dense; i++) {
        BASE_TRY(tr_attention_rig_time(b->dense, d, &time));
        result->dense_ns[d][first + i] = time.call_ns;
    }
    return BASE_OK;
}

static base_status_t time_round(bench_t *b, const tr_attention_set_t *set, int32_t round,
                                tr_attention_result_t *result)
{
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
        BASE_TRY(time_direction(b, d, result));
    result->num_samples += b->options->samples;
    if (b->peer == NULL) return BASE_OK;
    return tr_attention_peer_ask(b->peer, result->of, set, round, b->options->samples,
                                 &result->answers);
}

static base_status_t time_case(bench_t *b, const tr_attention_set_t *set,
                               tr_attention_result_t *result)
{
    result->num_tasks = set->num_tasks;
    BASE_TRY(tr_attention_rig_load(b->rig, &result->of->shape, set));
    if (result->of->of_dense) BASE_TRY(load_dense(b));
    for (int32_t round = 0; round < b->options->rounds; round++)
        BASE_TRY(time_round(b, set, round, result));
    const bool full = tr_attention_rig_is_gpu(b->rig) && b->options->shrink == 1;
    tr_attention_judge(result, tr_attention_set_flops(&result->of->shape, set), b->dense_flops,
                       full);
    return BASE_OK;
}

static base_status_t run_case(bench_t *b, const tr_attention_case_t *of)
{
    tr_attention_result_t *result =
        base_calloc(b->ctx, 1, sizeof *result, "bench: result of a case");
    tr_attention_set_t set = {0};
    base_status_t st;

    if (result == NULL) return BASE_ERR_NOMEM;
    result->of = of;
    BASE_TRY_GOTO(tr_attention_set_make(b->ctx, of, b->options->shrink, &set), st, done);
    BASE_TRY_GOTO(time_case(b, &set, result), st, done);
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
        if (!result->met[d]) b->options->met = false;
    tr_attention_print(b->options->out, result);
    if (b->json != NULL) tr_attention_write(b->json, result);
done:
    tr_attention_set_free(b->ctx, &set);
    base_free(b->ctx, result);
    return st;
}

static bool is_wanted(const bench_t *b, const tr_attention_case_t *of)
{
    return b->options->only == NULL || strstr(of->name, b->options->only) != NULL;
}

static base_status_t run_cases(bench_t *b)
{
    int32_t count, wanted = 0;
    const tr_attention_case_t *cases = tr_attention_cases(&count);

    for (int32_t i = 0; i < count; i++)
        wanted += is_wanted(b, &cases[i]);
    if (wanted == 0)
        return BASE_FAIL(b->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--only: no case has \"%s\" in its name; the first is \"%s\"",
                         b->options->only, cases[0].name);
    tr_attention_print_head(b->options->out);
    for (int32_t i = 0; i < count; i++)
        if (is_wanted(b, &cases[i])) BASE_TRY(run_case(b, &cases[i]));
    return BASE_OK;
}

/* ==== the profile ==== */

static base_status_t run_profile(bench_t *b)
{
    const tr_attention_profile_t options = {.group = b->options->group,
                                            .head_dim = b->options->head_dim,
                                            .max_keys = b->options->max_keys};
    tr_held_out_t held_out[TR_ATTENTION_HELD_OUT];
    as_profile_t profile;

    BASE_TRY(tr_attention_profile_make(b->ctx, b->rig, &options, &profile, held_out));
    if (tr_held_out_print(b->options->out, held_out, TR_ATTENTION_HELD_OUT) > HELD_OUT_PER_CENT)
        b->options->met = false;
    return tr_profile_save(b->ctx, b->options->profile, b->options->out, &profile);
}

/* ==== all of it ==== */

static void write_machine(const bench_t *b)
{
    char host[256] = "", cpu[AS_PROFILE_TEXT_BYTES], date[BASE_CLOCK_TEXT_BYTES];

    (void)gethostname(host, sizeof host - 1);
    base_version_cpu(cpu, sizeof cpu);
    base_clock_format(base_clock_wall_ns(), date);
    base_json_put_string(b->json, "date", date);
    base_json_put_string(b->json, "host", host);
    base_json_put_string(b->json, "cpu", cpu);
    base_json_put_string(b->json, "device", tr_attention_rig_device(b->rig));
    base_json_put_string(b->json, "commit", base_version_commit());
    base_json_put_string(b->json, "ops", b->options->ops->name);
    base_json_put_string(b->json, "peer", b->options->peer);
    base_json_put_int(b->json, "shrink", b->options->shrink);
}

static base_status_t run_grid(bench_t *b)
{
    const tr_attention_profile_t options = {.group = b->options->group,
                                            .head_dim = b->options->head_dim,
                                            .max_keys = b->options->max_keys};

    base_json_key(b->json, "grid");
    return tr_attention_grid(b->ctx, b->rig, &options, b->json);
}

static base_status_t run_all(bench_t *b)
{
    if (b->json != NULL) {
        base_json_begin_object(b->json);
        write_machine(b);
    }
    if (b->options->cases) {
        if (b->json != NULL) {
            base_json_key(b->json, "cases");
            base_json_begin_array(b->json);
        }
        BASE_TRY(run_cases(b));
        if (b->json != NULL) base_json_end(b->json);
    }
    if (b->options->profile != NULL) {
        BASE_TRY(run_profile(b));
        if (b->json != NULL) BASE_TRY(run_grid(b));
    }
    if (b->json == NULL) return BASE_OK;
    base_json_end(b->json);
    base_json_newline(b->json);
    return base_json_finish(b->json, b->ctx, b->options->json);
}

static base_status_t open_and_run(bench_t *b)
{
    BASE_TRY(tr_attention_rig_open(b->ctx, b->options->device, b->options->ops, &b->rig));
    if (b->options->peer != NULL && b->options->cases)
        BASE_TRY(tr_attention_peer_start(b->ctx, b->options->peer, &b->peer));
    return run_all(b);
}

base_status_t tr_bench_attention(base_ctx_t *ctx, tr_bench_attention_t *options)
{
    bench_t b = {.ctx = ctx, .options = options};
    base_file_t *file = NULL;
    base_json_t json;

    options->met = true;
    if (options->json != NULL) {
        BASE_TRY(base_file_create(ctx, options->json, &file));
        base_json_to_file(&json, base_file_stream(file));
        base_json_set_indent(&json, 1);
        b.json = &json;
    }
    base_status_t st = open_and_run(&b);
    tr_attention_peer_stop(b.peer);
    tr_attention_rig_close(b.rig);
    tr_attention_rig_close(b.dense);
    if (file == NULL) return st;
    if (st >= 0) return base_file_commit(file);
    base_file_discard(file);
    return st;
}
