#include "tests/unit/config/config_fixture.h"

#include "base/config/schema.h"
#include "base/config/suggest.h"

static const char *const VERBS[] = {"prepare", "plan",   "train",  "score",   "generate",
                                    "verify",  "export", "report", "simulate"};

static const char *near(const char *word)
{
    return base_suggest_nearest(word, VERBS, sizeof VERBS / sizeof VERBS[0]);
}

static void finds_what_was_meant(void **state)
{
    (void)state;
    assert_string_equal(near("trian"), "train");
    assert_string_equal(near("tran"), "train");
    assert_string_equal(near("ttrain"), "train");
    assert_string_equal(near("TRAIN"), "train");
    assert_string_equal(near("plam"), "plan");
    assert_string_equal(near("expotr"), "export");
    assert_string_equal(near("gen"), "generate");
    assert_string_equal(near("simluate"), "simulate");
}

static void knows_when_nothing_is_near(void **state)
{
    char very_long[200];

    (void)state;
    memset(very_long, 'a', sizeof very_long - 1);
    very_long[sizeof very_long - 1] = '\0';
    assert_null(near(""));
    assert_null(near("x"));
    assert_null(near("frobnicate"));
    assert_null(near(very_long));
    assert_null(base_suggest_nearest("train", VERBS, 0));
}

static void handles_short_and_odd_candidates(void **state)
{
    const char *const odd[] = {NULL, "", "eps", "lr", "clip_norm"};

    (void)state;
    assert_string_equal(base_suggest_nearest("esp", odd, 5), "eps");
    assert_string_equal(base_suggest_nearest("clip-norm", odd, 5), "clip_norm");
    assert_string_equal(base_suggest_nearest("rl", odd, 5), "lr");
    assert_null(base_suggest_nearest("xy", odd, 5));
}

static void answers_keys_of_other_tools(void **state)
{
    const char *const asked[] = {"lora_r",
                                 "lora_alpha",
                                 "lora_dropout",
                                 "lora_target_modules",
                                 "target_modules",
                                 "num_epochs",
                                 "num_train_epochs",
                                 "micro_batch_size",
                                 "per_device_train_batch_size",
                                 "gradient_accumulation_steps",
                                 "sequence_len",
                                 "cutoff_len",
                                 "max_seq_length",
                                 "val_set_size",
                                 "val_size",
                                 "lr",
                                 "base_model",
                                 "model_name_or_path",
                                 "output_dir",
                                 "datasets",
                                 "dataset",
                                 "lr_scheduler",
                                 "lr_scheduler_type",
                                 "bf16",
                                 "fp16",
                                 "flash_attention",
                                 "sample_packing",
                                 "packing",
                                 "deepspeed",
                                 "fsdp",
                                 "load_in_4bit",
                                 "load_in_8bit",
                                 "gradient_checkpointing",
                                 "optimizer"};

    (void)state;
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        assert_non_null(base_suggest_foreign(asked[i]));
    assert_non_null(base_suggest_foreign("Lora-R"));
    assert_null(base_suggest_foreign("rank"));
    assert_null(base_suggest_foreign(""));
}

/* A word that is also a key of ours would never be asked for. */
static void no_foreign_word_is_ours(void **state)
{
    const char *word;

    (void)state;
    for (size_t i = 0; (word = base_suggest_foreign_word(i)) != NULL; i++)
        for (size_t k = 0; k < base_schema_count(); k++)
            assert_string_not_equal(word, base_schema_key(k)->name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_meant),
        cmocka_unit_test(knows_when_nothing_is_near),
        cmocka_unit_test(handles_short_and_odd_candidates),
        cmocka_unit_test(answers_keys_of_other_tools),
        cmocka_unit_test(no_foreign_word_is_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
