/* Writes datasets for the scripts of tests/cli, without Python:
 *
 *   cli_dataset OUT.h5 MODEL SEED ROWS...              random documents, all targets
 *   cli_dataset OUT.h5 MODEL --golden FAMILY ADAPTER   the golden documents of that adapter; prints
 *       a line each: tokens, supervised tokens, mean loss with the adapter, and without (golden/)
 *
 * MODEL is a folder with config.json, weights and tokenizer.json. */
#include "tests/support/ctx_fixture.h"

#include "base/philox.h"
#include "data/dataset_write.h"
#include "data/hf_folder.h"
#include "tests/golden/golden_case.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_DOCUMENTS 256
#define MAX_TOKENS    (1 << 20)

typedef struct set {
    int64_t count;
    int64_t offsets[MAX_DOCUMENTS + 1];
    int32_t tokens[MAX_TOKENS];
    uint8_t mask[MAX_TOKENS];
} set_t;

typedef struct words {
    int argc;
    char **argv;
} words_t;

static void draw(set_t *s, int64_t vocab, const words_t *w)
{
    const base_philox_key_t key = base_philox_key(strtoull(w->argv[3], NULL, 10));

    for (int i = 4; i < w->argc; i++) {
        const int64_t begin = s->offsets[s->count], end = begin + strtoll(w->argv[i], NULL, 10);

        assert_true(end <= MAX_TOKENS && s->count < MAX_DOCUMENTS);
        for (int64_t t = begin; t < end; t++) {
            s->tokens[t] =
                (int32_t)(base_philox(key, (uint32_t)t, 0, 0, 0).word[0] % (uint64_t)vocab);
            s->mask[t] = t > begin;
        }
        s->offsets[++s->count] = end;
    }
}

static void golden(set_t *s, base_ctx_t *ctx, const words_t *w)
{
    golden_case_t *g = golden_case_open(ctx, w->argv[4]);
    int a = 0;

    while (a < GOLDEN_NUM_ADAPTERS - 1 && strcmp(g->adapters[a].name, w->argv[5]) != 0)
        a++;
    const golden_adapter_t *adapter = &g->adapters[a];
    assert_string_equal(adapter->name, w->argv[5]);
    for (int64_t d = 0; d < adapter->num_trained; d++) {
        const golden_document_t *doc = &adapter->documents[d];
        const int64_t at = s->offsets[s->count];
        const double n = (double)doc->num_supervised;

        memcpy(s->tokens + at, doc->tokens, (size_t)doc->rows * sizeof *s->tokens);
        memcpy(s->mask + at, doc->loss_mask, (size_t)doc->rows);
        s->mask[at] = 0;
        s->offsets[++s->count] = at + doc->rows;
        (void)printf("%" PRId64 " %" PRId64 " %.17g %.17g\n", doc->rows, doc->num_supervised,
                     doc->loss_sum / n, doc->base_loss_sum / n);
    }
    golden_case_close(g);
}

static void write_set(void **state)
{
    const words_t *w = *state;
    base_ctx_t *ctx = fixture_ctx();
    data_hf_folder_t *folder;
    char sha256[BASE_SHA256_HEX_BYTES];
    set_t *s = calloc(1, sizeof *s);

    assert_non_null(s);
    assert_int_equal(data_hf_folder_open(ctx, w->argv[2], NULL, &folder), BASE_OK);
    assert_int_equal(data_dataset_tokenizer_sha256(ctx, w->argv[2], sha256), BASE_OK);
    const int64_t vocab = data_hf_folder_spec(folder)->vocab;
    if (strcmp(w->argv[3], "--golden") == 0)
        golden(s, ctx, w);
    else
        draw(s, vocab, w);
    const data_dataset_content_t content = {.attributes = {.creator = "tests/cli",
                                                           .tokenizer_sha256 = sha256,
                                                           .template_sha256 = "",
                                                           .source = "memory",
                                                           .source_sha256 = sha256,
                                                           .settings = "{}",
                                                           .vocab_size = vocab,
                                                           .eos_id = 2,
                                                           .bos_id = -1,
                                                           .num_documents = s->count},
                                            .offsets = s->offsets,
                                            .tokens = s->tokens,
                                            .loss_mask = s->mask};
    assert_int_equal(data_dataset_write(ctx, w->argv[1], &content), BASE_OK);
    data_hf_folder_close(folder);
    free(s);
    fixture_ctx_end(ctx);
}

int main(int argc, char **argv)
{
    words_t w = {argc, argv};
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(write_set, &w)};

    if (argc < 5 || (strcmp(argv[3], "--golden") == 0 && argc != 6)) {
        (void)fprintf(stderr, "usage: %s OUT.h5 MODEL SEED ROWS...|--golden FAMILY ADAPTER\n",
                      argv[0]);
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
