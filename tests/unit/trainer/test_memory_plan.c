/* What `cadre plan` foretells is what a run takes, by the counters of base/memory.h, to within 2 %
 * (users' complaint 22); and what limits a machine's memory is read as it stands in /proc and /sys.
 */
#include "tests/unit/trainer/run_fixture.h"

#include "base/philox.h"
#include "comm/threads.h"
#include "data/dataset_write.h"
#include "data/hf_folder.h"
#include "data/hf_write.h"
#include "trainer/model/hf_load.h"
#include "trainer/run/memory_plan.h"
#include "trainer/run/train_run.h"

#include <math.h>
#include <sys/stat.h>

#define MAX_RANKS     2
#define TOLERANCE     0.02
#define GOLDEN_VOCAB  97
#define GOLDEN_HIDDEN 48
#define LARGE_VOCAB   150000

/* ==== a run and its counters ==== */

typedef struct counted {
    tr_train_run_t run;
    int64_t host[MAX_RANKS], device[MAX_RANKS];
} counted_t;

static base_status_t run_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    counted_t *c = user;
    const base_status_t st = tr_train_run_rank(group, ctx, dev, &c->run);
    const base_memory_t *memory = base_ctx_memory(ctx);
    const int rank = base_ctx_rank(ctx);

    c->host[rank] = base_memory_peak(memory, BASE_RESOURCE_HOST);
    c->device[rank] = base_memory_peak(memory, BASE_RESOURCE_DEVICE) +
                      base_memory_peak(memory, BASE_RESOURCE_PINNED);
    return st;
}

static void threads(int num_ranks, comm_rank_fn fn, void *user)
{
    const comm_threads_options_t options = {.num_ranks = num_ranks, .device = BASE_DEVICE_CPU};
    base_error_t error = {0};

    if (comm_threads_run(&options, fn, user, &error) < 0)
        fail_msg("%s:%d: %s", error.file, error.line, error.text);
}

static void make_dataset(base_ctx_t *ctx, const char *path, int64_t vocab)
{
    enum { DOCUMENTS = 60, LONGEST = 300 };
    static int32_t tokens[DOCUMENTS * LONGEST];
    static uint8_t mask[DOCUMENTS * LONGEST];
    int64_t offsets[DOCUMENTS + 1] = {0};
    char sha256[BASE_SHA256_HEX_BYTES];

    assert_int_equal(data_dataset_tokenizer_sha256(ctx, "model", sha256), BASE_OK);
    for (int d = 0; d < DOCUMENTS; d++) {
        const base_philox_t r = base_philox(base_philox_key(1), (uint32_t)d, 0, 0, 0);

        offsets[d + 1] = offsets[d] + 20 + r.word[0] % (LONGEST - 20);
        for (int64_t t = offsets[d]; t < offsets[d + 1]; t++) {
            tokens[t] = (int32_t)(t % 97);
            mask[t] = t > offsets[d];
        }
    }
    const data_dataset_content_t content = {.attributes = {.creator = "test",
                                                           .tokenizer_sha256 = sha256,
                                                           .template_sha256 = "",
                                                           .source = "memory",
                                                           .source_sha256 = sha256,
                                                           .settings = "{}",
                                                           .vocab_size = vocab,
                                                           .eos_id = 2,
                                                           .bos_id = -1,
                                                           .num_documents = DOCUMENTS},
                                            .offsets = offsets,
                                            .tokens = tokens,
                                            .loss_mask = mask};
    assert_int_equal(data_dataset_write(ctx, path, &content), BASE_OK);
}

static base_status_t ones(void *arg, int64_t index, const data_model_tensor_t *tensor, int64_t row,
                          int64_t num_rows, float *to)
{
    const int64_t cols = tensor->rank == 1 ? 1 : tensor->shape[1];

    (void)arg;
    (void)index;
    (void)row;
    for (int64_t i = 0; i < num_rows * cols; i++)
        to[i] = 1.0f / 64;
    return BASE_OK;
}

