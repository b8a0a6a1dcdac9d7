/* Training in bf16, beside what transformers and PEFT make of the same problem in bf16: root mean
 * square distance of losses and of what training added to A and B from the own fp32 run, 10 steps of
 * three adapters in one job, Llama and Qwen3, 4 seeds. At most 1.3 times theirs (bf16_peer.py).
 *
 *   golden.bf16 [--device cpu|cuda] [--models DIR --peer FILE] [--json FILE]
 *
 * With --models and --peer other models than the golden ones; the distances go to --json too.
 *
 * The problem: adapter a begins as train_values(layout, 1000 seed + a, 0.08). Document d of adapter a
 * has 8 + word 0 of philox(16 seed + a, {0, d, 1, 'P'}) mod 113 rows; token t is 3 + word 0 of
 * philox(16 seed + a, {t, d, 0, 'P'}) mod (VOCAB - 3), supervised when word 1 is no multiple of 3
 * (t > 0). Four documents a batch in the order of their numbers, AdamW at a constant 1e-3 without
 * decay, clipped at 1. */
#include "tests/golden/golden_case.h"
#include "tests/support/ctx_fixture.h"
#include "tests/support/train_case.h"

#include "base/philox.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUM       3
#define STEPS     10
#define BATCH     4
#define DOCUMENTS (STEPS * BATCH)
#define VOCAB     97
#define LONGEST   120
#define RATIO     1.3
#define ALL       BASE_CONFIG_TARGET_ALL
#define SOME      (BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V | BASE_CONFIG_TARGET_DOWN)

static const lora_adapter_options_t adapters[NUM] = {
    {.name = "a", .rank = 4, .scale = 2.0, .targets = ALL},
    {.name = "b", .rank = 8, .scale = 2.0, .targets = SOME},
    {.name = "c", .rank = 16, .scale = 1.0, .targets = ALL}};

typedef struct options {
    base_device_kind_t device; /* of the bf16 run */
    char models[1024], peer[1024], json[1024];
    json_t *found; /* what --json gets */
} options_t;

typedef struct run {
    uint64_t seed;
    double *initial[NUM];
    int64_t count[NUM];
    train_log_t log[NUM];
} run_t;

/* ==== the problem ==== */

static void make_document(uint64_t seed, uint32_t adapter, uint32_t d, int32_t *tokens,
                          uint8_t *mask, data_document_t *document)
{
    const base_philox_key_t key = base_philox_key(seed * 16 + adapter);
    const int64_t rows = 8 + (int64_t)(base_philox(key, 0, d, 1, 'P').word[0] % 113);

    for (int64_t t = 0; t < rows; t++) {
        const base_philox_t r = base_philox(key, (uint32_t)t, d, 0, 'P');

        tokens[t] = 3 + (int32_t)(r.word[0] % (VOCAB - 3));
        mask[t] = t > 0 && r.word[1] % 3 != 0;
    }
    *document = (data_document_t){.tokens = tokens, .loss_mask = mask, .rows = rows};
}

static void data_path(uint64_t seed, int32_t adapter, char path[64])
{
    (void)snprintf(path, 64, "bf16_%llu_%d.h5", (unsigned long long)seed, adapter);
}

static void write_data(base_ctx_t *ctx, uint64_t seed, int32_t adapter, int64_t vocab)
{
    data_document_t documents[DOCUMENTS];
    char path[64];

    int32_t *tokens = calloc((size_t)DOCUMENTS * LONGEST, sizeof *tokens);
    uint8_t *mask = calloc((size_t)DOCUMENTS * LONGEST, sizeof *mask);
    assert_true(tokens != NULL && mask != NULL);
    for (uint32_t d = 0; d < DOCUMENTS; d++)
        make_document(seed, (uint32_t)adapter, d, tokens + d * LONGEST, mask + d * LONGEST,
                      &documents[d]);
    data_path(seed, adapter, path);
    assert_int_equal(train_write_dataset(ctx, path, documents, DOCUMENTS, vocab), BASE_OK);
    free(tokens);
    free(mask);
}

