#include "tests/unit/config/config_fixture.h"

#include "base/config/schema.h"

static void fills_in_defaults(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = config_of(ctx, CONFIG_SHORT, NULL);
    const base_config_adapter_t *a = &c->adapters[0];

    (void)state;
    assert_string_equal(c->model, "m");
    assert_string_equal(c->output, "o");
    assert_null(c->data);
    assert_int_equal(c->attention.placement, BASE_CONFIG_PLACEMENT_IN_PLACE);
    assert_int_equal(c->attention.servers_per_host, 0);
    assert_int_equal(c->batch.tokens_per_trainer, 8192);
    assert_int_equal(c->batch.max_rank_columns, 16);
    assert_int_equal(c->train.mode, BASE_CONFIG_MODE_LORA);
    assert_int_equal(c->train.seed, 0);
    assert_int_equal(c->train.dtype, BASE_CONFIG_DTYPE_AUTO);
    assert_int_equal(c->train.device, BASE_CONFIG_DEVICE_AUTO);
    assert_false(c->train.deterministic);
    assert_int_equal(c->train.checkpoint_every_minutes, 20);
    assert_int_equal(c->train.checkpoint_every_microbatches, 0);
    assert_int_equal(c->train.keep_checkpoints, 2);
    assert_int_equal(c->num_adapters, 1);
    assert_string_equal(a->name, "code");
    assert_string_equal(a->data, "d.jsonl");
    assert_null(a->eval);
    assert_int_equal(a->eval_documents, 0);
    assert_int_equal(a->early_stopping_patience, 0);
    assert_int_equal(a->rank, 16);
    assert_true(a->alpha == 32.0);
    assert_true(a->dropout == 0.0);
    assert_int_equal(a->targets, BASE_CONFIG_TARGET_ALL);
    assert_false(a->rslora);
    assert_string_equal(a->init, "kaiming");
    assert_int_equal(a->epochs, 1);
    assert_int_equal(a->steps, 0);
    assert_int_equal(a->global_batch_documents, 16);
    assert_true(a->learning_rate == 1e-4);
    assert_int_equal(a->schedule, BASE_CONFIG_SCHEDULE_COSINE);
    assert_true(a->warmup_ratio == 0.0);
    assert_int_equal(a->warmup_steps, 0);
    assert_int_equal(a->eval_every_steps, 50);
    assert_true(a->weight_decay == 0.0);
    assert_true(a->betas[0] == 0.9 && a->betas[1] == 0.999);
    assert_true(a->eps == 1e-8);
    assert_true(a->clip_norm == 1.0);
    assert_int_equal(a->seed, 0);
    assert_int_equal(a->order, BASE_CONFIG_ORDER_SHUFFLE);
    base_config_destroy(c);
    fixture_ctx_end(ctx);
}

static void adapters_inherit(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = config_of(ctx, base_print_example(), NULL);
    const base_config_adapter_t *legal = base_config_adapter(c, "legal");
    const base_config_adapter_t *code = base_config_adapter(c, "code");

    (void)state;
    assert_null(base_config_adapter(c, "none"));
    assert_ptr_equal(legal, &c->adapters[0]);
    assert_int_equal(legal->rank, 16);
    assert_true(legal->alpha == 32.0);
    assert_true(legal->learning_rate == 1e-4);
    assert_int_equal(legal->seed, 7);
    assert_int_equal(legal->early_stopping_patience, 3);
    assert_int_equal(code->rank, 32);
    assert_true(code->alpha == 64.0);
    assert_true(code->learning_rate == 2e-4);
    assert_true(code->warmup_ratio == 0.03);
    assert_int_equal(c->batch.max_rank_columns, 48);
    base_config_destroy(c);
    fixture_ctx_end(ctx);
}