/* Instead of the golden model one with so many tokens that its embedding is the largest thing by far. */
static void grow_vocabulary(base_ctx_t *ctx, int32_t vocab)
{
    const data_hf_write_options_t options = {.dtype = DATA_F32, .files_from = "model"};
    data_hf_folder_t *folder;

    assert_int_equal(data_hf_folder_open(ctx, "model", NULL, &folder), BASE_OK);
    data_model_spec_t spec = *data_hf_folder_spec(folder);
    data_hf_folder_close(folder);
    spec.vocab = vocab;
    spec.tied = true;
    assert_int_equal(data_hf_write(ctx, "grown", &spec, &options, ones, NULL), BASE_OK);
    assert_int_equal(system("rm -r model && mv grown model"), 0);
}

static void make_place(base_ctx_t *ctx, int32_t vocab)
{
    char command[1024];

    (void)snprintf(command, sizeof command,
                   "cp -r '%s/tests/golden/files/llama/model' model && echo '{}' "
                   ">model/tokenizer.json",
                   getenv("CADRE_SOURCE_DIR"));
    assert_int_equal(system(command), 0);
    if (vocab != GOLDEN_VOCAB) grow_vocabulary(ctx, vocab);
    make_dataset(ctx, "data.h5", vocab);
}

static void expect_near(const char *what, int rank, int64_t foretold, int64_t taken)
{
    const double error = (double)foretold / (double)taken - 1.0;

    print_message("%s, rank %d: foretold %lld, taken %lld: %+.2f %%\n", what, rank,
                  (long long)foretold, (long long)taken, 100.0 * error);
    if (fabs(error) > TOLERANCE) fail_msg("%s of rank %d is foretold wrongly", what, rank);
}

/* What was taken. */
static counted_t compare_with(const run_place_t *p, const char *yaml, int num_ranks, int32_t vocab)
{
    tr_memory_rank_t ranks[MAX_RANKS] = {{0}};
    const char *const argv[] = {"cadre", "train", "run.yaml"};
    FILE *null = fopen("/dev/null", "w");

    assert_non_null(null);
    make_place(p->ctx, vocab);
    base_config_t *config = run_config(p->ctx, yaml);
    tr_memory_plan_t plan = {
        .config = config, .config_path = "run.yaml", .out = null, .err = null, .ranks = ranks};
    threads(num_ranks, tr_memory_plan_rank, &plan);
    assert_true(plan.fits);
    counted_t c = {.run = {.config = config,
                           .config_path = "run.yaml",
                           .argc = 3,
                           .argv = argv,
                           .out = null,
                           .err = null}};
    threads(num_ranks, run_rank, &c);
    for (int r = 0; r < num_ranks; r++) {
        expect_near("device", r, ranks[r].device, c.device[r]);
        expect_near("host", r, ranks[r].host + ranks[r].transient, c.host[r]);
        expect_near("all", r, tr_memory_rank_total(&ranks[r]), c.host[r] + c.device[r]);
    }
    base_config_destroy(config);
    (void)fclose(null);
    return c;
}

static void compare(const run_place_t *p, const char *yaml, int num_ranks)
{
    (void)compare_with(p, yaml, num_ranks, GOLDEN_VOCAB);
}

#define ADAPTERS                                                                                   \
    "model: model\noutput: out\nbatch:\n  tokens_per_trainer: 2048\n"                              \
    "defaults:\n  steps: 8\n  global_batch_documents: 8\n  learning_rate: 1e-3\n"                  \
    "adapters:\n  - name: code\n    data: data.h5\n    rank: 8\n    eval_documents: 5\n"           \
    "    eval_every_steps: 3\n  - name: legal\n    data: data.h5\n    rank: 4\n"                   \
    "    targets: [q_proj, v_proj]\n    dropout: 0.1\n"

static void adapters(void **state)
{
    compare(*state, ADAPTERS, 1);
}

static void adapters_of_high_rank(void **state)
{
    compare(*state,
            "model: model\noutput: out\nbatch:\n  tokens_per_trainer: 512\n"
            "defaults:\n  steps: 2\n  global_batch_documents: 4\n  learning_rate: 1e-3\n"
            "adapters:\n  - name: code\n    data: data.h5\n    rank: 512\n",
            1);
}

