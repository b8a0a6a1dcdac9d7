/* The golden files themselves: every model folder opens and says what its family is there for, the
 * adapters fit the models, and the expected numbers agree with each other where one follows from
 * others, so that a test against them does not chase a fault of the files. */
#include "tests/support/ctx_fixture.h"

#include "data/hf_folder.h"
#include "tests/golden/golden_case.h"

#include <math.h>
#include <stdio.h>

/* Two ways to the same double; sums of at most some thousand terms. */
#define SAME 1e-12

static void assert_same(double got, double want)
{
    if (!(fabs(got - want) <= SAME * fabs(want))) fail_msg("%.17g, want %.17g", got, want);
}

/* ==== model folders ==== */

static data_hf_folder_t *open_folder(base_ctx_t *ctx, const char *relative)
{
    char path[1024];
    data_hf_folder_t *folder = NULL;
    base_error_t error;

    if (data_hf_folder_open(ctx, golden_path(relative, path, sizeof path), NULL, &folder) !=
        BASE_OK) {
        assert_true(base_ctx_error(ctx, &error));
        fail_msg("%s", error.text);
    }
    return folder;
}

/* What the four families are there for. */
static void test_families(void **state)
{
    static const struct {
        const char *folder;
        data_model_family_t family;
        data_rope_kind_t rope;
        int64_t window;
        bool tied, qkv_bias, qk_norm;
    } want[] = {
        {"llama/model", DATA_MODEL_LLAMA, DATA_ROPE_LLAMA3, 0, false, false, false},
        {"mistral/model", DATA_MODEL_MISTRAL, DATA_ROPE_PLAIN, 70, false, false, false},
        {"qwen2/model", DATA_MODEL_QWEN2, DATA_ROPE_YARN, 0, true, true, false},
        {"qwen3/model", DATA_MODEL_QWEN3, DATA_ROPE_PLAIN, 0, true, false, true},
    };

    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        data_hf_folder_t *folder = open_folder(*state, want[i].folder);
        const data_model_spec_t *spec = data_hf_folder_spec(folder);

        assert_int_equal(spec->family, want[i].family);
        assert_int_equal(spec->rope.kind, want[i].rope);
        assert_int_equal(spec->tied, want[i].tied);
        assert_int_equal(spec->qkv_bias, want[i].qkv_bias);
        assert_int_equal(spec->qk_norm, want[i].qk_norm);
        for (int32_t l = 0; l < spec->num_layers; l++)
            assert_int_equal(spec->layer_window[l], want[i].window);
        assert_true((spec->num_q_heads * spec->head_dim != spec->hidden) == spec->qk_norm);
        data_hf_folder_close(folder);
    }
}

/* The identity does not depend on how config.json is spelled, nor on the files' number. */
static void test_variants(void **state)
{
    static const char *const pairs[][2] = {{"llama/model", "llama/model-v4"},
                                           {"mistral/model", "mistral/model-sharded"}};

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        data_hf_folder_t *one = open_folder(*state, pairs[i][0]);
        data_hf_folder_t *other = open_folder(*state, pairs[i][1]);
        uint64_t hash, other_hash;

        assert_int_equal(data_hf_folder_hash(one, &hash), BASE_OK);
        assert_int_equal(data_hf_folder_hash(other, &other_hash), BASE_OK);
        assert_true(hash == other_hash);
        data_hf_folder_close(one);
        data_hf_folder_close(other);
    }
}

/* ==== adapters ==== */

/* base_model.model.<module>.lora_A.weight belongs to <module>.weight: A (rank, in), B (out, rank).
 */
static void check_tensor(const data_model_spec_t *spec, const golden_adapter_t *a,
                         const golden_tensor_t *t)
{
    const char *prefix = "base_model.model.", *end = strstr(t->name, ".lora_");
    const bool is_a = strstr(t->name, ".lora_A.weight") != NULL;
    data_model_tensor_t base;
    char name[DATA_MODEL_NAME_BYTES];
    int64_t index;

    assert_int_equal(strncmp(t->name, prefix, strlen(prefix)), 0);
    assert_non_null(end);
    assert_true(is_a || strstr(t->name, ".lora_B.weight") != NULL);
    (void)snprintf(name, sizeof name, "%.*s.weight", (int)(end - t->name) - (int)strlen(prefix),
                   t->name + strlen(prefix));
    index = data_model_spec_find(spec, name);
    assert_true(index >= 0);
    data_model_spec_tensor(spec, index, &base);
    assert_int_equal(t->rows, is_a ? a->rank : base.shape[0]);
    assert_int_equal(t->cols, is_a ? base.shape[1] : a->rank);
    for (int64_t i = 0; i < t->rows * t->cols; i++)
        assert_true((double)(float)t->initial[i] == t->initial[i]);
    assert_true(golden_distance(t->final, t->initial, t->rows * t->cols) > 1e-3);
}