/* An adapter that says steps does not also inherit epochs. */
static void one_of_a_pair_puts_the_other_aside(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = config_of(ctx,
                                 CONFIG_HEAD "defaults:\n"
                                             "  epochs: 3\n"
                                             "  warmup_ratio: 0.1\n"
                                             "  eval_documents: 9\n"
                                             "  learning_rate: 1e-4\n"
                                             "  data: shared.jsonl\n"
                                             "  alpha: 5\n"
                                             "adapters:\n"
                                             "  - name: a\n"
                                             "  - name: b\n"
                                             "    steps: 100\n"
                                             "    warmup_steps: 7\n"
                                             "    eval: e.jsonl\n"
                                             "    seed: 3\n"
                                             "    targets: [v_proj, q_proj]\n",
                                 NULL);
    const base_config_adapter_t *a = &c->adapters[0], *b = &c->adapters[1];

    (void)state;
    assert_int_equal(a->epochs, 3);
    assert_int_equal(a->steps, 0);
    assert_int_equal(a->eval_documents, 9);
    assert_true(a->alpha == 5.0);
    assert_string_equal(a->data, "shared.jsonl");
    assert_int_equal(b->epochs, 0);
    assert_int_equal(b->steps, 100);
    assert_true(b->warmup_ratio == 0.0);
    assert_int_equal(b->warmup_steps, 7);
    assert_int_equal(b->eval_documents, 0);
    assert_string_equal(b->eval, "e.jsonl");
    assert_int_equal(b->seed, 3);
    assert_int_equal(b->targets, BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V);
    base_config_destroy(c);
    fixture_ctx_end(ctx);
}

static void mode_full_has_one_job(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = config_of(ctx,
                                 CONFIG_HEAD "data: d.h5\n"
                                             "train: {mode: full, seed: 4}\n"
                                             "defaults: {steps: 5, learning_rate: 1e-5}\n",
                                 NULL);

    (void)state;
    assert_int_equal(c->num_adapters, 0);
    assert_int_equal(c->batch.max_rank_columns, 0);
    assert_string_equal(c->full.name, "full");
    assert_string_equal(c->full.data, "d.h5");
    assert_int_equal(c->full.steps, 5);
    assert_int_equal(c->full.seed, 4);
    assert_int_equal(c->full.rank, 0);
    assert_true(c->full.clip_norm == 1.0);
    base_config_destroy(c);
    fixture_ctx_end(ctx);
}

static void sets_change_the_file(void **state)
{
    const char *const sets[] = {"adapters.code.rank=64",
                                "adapters.code.steps=10",
                                "adapters.code.targets=[q_proj, v_proj]",
                                "attention.placement=pool",
                                "train.checkpoint_every_microbatches=5",
                                "defaults.schedule=constant",
                                "output=other",
                                "adapters.code.rank=8"};
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = NULL;

    (void)state;
    assert_int_equal(base_config_load_text(ctx, "run.yaml", CONFIG_SHORT, strlen(CONFIG_SHORT),
                                           sets, 8, NULL, &c),
                     BASE_OK);
    assert_int_equal(c->adapters[0].rank, 8);
    assert_int_equal(c->adapters[0].steps, 10);
    assert_int_equal(c->adapters[0].epochs, 0);
    assert_int_equal(c->adapters[0].targets, BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V);
    assert_int_equal(c->adapters[0].schedule, BASE_CONFIG_SCHEDULE_CONSTANT);
    assert_int_equal(c->attention.placement, BASE_CONFIG_PLACEMENT_POOL);
    assert_int_equal(c->attention.servers_per_host, 1);
    assert_int_equal(c->train.checkpoint_every_microbatches, 5);
    assert_int_equal(c->train.checkpoint_every_minutes, 0);
    assert_string_equal(c->output, "other");
    base_config_destroy(c);
    fixture_ctx_end(ctx);
}

static void a_name_in_a_set_may_hold_dots(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = config_of(ctx,
                                 CONFIG_HEAD "adapters: [{name: v1.2, data: d.h5, steps: 1, "
                                             "learning_rate: 1}]\n",
                                 "adapters.v1.2.rank=4");

    (void)state;
    assert_int_equal(c->adapters[0].rank, 4);
    base_config_destroy(c);
    fixture_ctx_end(ctx);
}

