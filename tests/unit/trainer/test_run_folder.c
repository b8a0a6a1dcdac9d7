#include "tests/unit/trainer/run_fixture.h"

#include "base/log.h"
#include "trainer/run/run_folder.h"

#include <sys/stat.h>

static const char LORA[] = "model: base\n"
                           "output: runs/three/\n"
                           "defaults: {epochs: 1, learning_rate: 1e-4}\n"
                           "adapters:\n"
                           "  - {name: legal, data: legal.jsonl}\n";
static const char FULL[] = "model: base\n"
                           "output: runs/full\n"
                           "data: all.jsonl\n"
                           "train: {mode: full}\n"
                           "defaults: {epochs: 1, learning_rate: 1e-4}\n";

static base_status_t create(base_ctx_t *ctx, const char *yaml, bool resume,
                            tr_run_folder_t **folder_p)
{
    base_config_t *config = run_config(ctx, yaml);
    base_status_t st = base_ctx_rank(ctx) == 0 ? tr_run_folder_create(ctx, config, resume, folder_p)
                                               : tr_run_folder_join(ctx, config, true, folder_p);

    if (st >= 0 && base_ctx_rank(ctx) == 0) st = tr_run_folder_take_config(*folder_p, config);

    base_config_destroy(config);
    return st;
}

static void touch(const char *path)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
}

static void creates(void **state)
{
    run_place_t *p = *state;
    tr_run_folder_t *folder = NULL;
    char *path = NULL;

    assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_OK);
    assert_false(tr_run_folder_resumed(folder));
    assert_string_equal(tr_run_folder_root(folder), "runs/three");
    assert_string_equal(tr_run_folder_path(folder, TR_RUN_METRICS), "runs/three/metrics.jsonl");
    assert_int_equal(tr_run_folder_adapter(folder, "legal", &path), BASE_OK);
    assert_string_equal(path, "runs/three/adapters/legal");
    base_free(p->ctx, path);
    assert_int_equal(base_file_kind("runs/three/adapters"), BASE_FILE_FOLDER);
    assert_int_equal(base_file_kind("runs/three/logs"), BASE_FILE_FOLDER);
    /* Resolved: with what the file left out. */
    run_expect_piece("runs/three/config.yaml", "clip_norm: 1");
    tr_run_folder_destroy(folder);
    tr_run_folder_destroy(NULL);

    assert_int_equal(create(p->ctx, FULL, false, &folder), BASE_OK);
    assert_int_equal(base_file_kind("runs/full/adapters"), BASE_FILE_NONE);
    tr_run_folder_destroy(folder);
}

/* What prepare or a failed start leave is no run; a manifest, metrics or checkpoints are. */
static void holds_a_run(void **state)
{
    static const char *const signs[] = {"run.json", "metrics.jsonl", "checkpoints"};
    run_place_t *p = *state;
    tr_run_folder_t *folder = NULL;

    assert_int_equal(base_file_make_dirs(p->ctx, "runs/three/prepared"), BASE_OK);
    assert_int_equal(base_file_make_dirs(p->ctx, "runs/three/adapters/old"), BASE_OK);
    touch("runs/three/status.json");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_OK);
        tr_run_folder_destroy(folder);
    }
    for (size_t i = 0; i < 3; i++) {
        char path[64];

        (void)snprintf(path, sizeof path, "runs/three/%s", signs[i]);
        touch(path);
        run_expect_piece("runs/three/config.yaml", "name: legal");
        touch("runs/three/config.yaml");
        assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_ERR_CONFIG);
        fixture_expect_error(p->ctx, BASE_ERR_CONFIG, "RUN-01", signs[i]);
        run_expect_text("runs/three/config.yaml", ""); /* left as it was */
        assert_int_equal(create(p->ctx, LORA, true, &folder), BASE_OK);
        assert_true(tr_run_folder_resumed(folder));
        tr_run_folder_destroy(folder);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(create(p->ctx, LORA, true, &folder), BASE_OK);
    assert_false(tr_run_folder_resumed(folder)); /* nothing to resume: it starts */
    tr_run_folder_destroy(folder);
}

/* A configuration of the user's is not taken away, whether it is one of ours or not; what a start that failed left is. */
static void someone_elses_config(void **state)
{
    run_place_t *p = *state;
    tr_run_folder_t *folder = NULL;

    assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_OK);
    tr_run_folder_destroy(folder);
    char *written = run_text("runs/three/config.yaml");
    assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_OK);
    tr_run_folder_destroy(folder);
    static const char *const theirs[] = {"", "learning_rate: [", LORA};
    for (size_t i = 0; i < sizeof theirs / sizeof theirs[0]; i++) {
        assert_int_equal(
            base_file_write(p->ctx, "runs/three/config.yaml", theirs[i], strlen(theirs[i])),
            BASE_OK);
        assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_ERR_CONFIG);
        fixture_expect_error(p->ctx, BASE_ERR_CONFIG, "RUN-11", "runs/three/config.yaml: no run");
        run_expect_text("runs/three/config.yaml", theirs[i]);
    }
    assert_int_equal(base_file_write(p->ctx, "runs/three/config.yaml", written, strlen(written)),
                     BASE_OK);
    assert_int_equal(create(p->ctx, LORA, true, &folder), BASE_OK);
    tr_run_folder_destroy(folder);
    free(written);
}