/* ==== a run ==== */

static base_status_t body(train_rank_t *rank, void *user)
{
    run_t *r = user;
    base_config_adapter_t configs[NUM];
    char paths[NUM][64];

    for (int32_t j = 0; j < NUM; j++) {
        data_path(r->seed, j, paths[j]);
        configs[j] = train_config(adapters[j].name, paths[j], STEPS, BATCH, 1e-3);
        configs[j].rank = adapters[j].rank;
    }
    return train_run_jobs(rank, configs, NUM, r->log);
}

static void model_path(const options_t *o, const char *family, char path[1200])
{
    char relative[64];

    (void)snprintf(relative, sizeof relative, "%s/model", family);
    if (o->models[0] != '\0')
        (void)snprintf(path, 1200, "%s/%s", o->models, relative);
    else
        (void)golden_path(relative, path, 1200);
}

static void run(const char *model, kern_dtype_t dtype, base_device_kind_t device, run_t *r)
{
    data_hf_folder_t *folder;
    base_ctx_t *ctx = fixture_ctx();

    assert_int_equal(data_hf_folder_open(ctx, model, NULL, &folder), BASE_OK);
    for (int32_t j = 0; j < NUM; j++) {
        lora_layout_t *layout;

        assert_int_equal(lora_layout_create(ctx, data_hf_folder_spec(folder), adapters[j].rank,
                                            adapters[j].targets, &layout),
                         BASE_OK);
        r->count[j] = layout->count;
        r->initial[j] = calloc((size_t)layout->count, sizeof(double));
        r->log[j] = (train_log_t){.final = calloc((size_t)layout->count, sizeof(double))};
        assert_true(r->initial[j] != NULL && r->log[j].final != NULL);
        train_values(layout, 1000 * r->seed + (uint64_t)j, 0.08, r->initial[j]);
        lora_layout_destroy(layout);
        write_data(ctx, r->seed, j, data_hf_folder_spec(folder)->vocab);
    }
    data_hf_folder_close(folder);
    const train_case_t c = {.folder = model,
                            .dtype = dtype,
                            .device = device,
                            .num_adapters = NUM,
                            .adapters = adapters,
                            .values = (const double *const *)r->initial,
                            .tokens_per_trainer = 2048,
                            .longest = LONGEST,
                            .body = body,
                            .user = r};
    train_case_run(&c);
    fixture_ctx_end(ctx);
}

static void free_run(run_t *r)
{
    for (int32_t j = 0; j < NUM; j++) {
        free(r->initial[j]);
        free(r->log[j].final);
    }
}

/* ==== distances ==== */

typedef struct squares {
    double off, whole;
} squares_t;

static void add_run(const run_t *narrow, const run_t *wide, squares_t *losses, squares_t *deltas)
{
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(narrow->log[j].steps, STEPS);
        for (int s = 0; s < STEPS; s++) {
            losses->off += pow(narrow->log[j].loss[s] - wide->log[j].loss[s], 2);
            losses->whole += pow(wide->log[j].loss[s], 2);
        }
        for (int64_t i = 0; i < wide->count[j]; i++) {
            deltas->off += pow(narrow->log[j].final[i] - wide->log[j].final[i], 2);
            deltas->whole += pow(wide->log[j].final[i] - wide->initial[j][i], 2);
        }
    }
}

/* The peer trained the same: fp32 losses agree as two fp32 programs do. */
static void check_problem(const run_t *wide, const json_t *theirs)
{
    const json_t *of_seed = json_array_get(theirs, (size_t)wide->seed - 1);

    for (int32_t j = 0; j < NUM; j++)
        for (int s = 0; s < STEPS; s++) {
            const double want =
                json_real_value(json_array_get(json_array_get(of_seed, (size_t)j), (size_t)s));
            if (!(fabs(wide->log[j].loss[s] - want) <= 1e-4 * want))
                fail_msg("seed %d, adapter %s, step %d: loss in fp32 is %.9g, the peer's %.9g",
                         (int)wide->seed, adapters[j].name, s + 1, wide->log[j].loss[s], want);
        }
}