/* Rates by their formula; loss and gradient norm of step 0 from the documents and the gradients. */
static void check_training(const golden_case_t *g, const golden_adapter_t *a)
{
    const golden_training_t *t = &g->training;
    double loss = 0, squares = 0;

    for (int64_t s = 0; s < GOLDEN_STEPS; s++) {
        const int64_t w = t->warmup_steps;
        const double done = (double)(s - w) / (double)(t->steps - w);
        const double share = s < w ? (double)s / (double)w : (1 + cos(acos(-1.0) * done)) / 2;

        assert_true(fabs(a->learning_rates[s] - share * t->learning_rate) < 1e-18);
        assert_true(a->grad_norms[s] > t->clip_norm);
    }
    for (int64_t i = 0; i < a->batches[0].num_documents; i++)
        loss += a->documents[a->batches[0].documents[i]].loss_sum;
    assert_same(a->losses[0], loss / (double)a->batches[0].num_supervised);
    for (int64_t i = 0; i < a->num_tensors; i++)
        for (int64_t j = 0; j < a->tensors[i].rows * a->tensors[i].cols; j++)
            squares += a->tensors[i].gradient[j] * a->tensors[i].gradient[j];
    assert_same(a->grad_norms[0], sqrt(squares));
}

/* -ln p of `target` */
static double row_loss(const double *logits, int64_t vocab, int32_t target)
{
    double sum = 0;

    for (int64_t v = 0; v < vocab; v++)
        sum += exp(logits[v] - logits[target]);
    return log(sum);
}

/* Where all rows are there, their logits give the document's loss: row i predicts token i + 1. */
static void check_document(const golden_case_t *g, const golden_document_t *d)
{
    double sum = 0, base = 0;

    assert_true(golden_distance(d->logits, d->base_logits, d->num_logit_rows * g->vocab) > 0.1);
    if (d->num_logit_rows != d->rows) return;
    for (int64_t i = 0; i + 1 < d->rows; i++) {
        if (!d->loss_mask[i + 1]) continue;
        sum += row_loss(d->logits + i * g->vocab, g->vocab, d->tokens[i + 1]);
        base += row_loss(d->base_logits + i * g->vocab, g->vocab, d->tokens[i + 1]);
    }
    assert_same(sum, d->loss_sum);
    assert_same(base, d->base_loss_sum);
}

/* Batches go through the dataset in its order; the last of an epoch takes what is left. */
static void check_batches(const golden_adapter_t *a)
{
    int64_t next = 0;

    for (int s = 0; s < GOLDEN_STEPS; s++) {
        const golden_batch_t *batch = &a->batches[s];
        const int64_t left = a->num_trained - next;

        assert_int_equal(batch->num_documents,
                         left < a->batch_documents ? left : a->batch_documents);
        for (int64_t i = 0; i < batch->num_documents; i++)
            assert_int_equal(batch->documents[i], next++);
        if (next == a->num_trained) next = 0;
    }
}

static void check_case(base_ctx_t *ctx, const char *family)
{
    golden_case_t *g = golden_case_open(ctx, family);
    data_hf_folder_t *folder;
    char relative[64];

    (void)snprintf(relative, sizeof relative, "%s/model", family);
    folder = open_folder(ctx, relative);
    assert_int_equal(data_hf_folder_spec(folder)->vocab, g->vocab);
    for (int i = 0; i < GOLDEN_NUM_ADAPTERS; i++) {
        const golden_adapter_t *a = &g->adapters[i];
        const int32_t layers = data_hf_folder_spec(folder)->num_layers;

        assert_int_equal(a->num_tensors, 2 * layers * a->num_targets);
        assert_true(a->num_trained < a->num_documents);
        for (int64_t j = 0; j < a->num_tensors; j++) {
            const golden_tensor_t *t = &a->tensors[j];

            check_tensor(data_hf_folder_spec(folder), a, t);
            assert_ptr_equal(golden_find(a, t->name), t);
        }
        for (int64_t j = 0; j < a->num_documents; j++)
            check_document(g, &a->documents[j]);
        check_batches(a);
        check_training(g, a);
    }
    assert_true(g->adapters[0].rank != g->adapters[1].rank);
    assert_true(g->adapters[0].rslora && !g->adapters[1].rslora);
    assert_int_equal(g->adapters[0].num_targets, GOLDEN_MAX_TARGETS);
    assert_int_equal(g->adapters[1].num_targets, 3);
    data_hf_folder_close(folder);
    golden_case_close(g);
}

static void test_cases(void **state)
{
    for (int i = 0; i < GOLDEN_NUM_FAMILIES; i++)
        check_case(*state, golden_families[i]);
}

/* NaN is not near anything. */
static void test_distance(void **state)
{
    const double want[] = {3, 4}, got[] = {3, 4.5}, bad[] = {3, (double)NAN};

    (void)state;
    assert_true(golden_distance(want, want, 2) == 0);
    assert_true(golden_distance(got, want, 2) == 0.1);
    assert_false(golden_distance(bad, want, 2) <= 1);
}

static int setup(void **state)
{
    *state = fixture_ctx();
    return 0;
}

static int teardown(void **state)
{
    fixture_ctx_end(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_families, setup, teardown),
        cmocka_unit_test_setup_teardown(test_variants, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cases, setup, teardown),
        cmocka_unit_test(test_distance),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