static void two_ranks(void **state)
{
    compare(*state, ADAPTERS, 2);
}

static void whole_model(void **state)
{
    compare(*state,
            "model: model\noutput: out\ndata: data.h5\nbatch:\n  tokens_per_trainer: 1024\n"
            "train:\n  mode: full\ndefaults:\n  steps: 4\n  global_batch_documents: 8\n  "
            "learning_rate: 1e-3\n",
            1);
}

/* A checkpoint holds a whole weight in one piece, more than exports do; and of the best evaluation all. */
static void whole_model_of_many_tokens(void **state)
{
    const char *const yaml =
        "model: model\noutput: out\ndata: data.h5\nbatch:\n  tokens_per_trainer: 512\n"
        "train:\n  mode: full\ndefaults:\n  steps: 1\n  global_batch_documents: 1\n  "
        "learning_rate: 1e-3\n  eval_documents: 1\n";

    (void)compare_with(*state, yaml, 1, LARGE_VOCAB);
}

/* A rank that only serves takes no memory for weights, nor for loading them: of a model that is nearly all
 * vocabulary it has next to nothing. */
static void a_server_loads_no_weights(void **state)
{
    enum { VOCAB = 20000 };
    const char *const yaml =
        "model: model\noutput: out\nbatch:\n  tokens_per_trainer: 512\nattention:\n  placement: "
        "pool\n"
        "defaults:\n  steps: 1\n  global_batch_documents: 1\n  learning_rate: 1e-3\n"
        "adapters:\n  - name: code\n    data: data.h5\n    rank: 4\n";
    const counted_t c = compare_with(*state, yaml, 2, VOCAB);
    const int64_t embedding = (int64_t)VOCAB * GOLDEN_HIDDEN * (int64_t)sizeof(float);

    assert_true(c.device[0] > embedding);
    assert_true(c.device[0] - c.device[1] > embedding);
    assert_true(c.host[0] - c.host[1] > TR_HF_LOAD_SLOT_BYTES); /* at least the slots of a thread */
}

/* ==== the limit ==== */

static void put(const char *path, const char *text)
{
    char command[512];

    (void)snprintf(command, sizeof command, "mkdir -p \"$(dirname '%s')\"", path);
    assert_int_equal(system(command), 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static void expect_limit(int64_t bytes, const char *piece)
{
    const tr_memory_limit_t limit = tr_memory_limit_below(".");

    assert_int_equal(limit.bytes, bytes);
    if (strstr(limit.cause, piece) == NULL) fail_msg("%s", limit.cause);
}

static void limits(void **state)
{
    (void)state;
    expect_limit(INT64_MAX, "nothing");
    put("./proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:   3000 kB\nSwapFree: 9 kB\n");
    expect_limit(3000 * 1024, "MemAvailable");
    put("./proc/self/cgroup", "0::/job/step\n");
    put("./sys/fs/cgroup/job/step/memory.max", "max\n");
    put("./sys/fs/cgroup/job/step/memory.current", "5\n");
    expect_limit(3000 * 1024, "MemAvailable");
    put("./sys/fs/cgroup/job/memory.max", "1000000\n");
    put("./sys/fs/cgroup/job/memory.current", "400000\n");
    expect_limit(600000, "cgroup");
    put("./sys/fs/cgroup/job/memory.current", "1400000\n");
    expect_limit(0, "cgroup");
    put("./proc/self/cgroup", "3:cpu:/x\n5:memory:/y\n");
    put("./sys/fs/cgroup/memory/y/memory.limit_in_bytes", "9223372036854771712\n");
    put("./sys/fs/cgroup/memory/y/memory.usage_in_bytes", "100\n");
    expect_limit(3000 * 1024, "MemAvailable");
    put("./sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n");
    put("./sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n");
    expect_limit(900, "cgroup");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, run_setup, run_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(adapters),    TEST(adapters_of_high_rank),      TEST(two_ranks),
        TEST(whole_model), TEST(whole_model_of_many_tokens), TEST(a_server_loads_no_weights),
        TEST(limits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
