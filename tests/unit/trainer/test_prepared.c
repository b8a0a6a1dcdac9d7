#include "tests/unit/trainer/run_fixture.h"

#include "data/dataset_write.h"
#include "trainer/run/prepare_jobs.h"
#include "trainer/run/prepared.h"

static const char LORA[] = "model: base\n"
                           "output: run/\n"
                           "defaults: {epochs: 1, learning_rate: 1e-4}\n"
                           "adapters:\n"
                           "  - {name: legal, data: legal.jsonl, eval: check.jsonl}\n"
                           "  - {name: ready, data: ready.h5}\n";
static const char FULL[] = "model: base\n"
                           "output: run\n"
                           "data: all.jsonl\n"
                           "train: {mode: full}\n"
                           "defaults: {epochs: 1, learning_rate: 1e-4}\n";
static const char SOURCE[] = "{\"text\": \"a\"}\n";
static const char TOKENIZER[] = "{}";
/* The digest is of what the escapes mean. */
static const char CONFIG_WITH_TEMPLATE[] = "{\"chat_template\": \"{{ \\u00e9 }}\\n\"}";
static const char TEMPLATE[] = "{{ \xc3\xa9 }}\n";

static void put(base_ctx_t *ctx, const char *path, const char *text)
{
    assert_int_equal(base_file_write(ctx, path, text, strlen(text)), BASE_OK);
}

/* run/prepared/legal.h5, as the tool would make it of these. */
static void prepare(base_ctx_t *ctx, const char *source, const char *tokenizer,
                    const char *template_text)
{
    const int64_t offsets[] = {0, 2};
    const int32_t tokens[] = {1, 2};
    const uint8_t mask[] = {0, 1};
    char source_hex[BASE_SHA256_HEX_BYTES], tokenizer_hex[BASE_SHA256_HEX_BYTES];
    char template_hex[BASE_SHA256_HEX_BYTES] = "";

    base_sha256_hex(source, strlen(source), source_hex);
    base_sha256_hex(tokenizer, strlen(tokenizer), tokenizer_hex);
    if (template_text != NULL) base_sha256_hex(template_text, strlen(template_text), template_hex);
    const data_dataset_content_t content = {.attributes = {.creator = "a test",
                                                           .tokenizer_sha256 = tokenizer_hex,
                                                           .template_sha256 = template_hex,
                                                           .source = "legal.jsonl",
                                                           .source_sha256 = source_hex,
                                                           .settings = "{}",
                                                           .vocab_size = 3,
                                                           .eos_id = 2,
                                                           .bos_id = -1,
                                                           .num_documents = 1},
                                            .offsets = offsets,
                                            .tokens = tokens,
                                            .loss_mask = mask};
    assert_int_equal(data_dataset_write(ctx, "run/prepared/legal.h5", &content), BASE_OK);
}

static int setup(void **state)
{
    assert_int_equal(run_setup(state), 0);
    base_ctx_t *ctx = ((run_place_t *)*state)->ctx;

    assert_int_equal(base_file_make_dirs(ctx, "run/prepared"), BASE_OK);
    assert_int_equal(base_file_make_dirs(ctx, "base"), BASE_OK);
    put(ctx, "legal.jsonl", SOURCE);
    put(ctx, "base/tokenizer.json", TOKENIZER);
    return 0;
}

static void expect_path(base_ctx_t *ctx, const base_config_t *config,
                        const base_config_adapter_t *job, tr_prepared_set_t set, const char *want)
{
    char *path = NULL;

    assert_int_equal(tr_prepared_path(ctx, config, job, set, &path), BASE_OK);
    assert_string_equal(path, want);
    base_free(ctx, path);
}

static void paths(void **state)
{
    base_ctx_t *ctx = ((run_place_t *)*state)->ctx;
    base_config_t *config = run_config(ctx, LORA);

    expect_path(ctx, config, &config->adapters[0], TR_PREPARED_DATA, "run/prepared/legal.h5");
    expect_path(ctx, config, &config->adapters[0], TR_PREPARED_EVAL, "run/prepared/legal.eval.h5");
    expect_path(ctx, config, &config->adapters[1], TR_PREPARED_DATA, "ready.h5");
    assert_null(tr_prepared_source(&config->adapters[1], TR_PREPARED_EVAL));
    base_config_destroy(config);
    config = run_config(ctx, FULL);
    expect_path(ctx, config, &config->full, TR_PREPARED_DATA, "run/prepared/data.h5");
    base_config_destroy(config);
}

static void look(base_ctx_t *ctx, const base_config_t *config, tr_prepared_state_t want,
                 const char *piece)
{
    tr_prepared_state_t found = TR_PREPARED_GIVEN;
    char reason[TR_PREPARED_REASON_BYTES];
    base_error_t error;

    if (tr_prepared_look(ctx, config, &config->adapters[0], TR_PREPARED_DATA, &found, reason) < 0)
        fail_msg("%s", base_ctx_error(ctx, &error) ? error.text : "no text");
    assert_int_equal(found, want);
    if (strstr(reason, piece) == NULL) fail_msg("\"%s\" is not in \"%s\"", piece, reason);
    assert_int_equal(want != TR_PREPARED_STALE, reason[0] == '\0');
}

