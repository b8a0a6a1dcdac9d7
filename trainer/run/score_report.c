#include "trainer/run/score_report.h"

#include "base/json_write.h"
#include "base/memory.h"
#include "trainer/run/scorer.h"

#include <inttypes.h>
#include <math.h>

typedef struct score_totals {
    int64_t documents, tokens, supervised;
    double loss;
} score_totals_t;

static score_totals_t total(const data_dataset_t *dataset, const double *sums)
{
    score_totals_t t = {.documents = data_dataset_num_documents(dataset),
                        .tokens = data_dataset_num_tokens(dataset),
                        .supervised = data_dataset_num_supervised(dataset)};

    for (int64_t i = 0; i < t.documents; i++)
        t.loss += sums[i];
    t.loss /= (double)t.supervised;
    return t;
}

/* ==== text ==== */

static void print_text(const tr_score_t *s, const data_dataset_t *dataset, const double *sums,
                       const score_totals_t *t)
{
    if (s->per_document) {
        (void)fprintf(s->out, "document      line    tokens  supervised      loss\n");
        for (int64_t i = 0; i < t->documents; i++) {
            const int64_t supervised = data_dataset_supervised(dataset, i);

            (void)fprintf(s->out,
                          "%8" PRId64 "  %8" PRId64 "  %8" PRId64 "  %10" PRId64 "  %8.5f\n", i,
                          data_dataset_line(dataset, i), data_dataset_rows(dataset, i), supervised,
                          sums[i] / (double)supervised);
        }
        (void)fputc('\n', s->out);
    }
    (void)fprintf(s->out, "model              %s\n", s->sources.model);
    if (s->sources.adapter != NULL)
        (void)fprintf(s->out, "adapter            %s\n", s->sources.adapter);
    (void)fprintf(s->out,
                  "data               %s\n"
                  "documents          %" PRId64 "\n"
                  "tokens             %" PRId64 "\n"
                  "supervised tokens  %" PRId64 "\n"
                  "loss               %.6f nats per supervised token\n"
                  "perplexity         %.6g\n",
                  s->sources.data, t->documents, t->tokens, t->supervised, t->loss, exp(t->loss));
}

/* ==== JSON ==== */

static base_status_t print_json(base_ctx_t *ctx, const tr_score_t *s, const data_dataset_t *dataset,
                                const double *sums, const score_totals_t *t)
{
    base_json_t j;

    base_json_to_file(&j, s->out);
    base_json_begin_object(&j);
    base_json_put_int(&j, "documents", t->documents);
    base_json_put_int(&j, "tokens", t->tokens);
    base_json_put_int(&j, "supervised_tokens", t->supervised);
    base_json_put_double(&j, "loss", t->loss);
    base_json_put_double(&j, "perplexity", exp(t->loss));
    if (s->per_document) {
        base_json_key(&j, "per_document");
        base_json_begin_array(&j);
        for (int64_t i = 0; i < t->documents; i++) {
            base_json_begin_object(&j);
            base_json_put_int(&j, "document", i);
            base_json_put_int(&j, "line", data_dataset_line(dataset, i));
            base_json_put_int(&j, "tokens", data_dataset_rows(dataset, i));
            base_json_put_int(&j, "supervised_tokens", data_dataset_supervised(dataset, i));
            base_json_put_double(&j, "loss", sums[i] / (double)data_dataset_supervised(dataset, i));
            base_json_end(&j);
        }
        base_json_end(&j);
    }
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, ctx, "standard output");
}

/* A mean that is no number says nothing, and JSON has none. */
static base_status_t check_finite(base_ctx_t *ctx, const tr_score_t *s,
                                  const data_dataset_t *dataset, const double *sums)
{
    for (int64_t i = 0; i < data_dataset_num_documents(dataset); i++) {
        if (isfinite(sums[i])) continue;
        return BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_17,
                         "%s: document %" PRId64 " (line %" PRId64 " of its JSONL) has loss %g "
                         "with %s%s%s",
                         s->sources.data, i, data_dataset_line(dataset, i), sums[i],
                         s->sources.model, s->sources.adapter != NULL ? " and " : "",
                         s->sources.adapter != NULL ? s->sources.adapter : "");
    }
    return BASE_OK;
}

/* ==== the rank ==== */

static base_status_t score(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                           const tr_score_t *s, const tr_score_inputs_t *in, double *sums)
{
    const tr_scorer_options_t options = {.folder = in->folder,
                                         .adapter = in->adapter,
                                         .longest = data_dataset_max_rows(in->dataset),
                                         .tokens_per_trainer = s->tokens_per_trainer};
    tr_scorer_t *scorer;

    BASE_TRY(tr_scorer_create(ctx, dev, group, &options, &scorer));
    base_status_t st = tr_scorer_losses(scorer, in->dataset, sums);
    tr_scorer_destroy(scorer);
    BASE_TRY(st);
    BASE_TRY(check_finite(ctx, s, in->dataset, sums));
    const score_totals_t t = total(in->dataset, sums);
    if (s->json) return print_json(ctx, s, in->dataset, sums, &t);
    print_text(s, in->dataset, sums, &t);
    return BASE_OK;
}

base_status_t tr_score_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    tr_score_t *s = user;
    tr_score_inputs_t *in;
    base_status_t st = BASE_ERR_NOMEM;

    BASE_TRY(tr_score_inputs_open(ctx, &s->sources, s->err, &s->reported, &in));
    double *sums =
        base_calloc(ctx, data_dataset_num_documents(in->dataset), sizeof *sums, "losses");
    if (sums != NULL) st = score(ctx, dev, group, s, in, sums);
    base_free(ctx, sums);
    tr_score_inputs_close(in);
    return st;
}