static void one_process_at_a_time(void **state)
{
    run_place_t *p = *state;
    tr_run_folder_t *first = NULL;
    tr_run_folder_t *second = NULL;

    assert_int_equal(create(p->ctx, LORA, false, &first), BASE_OK);
    /* A lock belongs to an open description, so a second one in this process collides as another
     * process would. */
    assert_int_equal(create(p->ctx, LORA, true, &second), BASE_ERR_CONFIG);
    fixture_expect_error(p->ctx, BASE_ERR_CONFIG, "RUN-02", "runs/three: another process");
    tr_run_folder_destroy(first);
    assert_int_equal(create(p->ctx, LORA, true, &second), BASE_OK);
    tr_run_folder_destroy(second);
}

static void not_into_the_model(void **state)
{
    run_place_t *p = *state;
    tr_run_folder_t *folder = NULL;

    assert_int_equal(base_file_make_dirs(p->ctx, "runs"), BASE_OK);
    assert_int_equal(base_file_make_dirs(p->ctx, "model/sub"), BASE_OK);
    assert_int_equal(symlink("model", "base"), 0);
    assert_int_equal(symlink("../model/sub", "runs/three"), 0);
    assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_ERR_CONFIG);
    fixture_expect_error(p->ctx, BASE_ERR_CONFIG, "RUN-03", "the model folder base");
    assert_int_equal(unlink("runs/three"), 0);
    /* Nothing of the path below the model exists yet, and nothing is created. */
    assert_int_equal(unlink("base"), 0);
    assert_int_equal(symlink("runs", "base"), 0);
    assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_ERR_CONFIG);
    fixture_expect_error(p->ctx, BASE_ERR_CONFIG, "RUN-03", "runs/three: output lies");
    assert_int_equal(base_file_kind("runs/three"), BASE_FILE_NONE);
    /* The model that is trained would take the place of its base. */
    assert_int_equal(unlink("base"), 0);
    assert_int_equal(base_file_make_dirs(p->ctx, "runs/full/model.before/of_mine"), BASE_OK);
    assert_int_equal(symlink("runs/full/model.before/of_mine", "base"), 0);
    assert_int_equal(create(p->ctx, FULL, false, &folder), BASE_ERR_CONFIG);
    fixture_expect_error(p->ctx, BASE_ERR_CONFIG, "RUN-03",
                         "base: the model lies where the run puts the one that it trains, "
                         "runs/full/model.before");
    assert_int_equal(rename("runs/full/model.before", "runs/full/model"), 0);
    assert_int_equal(unlink("base"), 0);
    assert_int_equal(symlink("runs/full/model", "base"), 0);
    assert_int_equal(create(p->ctx, FULL, false, &folder), BASE_ERR_CONFIG);
    fixture_expect_error(p->ctx, BASE_ERR_CONFIG, "RUN-03", "it trains, runs/full/model");
    assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_OK); /* adapters go elsewhere */
    tr_run_folder_destroy(folder);
}

static void system_refuses(void **state)
{
    run_place_t *p = *state;
    tr_run_folder_t *folder = NULL;

    touch("runs");
    assert_int_equal(create(p->ctx, LORA, false, &folder), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "runs: cannot create the folder");
    assert_int_equal(unlink("runs"), 0);
    for (int n = 1; n < 40; n++) {
        base_config_t *config = run_config(p->ctx, LORA);
        base_status_t st;

        base_memory_fail_at(base_ctx_memory(p->ctx), n);
        st = tr_run_folder_create(p->ctx, config, false, &folder);
        base_memory_fail_at(base_ctx_memory(p->ctx), 0);
        base_config_destroy(config);
        if (st == BASE_OK) {
            assert_true(n > 12); /* the objects and their paths were all refused once */
            tr_run_folder_destroy(folder);
            return;
        }
        fixture_expect_error(p->ctx, BASE_ERR_NOMEM, "MEM-01", "");
    }
    fail();
}

/* The log of the context goes to its rank's file. Rank 1 opens its own and takes no lock. */
static void logs(void **state)
{
    run_place_t *p = *state;
    tr_run_folder_t *folder[2];

    for (int rank = 0; rank < 2; rank++) {
        base_log_t *log = NULL;
        base_ctx_t *ctx = NULL;

        assert_int_equal(base_log_create(BASE_LOG_INFO, &log), BASE_OK);
        assert_int_equal(base_ctx_create(rank, 2, log, &ctx), BASE_OK);
        assert_int_equal(create(ctx, LORA, false, &folder[0]), BASE_OK);
        base_log_info(log, "from %d", rank);
        tr_run_folder_destroy(folder[0]);
        base_ctx_destroy(ctx);
        base_log_destroy(log);
    }
    run_expect_piece("runs/three/logs/rank-0000.log", "info from 0\n");
    run_expect_piece("runs/three/logs/rank-0001.log", "info from 1\n");
    (void)p;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(creates, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(holds_a_run, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(someone_elses_config, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(one_process_at_a_time, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(not_into_the_model, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(system_refuses, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(logs, run_setup, run_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
