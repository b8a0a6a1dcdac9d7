#include "trainer/run/verify_logits.h"

#include "base/memory.h"
#include "base/philox.h"
#include "trainer/run/scorer.h"
#include "trainer/run/verify_report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define TOKEN_SEED UINT64_C(18) /* any; users who compare two machines get the same tokens */

typedef struct sample {
    int64_t rows;
    int32_t *tokens;
    double *base, *adapted; /* rows x vocabulary */
} sample_t;

/* ==== tokens ==== */

static void draw_tokens(int64_t vocab, sample_t *s)
{
    const base_philox_key_t key = base_philox_key(TOKEN_SEED);

    for (int64_t i = 0; i < s->rows; i++)
        s->tokens[i] =
            (int32_t)(base_philox(key, (uint32_t)i, 0, 0, 'V').word[0] % (uint64_t)vocab);
}

/* The head of the first document; causal attention never looks at what is cut off. */
static base_status_t read_tokens(base_ctx_t *ctx, const data_dataset_t *dataset, sample_t *s)
{
    const int64_t rows = data_dataset_rows(dataset, 0);
    base_status_t st = BASE_ERR_NOMEM;

    int32_t *tokens = base_calloc(ctx, rows, sizeof *tokens, "tokens");
    uint8_t *mask = base_calloc(ctx, rows, sizeof *mask, "tokens");
    if (tokens != NULL && mask != NULL) st = data_dataset_read(dataset, 0, tokens, mask);
    if (st >= 0) memcpy(s->tokens, tokens, (size_t)s->rows * sizeof *tokens);
    base_free(ctx, mask);
    base_free(ctx, tokens);
    return st;
}

static base_status_t make_sample(base_ctx_t *ctx, const tr_score_inputs_t *in, sample_t *s)
{
    const int64_t vocab = data_hf_folder_spec(in->folder)->vocab;

    s->rows = TR_VERIFY_RANDOM_ROWS;
    if (in->dataset != NULL) {
        const int64_t rows = data_dataset_rows(in->dataset, 0);
        s->rows = rows < TR_VERIFY_DOCUMENT_ROWS ? rows : TR_VERIFY_DOCUMENT_ROWS;
    }
    s->tokens = base_calloc(ctx, s->rows, sizeof *s->tokens, "tokens");
    s->base = base_calloc(ctx, s->rows * vocab, sizeof *s->base, "logits");
    s->adapted = base_calloc(ctx, s->rows * vocab, sizeof *s->adapted, "logits");
    if (s->tokens == NULL || s->base == NULL || s->adapted == NULL) return BASE_ERR_NOMEM;
    if (in->dataset != NULL) return read_tokens(ctx, in->dataset, s);
    draw_tokens(vocab, s);
    return BASE_OK;
}

static void free_sample(base_ctx_t *ctx, sample_t *s)
{
    base_free(ctx, s->adapted);
    base_free(ctx, s->base);
    base_free(ctx, s->tokens);
}

/* ==== logits ==== */

static base_status_t run(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                         const tr_score_inputs_t *in, sample_t *s)
{
    const tr_scorer_options_t options = {
        .folder = in->folder, .adapter = in->adapter, .longest = s->rows, .tokens_per_trainer = 1};
    tr_scorer_t *scorer;
    base_status_t st;

    BASE_TRY(tr_scorer_create(ctx, dev, group, &options, &scorer));
    st = tr_scorer_logits(scorer, s->tokens, s->rows, s->adapted);
    if (st >= 0) st = tr_scorer_use_adapter(scorer, 0);
    if (st >= 0) st = tr_scorer_logits(scorer, s->tokens, s->rows, s->base);
    tr_scorer_destroy(scorer);
    return st;
}

static int64_t best(const double *logits, int64_t vocab)
{
    int64_t at = 0;

    for (int64_t j = 1; j < vocab; j++)
        if (logits[j] > logits[at]) at = j;
    return at;
}

static base_status_t compare(base_ctx_t *ctx, const tr_verify_t *v, const sample_t *s,
                             int64_t vocab, tr_verify_logits_t *found)
{
    const int64_t count = s->rows * vocab;

    *found = (tr_verify_logits_t){.rows = s->rows};
    for (int64_t i = 0; i < count; i++) {
        const double difference = fabs(s->adapted[i] - s->base[i]);
        const bool of_base = !isfinite(s->base[i]);

        if (!isfinite(difference))
            return BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_17,
                             "%s: logit %" PRId64 " of row %" PRId64 " is %g",
                             of_base ? v->sources.model : v->sources.adapter, i % vocab, i / vocab,
                             of_base ? s->base[i] : s->adapted[i]);
        if (difference > found->max) found->max = difference;
        found->mean += difference / (double)count;
    }
    for (int64_t i = 0; i < s->rows; i++)
        found->changed += best(s->base + i * vocab, vocab) != best(s->adapted + i * vocab, vocab);
    return BASE_OK;
}

/* ==== the rank ==== */

static base_status_t verify(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                            tr_verify_t *v, const tr_score_inputs_t *in)
{
    tr_verify_logits_t found;
    sample_t s = {0};

    base_status_t st = make_sample(ctx, in, &s);
    if (st >= 0) st = run(ctx, dev, group, in, &s);
    if (st >= 0) st = compare(ctx, v, &s, data_hf_folder_spec(in->folder)->vocab, &found);
    free_sample(ctx, &s);
    BASE_TRY(st);
    v->does_nothing = found.max == 0.0;
    if (v->json) return tr_verify_print_json(ctx, v, in, &found);
    tr_verify_print_text(v, in, &found);
    return BASE_OK;
}

base_status_t tr_verify_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    tr_verify_t *v = user;
    tr_score_inputs_t *in;

    BASE_TRY(tr_score_inputs_open(ctx, &v->sources, v->err, &v->reported, &in));
    const base_status_t st = verify(ctx, dev, group, v, in);
    tr_score_inputs_close(in);
    return st;
}