/* Before it is judged, and all of it each time: a failure ends the program. */
static void keep(const options_t *o, const char *family, const char *what, double ours,
                 double theirs)
{
    if (o->json[0] == '\0') return;
    json_t *row = json_pack("{s:s, s:s, s:f, s:f, s:f}", "family", family, "what", what, "ours",
                            ours, "theirs", theirs, "ratio", ours / theirs);
    if (row == NULL || json_array_append_new(o->found, row) < 0 ||
        json_dump_file(o->found, o->json, JSON_INDENT(1)) < 0)
        fail_msg("%s: cannot be written", o->json);
}

static void check_ratio(const options_t *o, const char *family, const char *what,
                        const squares_t *ours, const json_t *peer)
{
    const double distance = sqrt(ours->off / ours->whole);
    const double theirs = json_real_value(json_object_get(peer, what));

    print_message("%s: %s: %.3e, transformers and PEFT %.3e: %.2f of theirs\n", family, what,
                  distance, theirs, distance / theirs);
    keep(o, family, what, distance, theirs);
    assert_true(theirs > 0.0 && distance > 0.0); /* bf16 was at work in both */
    if (!(distance <= RATIO * theirs))
        fail_msg("%s: %s: %.2f of the peer's, want at most %.2f", family, what, distance / theirs,
                 RATIO);
}

static void check_family(const options_t *o, const json_t *peers, const char *family)
{
    const json_t *peer = json_object_get(json_object_get(peers, "families"), family);
    const uint64_t seeds = (uint64_t)json_integer_value(json_object_get(peers, "seeds"));
    squares_t losses = {0}, deltas = {0};
    char model[1200];

    model_path(o, family, model);
    assert_true(peer != NULL && seeds > 0);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        run_t wide = {.seed = seed}, narrow = {.seed = seed};

        run(model, KERN_F32, BASE_DEVICE_CPU, &wide);
        run(model, KERN_BF16, o->device, &narrow);
        check_problem(&wide, json_object_get(peer, "fp32_losses"));
        add_run(&narrow, &wide, &losses, &deltas);
        free_run(&wide);
        free_run(&narrow);
    }
    check_ratio(o, family, "losses", &losses, peer);
    check_ratio(o, family, "deltas", &deltas, peer);
}

static void test_parity(void **state)
{
    const options_t *o = *state;
    char path[1024];
    json_error_t error;

    json_t *peers = json_load_file(
        o->peer[0] != '\0' ? o->peer : golden_path("bf16/peer.json", path, sizeof path), 0, &error);
    if (peers == NULL) fail_msg("%s: %s", error.source, error.text);
    check_family(o, peers, "llama");
    check_family(o, peers, "qwen3");
    json_decref(peers);
}

static options_t read_options(int argc, char **argv)
{
    options_t o = {.device = BASE_DEVICE_CPU};

    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--device") == 0 && strcmp(value, "cuda") == 0)
            o.device = BASE_DEVICE_CUDA;
        else if (strcmp(argv[i], "--models") == 0)
            (void)snprintf(o.models, sizeof o.models, "%s", value);
        else if (strcmp(argv[i], "--peer") == 0)
            (void)snprintf(o.peer, sizeof o.peer, "%s", value);
        else if (strcmp(argv[i], "--json") == 0)
            (void)snprintf(o.json, sizeof o.json, "%s", value);
        else if (strcmp(argv[i], "--device") != 0 || strcmp(value, "cpu") != 0) {
            (void)fprintf(stderr, "%s: not understood: %s %s\n", argv[0], argv[i], value);
            exit(2);
        }
    }
    return o;
}

int main(int argc, char **argv)
{
    options_t o = read_options(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(test_parity, &o)};

    o.found = json_array();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(o.found);
    return failed;
}
