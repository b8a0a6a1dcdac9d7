#include "tests/unit/trainer/run_fixture.h"

#include "base/version.h"
#include "trainer/run/manifest.h"

#include <jansson.h>

static const char LORA[] = "model: base\n"
                           "output: runs/three\n"
                           "train: {seed: 7}\n"
                           "defaults: {epochs: 1, learning_rate: 1e-4, targets: [v_proj, q_proj]}\n"
                           "adapters:\n"
                           "  - {name: legal, data: legal.jsonl, init: old/legal}\n"
                           "  - {name: code, data: /d/code.h5, seed: 9, rslora: true}\n";

static json_t *load(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);

    if (root == NULL) fail_msg("%s:%d: %s", path, error.line, error.text);
    return root;
}

/* The value at a path of keys and indices: "datasets.0.path". */
static json_t *at(json_t *root, const char *path)
{
    char word[64];

    while (*path != '\0') {
        const size_t n = strcspn(path, ".");

        assert_true(n < sizeof word);
        memcpy(word, path, n);
        word[n] = '\0';
        root = json_is_array(root) ? json_array_get(root, strtoul(word, NULL, 10))
                                   : json_object_get(root, word);
        if (root == NULL) fail_msg("no %s", path);
        path += n + (path[n] == '.');
    }
    return root;
}

static void expect_at(json_t *root, const char *path, const char *want)
{
    assert_non_null(json_string_value(at(root, path)));
    assert_string_equal(json_string_value(at(root, path)), want);
}

static void expect_below(json_t *root, const char *path, const char *folder, const char *rest)
{
    char want[256];

    (void)snprintf(want, sizeof want, "%s/%s", folder, rest);
    expect_at(root, path, want);
}

static void lora(void **state)
{
    run_place_t *p = *state;
    static const char *const argv[] = {"cadre", "train", "run.yaml"};
    static const tr_manifest_dataset_t datasets[] = {
        {"legal", "train", "runs/three/prepared/legal.h5", "ab12", 12, 345, 340},
        {"code", "train", "/d/code.h5", NULL, 1, 2, 1},
    };
    base_config_t *config = run_config(p->ctx, LORA);
    tr_manifest_t manifest = {.config = config,
                              .argc = 3,
                              .argv = argv,
                              .num_ranks = 2,
                              .model_hash = "cafe",
                              .num_datasets = 2,
                              .datasets = datasets};
    json_t *root;

    assert_int_equal(base_file_make_dirs(p->ctx, "real"), BASE_OK);
    assert_int_equal(symlink("real", "base"), 0);
    assert_int_equal(tr_manifest_write(p->ctx, "run.json", &manifest), BASE_OK);
    root = load("run.json");
    expect_at(root, "program.commit", base_version_commit());
    expect_at(root, "command.2", "run.yaml");
    expect_at(root, "folder", p->folder);
    assert_int_equal(json_integer_value(at(root, "num_ranks")), 2);
    assert_true(json_is_false(at(root, "resumed")));
    expect_below(root, "model.path", p->folder, "real"); /* links resolved */
    expect_at(root, "model.hash", "cafe");
    assert_true(json_is_null(at(root, "tokenizer.hash")));
    expect_below(root, "output", p->folder, "runs/three");
    expect_below(root, "datasets.0.path", p->folder, "runs/three/prepared/legal.h5");
    expect_at(root, "datasets.1.path", "/d/code.h5");
    assert_int_equal(json_integer_value(at(root, "datasets.0.supervised_tokens")), 340);
    assert_int_equal(json_integer_value(at(root, "seeds.adapters.legal")), 7);
    assert_int_equal(json_integer_value(at(root, "seeds.adapters.code")), 9);
    expect_below(root, "config.model", p->folder, "real");
    expect_below(root, "config.adapters.0.init", p->folder, "old/legal");
    expect_at(root, "config.adapters.1.init", "kaiming");
    expect_at(root, "config.adapters.0.schedule", "cosine");
    expect_at(root, "config.adapters.0.targets.1", "v_proj");
    assert_true(json_is_true(at(root, "config.adapters.1.rslora")));
    assert_true(json_real_value(at(root, "config.adapters.0.betas.1")) > 0.99);
    assert_int_equal(json_integer_value(at(root, "config.batch.tokens_per_trainer")), 8192);
    /* Left out where the configuration has nothing. */
    assert_null(json_object_get(at(root, "config.adapters.0"), "steps"));
    assert_null(json_object_get(at(root, "config"), "data"));
    assert_int_equal(strlen(json_string_value(at(root, "config_hash"))), 16);
    json_decref(root);
    base_config_destroy(config);
}

static void full(void **state)
{
    run_place_t *p = *state;
    base_config_t *config = run_config(p->ctx, "model: base\n"
                                               "output: runs/full\n"
                                               "data: all.jsonl\n"
                                               "train: {mode: full, seed: 3}\n"
                                               "defaults: {steps: 10, learning_rate: 1e-3}\n");
    const tr_manifest_t manifest = {.config = config, .num_ranks = 1, .resumed = true};
    json_t *root;

    assert_int_equal(tr_manifest_write(p->ctx, "run.json", &manifest), BASE_OK);
    root = load("run.json");
    expect_below(root, "config.data", p->folder, "all.jsonl");
    assert_int_equal(json_integer_value(at(root, "seeds.model")), 3);
    assert_int_equal(json_integer_value(at(root, "config.defaults.steps")), 10);
    assert_null(json_object_get(at(root, "config.defaults"), "rank"));
    assert_null(json_object_get(at(root, "config"), "adapters"));
    assert_true(json_is_true(at(root, "resumed")));
    json_decref(root);
    assert_int_equal(tr_manifest_write(p->ctx, "no/run.json", &manifest), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "no/run.json: cannot create");
    base_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lora, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(full, run_setup, run_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
