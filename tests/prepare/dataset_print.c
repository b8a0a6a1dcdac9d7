/* dataset_print FILE.h5 MODEL: a dataset as the trainer reads it, one document a line: its line in the JSONL, then its
 * tokens, those that are trained on with a "+". Fails on what the trainer would refuse. */
#include "base/memory.h"
#include "data/dataset.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static base_status_t print(base_ctx_t *ctx, const char *path, const char *model)
{
    char hex[BASE_SHA256_HEX_BYTES];
    data_dataset_t *ds = NULL;
    base_status_t st;

    BASE_TRY(data_dataset_open(ctx, path, NULL, &ds));
    int32_t *tokens = base_calloc(ctx, data_dataset_max_rows(ds), sizeof *tokens, "tokens");
    uint8_t *mask = base_calloc(ctx, data_dataset_max_rows(ds), 1, "mask");
    if (tokens == NULL || mask == NULL) {
        st = BASE_ERR_NOMEM;
        goto close_dataset;
    }
    BASE_TRY_GOTO(data_dataset_tokenizer_sha256(ctx, model, hex), st, close_dataset);
    BASE_TRY_GOTO(data_dataset_match(ds, hex, data_dataset_attributes(ds)->vocab_size, NULL), st,
                  close_dataset);
    BASE_TRY_GOTO(data_dataset_verify(ds), st, close_dataset);
    for (int64_t i = 0; i < data_dataset_num_documents(ds); i++) {
        BASE_TRY_GOTO(data_dataset_read(ds, i, tokens, mask), st, close_dataset);
        (void)printf("%" PRId64, data_dataset_line(ds, i));
        for (int64_t r = 0; r < data_dataset_rows(ds, i); r++)
            (void)printf(" %" PRId32 "%s", tokens[r], mask[r] != 0 ? "+" : "");
        (void)putchar('\n');
    }
close_dataset:
    base_free(ctx, tokens);
    base_free(ctx, mask);
    data_dataset_close(ds);
    return st;
}

int main(int argc, char **argv)
{
    base_ctx_t *ctx = NULL;
    base_error_t error;

    if (argc != 3 || base_ctx_create(0, 1, NULL, &ctx) < 0) return EXIT_FAILURE;
    const base_status_t st = print(ctx, argv[1], argv[2]);
    if (base_ctx_error(ctx, &error)) (void)fprintf(stderr, "%s\n", error.text);
    base_ctx_destroy(ctx);
    return st < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