static void states(void **state)
{
    base_ctx_t *ctx = ((run_place_t *)*state)->ctx;
    base_config_t *config = run_config(ctx, LORA);

    look(ctx, config, TR_PREPARED_MISSING, "");
    prepare(ctx, SOURCE, TOKENIZER, NULL);
    look(ctx, config, TR_PREPARED_FRESH, "");
    prepare(ctx, "{}\n", TOKENIZER, NULL);
    look(ctx, config, TR_PREPARED_STALE, "legal.jsonl has changed since");
    prepare(ctx, SOURCE, "{ }", NULL);
    look(ctx, config, TR_PREPARED_STALE, "another tokenizer.json");
    put(ctx, "run/prepared/legal.h5", "not a dataset");
    look(ctx, config, TR_PREPARED_STALE, "not readable as a dataset");

    /* A template counts when it was used, wherever it stands. */
    put(ctx, "base/tokenizer_config.json", CONFIG_WITH_TEMPLATE);
    prepare(ctx, SOURCE, TOKENIZER, NULL);
    look(ctx, config, TR_PREPARED_FRESH, "");
    prepare(ctx, SOURCE, TOKENIZER, TEMPLATE);
    look(ctx, config, TR_PREPARED_FRESH, "");
    prepare(ctx, SOURCE, TOKENIZER, "other");
    look(ctx, config, TR_PREPARED_STALE, "another chat template");
    put(ctx, "base/chat_template.jinja", "other");
    look(ctx, config, TR_PREPARED_FRESH, "");
    base_config_destroy(config);
}

static void what_the_trainer_says(void **state)
{
    base_ctx_t *ctx = ((run_place_t *)*state)->ctx;
    base_config_t *config = run_config(ctx, LORA);
    const base_config_adapter_t *legal = &config->adapters[0];
    base_error_list_t errors;
    char *path = NULL;

    assert_int_equal(
        tr_prepared_check(ctx, config, legal, TR_PREPARED_DATA, "x/run.yaml", NULL, &path),
        BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-35",
                         "run/prepared/legal.h5: not there; run `cadre prepare x/run.yaml`");
    prepare(ctx, "{}\n", TOKENIZER, NULL);
    assert_int_equal(
        tr_prepared_check(ctx, config, legal, TR_PREPARED_DATA, "run.yaml", NULL, &path),
        BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-36",
                         "legal.jsonl has changed since; run `cadre");

    /* All in one pass. */
    base_error_list_init(&errors, ctx);
    assert_int_equal(
        tr_prepared_check(ctx, config, legal, TR_PREPARED_DATA, "run.yaml", &errors, &path),
        BASE_OK);
    assert_int_equal(
        tr_prepared_check(ctx, config, legal, TR_PREPARED_EVAL, "run.yaml", &errors, &path),
        BASE_OK);
    assert_null(path);
    assert_int_equal(errors.count, 2);
    base_error_list_deinit(&errors);

    prepare(ctx, SOURCE, TOKENIZER, NULL);
    assert_int_equal(
        tr_prepared_check(ctx, config, legal, TR_PREPARED_DATA, "run.yaml", NULL, &path), BASE_OK);
    assert_string_equal(path, "run/prepared/legal.h5");
    base_free(ctx, path);
    assert_int_equal(tr_prepared_check(ctx, config, &config->adapters[1], TR_PREPARED_DATA,
                                       "run.yaml", NULL, &path),
                     BASE_OK);
    assert_string_equal(path, "ready.h5");
    base_free(ctx, path);
    base_config_destroy(config);
}

static void source_that_is_gone(void **state)
{
    base_ctx_t *ctx = ((run_place_t *)*state)->ctx;
    base_config_t *config = run_config(ctx, LORA);
    char *path = NULL;

    prepare(ctx, SOURCE, TOKENIZER, NULL);
    assert_int_equal(unlink("legal.jsonl"), 0);
    assert_int_equal(tr_prepared_check(ctx, config, &config->adapters[0], TR_PREPARED_DATA,
                                       "run.yaml", NULL, &path),
                     BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "legal.jsonl");
    base_config_destroy(config);
}

static void jobs(void **state)
{
    base_ctx_t *ctx = ((run_place_t *)*state)->ctx;
    base_config_t *config = run_config(ctx, LORA);
    tr_prepare_jobs_t found = {NULL, NULL, 0};
    base_text_pool_t pool;

    base_text_pool_init(&pool, ctx);
    assert_int_equal(tr_prepare_jobs_of_config(ctx, &pool, config, "run.yaml", &found), BASE_OK);
    base_config_destroy(config);
    assert_string_equal(found.model, "base");
    assert_int_equal(found.count, 2);
    assert_string_equal(found.jobs[0].source, "legal.jsonl");
    assert_string_equal(found.jobs[0].output, "run/prepared/legal.h5");
    assert_string_equal(found.jobs[1].source, "check.jsonl");
    assert_string_equal(found.jobs[1].output, "run/prepared/legal.eval.h5");
    base_text_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(paths, setup, run_teardown),
        cmocka_unit_test_setup_teardown(states, setup, run_teardown),
        cmocka_unit_test_setup_teardown(what_the_trainer_says, setup, run_teardown),
        cmocka_unit_test_setup_teardown(source_that_is_gone, setup, run_teardown),
        cmocka_unit_test_setup_teardown(jobs, setup, run_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