/* As many adapters as a run may have print and load back; one more is refused. */
static void many_adapters_load_back(void **state)
{
    const size_t room = 200000;
    char *text = malloc(room);
    size_t used;
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *first, *second;
    char *printed;

    (void)state;
    assert_non_null(text);
    used = (size_t)snprintf(text, room,
                            CONFIG_HEAD "defaults: {data: d.h5, steps: 1, learning_rate: 1, "
                                        "rank: 1024}\nadapters:\n");
    for (int i = 0; i < BASE_CONFIG_MAX_ADAPTERS; i++)
        used += (size_t)snprintf(text + used, room - used, "  - {name: a%d}\n", i);
    first = config_of(ctx, text, NULL);
    printed = config_printed(first);
    second = config_of(ctx, printed, NULL);
    assert_int_equal(second->num_adapters, BASE_CONFIG_MAX_ADAPTERS);
    assert_true(base_print_hash(first) == base_print_hash(second));
    used += (size_t)snprintf(text + used, room - used, "  - {name: more}\n");
    config_refused(ctx, text, NULL, "CONF-04", "1025 adapters; one run has at most 1024");
    base_config_destroy(first);
    base_config_destroy(second);
    free(printed);
    free(text);
    fixture_ctx_end(ctx);
}

/* Each id of this folder, first of its load. */
static void every_id_can_be_provoked(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = NULL;

    (void)state;
    assert_int_equal(base_config_load(ctx, "/nowhere/run.yaml", NULL, 0, NULL, &c),
                     BASE_ERR_CONFIG);
    fixture_expect_error(ctx, BASE_ERR_CONFIG, "CONF-01",
                         "/nowhere/run.yaml: No such file or directory");
    assert_int_equal(base_config_load(ctx, "/", NULL, 0, NULL, &c), BASE_ERR_CONFIG);
    fixture_expect_error(ctx, BASE_ERR_CONFIG, "CONF-01", "/: Is a directory");
    config_refused(ctx, "a: [1", NULL, "CONF-02", "run.yaml:2:1: did not find expected");
    config_refused(ctx, CONFIG_SHORT "    rnak: 1\n", NULL, "CONF-03",
                   "run.yaml:8:5: unknown key \"rnak\"; nearest is \"rank\"");
    config_refused(ctx, CONFIG_SHORT "    rank: 0\n", NULL, "CONF-04",
                   "run.yaml:8:11: adapters.code.rank: want a whole number from 1 to 1024, found "
                   "\"0\"");
    config_refused(ctx, CONFIG_SHORT "    eval: e.json\n", NULL, "CONF-04",
                   "run.yaml:8:11: adapters.code.eval: want a path that ends in .jsonl or .h5, "
                   "found \"e.json\"");
    config_refused(ctx, CONFIG_SHORT "    eval: ~/e.jsonl\n", NULL, "CONF-04",
                   "run.yaml:8:11: adapters.code.eval: want a path that ends in .jsonl or .h5, "
                   "found \"~/e.jsonl\"; ~ and $NAME are not replaced here, write the path out");
    config_refused(ctx, CONFIG_SHORT, "model=$HOME/llama", "CONF-04",
                   "--set model: want a path, found \"$HOME/llama\"; ~ and $NAME are not");
    config_refused(ctx, CONFIG_SHORT "    targets: q_proj, v_proj\n", NULL, "CONF-04",
                   "run.yaml:8:14: adapters.code.targets: want all-linear, or a list of q_proj, "
                   "k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, found "
                   "\"q_proj, v_proj\"; a list is written [q_proj, v_proj]");
    config_refused(ctx, CONFIG_SHORT, "adapters.code.targets=q_proj", "CONF-04",
                   "found \"q_proj\"; a list is written [q_proj]");
    config_refused(ctx, CONFIG_HEAD, NULL, "CONF-05",
                   "run.yaml:1:1: no adapters; train.mode: lora needs at least one");
    config_refused(ctx, CONFIG_SHORT "    steps: 2\n", NULL, "CONF-06",
                   "run.yaml:8:5: adapters.code gives both epochs and steps");
    config_refused(ctx, CONFIG_SHORT "    data: 2\n", NULL, "CONF-07",
                   "run.yaml:8:5: \"data\" stands already in line 5");
    config_refused(ctx, CONFIG_SHORT "    lora_r: 2\n", NULL, "CONF-08",
                   "run.yaml:8:5: \"lora_r\": the rank is written rank (in defaults or in an "
                   "adapter)");
    config_refused(ctx, CONFIG_SHORT, "train", "CLI-02", "--set: want PATH=VALUE, found \"train\"");
    fixture_ctx_end(ctx);
}

static void a_file_is_read(void **state)
{
    const char *path = "config_load_test.yaml";
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *c = NULL;
    FILE *file = fopen(path, "wb");

    (void)state;
    assert_non_null(file);
    assert_true(fputs("\xef\xbb\xbf" CONFIG_SHORT, file) >=
                0); /* as Windows' editors begin a file */
    assert_int_equal(fclose(file), 0);
    assert_int_equal(base_config_load(ctx, path, NULL, 0, NULL, &c), BASE_OK);
    assert_string_equal(c->adapters[0].name, "code");
    base_config_destroy(c);
    assert_int_equal(remove(path), 0);
    fixture_ctx_end(ctx);
}

/* Every request for memory fails once: the load ends with BASE_ERR_NOMEM and MEM-01, and keeps
 * nothing. */
static void memory_may_run_out_anywhere(const char *text, const char *set, base_status_t end)
{
    base_ctx_t *ctx = fixture_ctx();
    base_status_t st = BASE_ERR_NOMEM;

    for (int64_t n = 1; st == BASE_ERR_NOMEM; n++) {
        base_config_t *c = NULL;
        base_error_list_t errors;

        assert_true(n < 1000);
        base_memory_fail_at(base_ctx_memory(ctx), n);
        base_error_list_init(&errors, ctx);
        st = base_config_load_text(ctx, "run.yaml", text, strlen(text), &set, 1, &errors, &c);
        base_error_list_deinit(&errors);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        if (st == BASE_ERR_NOMEM) fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "");
        assert_true((c != NULL) == (st == BASE_OK));
        base_config_destroy(c);
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    }
    assert_int_equal(st, end);
    base_ctx_clear_error(ctx);
    fixture_ctx_end(ctx);
}

static void survives_failing_memory(void **state)
{
    (void)state;
    memory_may_run_out_anywhere(base_print_example(), "adapters.code.rank=8", BASE_OK);
    memory_may_run_out_anywhere("rnak: 1\nlora_r: 2\ntrain: [1]\nadapters: [{name: '.'}]\n",
                                "defaults.rank=x", BASE_ERR_CONFIG);
    memory_may_run_out_anywhere("a: [", "a", BASE_ERR_CONFIG);
}

/* Rows that contradict each other would show only when someone writes the key. */
static void the_table_is_consistent(void **state)
{
    (void)state;
    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);
        const bool adapters = strcmp(key->section, "adapters") == 0;
        const bool derived = (key->flags & BASE_SCHEMA_DERIVED) != 0;
        const base_schema_key_t *partner =
            key->partner == NULL ? NULL : base_schema_find(key->section, key->partner);

        assert_ptr_equal(base_schema_find(key->section, key->name), key);
        assert_true(adapters || (key->flags & BASE_SCHEMA_INHERIT) == 0);
        assert_true(key->doc[strlen(key->doc) - 1] == '.');
        assert_true(key->offset <
                    (adapters ? sizeof(base_config_adapter_t) : sizeof(base_config_t)));
        if ((key->flags & BASE_SCHEMA_REQUIRED) != 0)
            assert_null(key->fallback);
        else
            assert_true(key->fallback != NULL || (key->flags & BASE_SCHEMA_OPTIONAL) != 0);
        assert_true(!derived || key->fallback != NULL);
        if (key->partner != NULL) {
            assert_non_null(partner);
            assert_string_equal(partner->partner, key->name);
        }
        for (size_t k = 0; k < i; k++)
            assert_false(strcmp(base_schema_key(k)->section, key->section) == 0 &&
                         base_schema_key(k)->offset == key->offset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_in_defaults),
        cmocka_unit_test(adapters_inherit),
        cmocka_unit_test(one_of_a_pair_puts_the_other_aside),
        cmocka_unit_test(mode_full_has_one_job),
        cmocka_unit_test(sets_change_the_file),
        cmocka_unit_test(a_name_in_a_set_may_hold_dots),
        cmocka_unit_test(many_adapters_load_back),
        cmocka_unit_test(every_id_can_be_provoked),
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(survives_failing_memory),
        cmocka_unit_test(the_table_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
