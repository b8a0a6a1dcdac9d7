/* Loading a model folder on the strict device, whose uploads run late and at random: every weight has
 * the file's values, though slots and landings are filled again and again, and columns beside the weights
 * stay as they were. Then what fails: a file that has become shorter, and memory that is
 * not there. */
#include "tests/unit/trainer/run_fixture.h"

#include "tests/unit/trainer/hf_load_rig.h"

#include <math.h>

/* NaN everywhere, given to the stream behind which loading has to come. */
static void spoil(loaded_t *l)
{
    for (int32_t i = 0; i < l->model->num_weights; i++) {
        const kern_mat_t mat = tr_weights_mat(l->weights, i);
        const base_range_t all = {.mem = mat.mem,
                                  .row_bytes = mat.pitch * kern_dtype_bytes(mat.dtype),
                                  .rows = mat.rows,
                                  .pitch = mat.pitch * kern_dtype_bytes(mat.dtype)};

        assert_int_equal(base_fill(l->stream, &all, 0xff), BASE_OK);
    }
}

/* What lies beside a linear is as it was. */
static void check_extra(loaded_t *l)
{
    for (int32_t i = 0; i < l->model->num_weights; i++) {
        kern_mat_t beside = tr_weights_mat(l->weights, i);
        double values[4096];

        if (beside.pitch == beside.cols) continue;
        const int64_t extra = beside.pitch - beside.cols;
        assert_true(extra >= EXTRA &&
                    beside.rows * extra <= (int64_t)(sizeof values / sizeof *values));
        beside.mem = base_mem_at(beside.mem, beside.cols * kern_dtype_bytes(beside.dtype));
        beside.cols = extra;
        assert_int_equal(tr_weights_download(l->ctx, l->stream, &beside, values), BASE_OK);
        for (int64_t e = 0; e < beside.rows * extra; e++)
            assert_true(isnan(values[e]));
    }
}

static void check(const char *relative, kern_dtype_t dtype, const tr_hf_load_way_t *way,
                  uint64_t seed)
{
    char path[1024];
    loaded_t l;

    make(&l, golden(relative, path, sizeof path), dtype, seed);
    spoil(&l);
    if (way != NULL)
        assert_int_equal(tr_hf_load_by(l.weights, l.folder, way, l.stream), BASE_OK);
    else
        assert_int_equal(tr_hf_load(l.weights, l.folder, l.stream), BASE_OK);
    for (int64_t i = 0; i < data_model_spec_num_tensors(data_hf_folder_spec(l.folder)); i++)
        check_tensor(&l, i, dtype);
    check_extra(&l);
    let_go(&l);
}

/* slot_bytes 1 is a row. */
static const tr_hf_load_way_t ways[] = {
    {.num_threads = 1, .num_slots = 1, .at_once = 1, .slot_bytes = 1},
    {.num_threads = 3, .num_slots = 4, .at_once = 3, .num_landings = 2, .slot_bytes = 4096},
    {.num_threads = 16, .num_slots = 32, .at_once = 32, .slot_bytes = 1},
    {.num_threads = 2, .num_slots = 3, .at_once = 2, .at_start = 1, .slot_bytes = 4096},
    {.num_threads = 4,
     .num_slots = 32,
     .at_once = 4,
     .num_landings = TR_HF_LOAD_LANDINGS,
     .slot_bytes = 1}};
enum { NUM_WAYS = sizeof ways / sizeof ways[0] };

static void test_values(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        check("mistral/model-sharded", KERN_F32, NULL, seed);
        check("qwen3/model", KERN_BF16, NULL, seed);
    }
    for (int i = 0; i < NUM_WAYS; i++) {
        check("qwen3/model", KERN_BF16, &ways[i], 3);
        check("mistral/model-sharded", KERN_F64, &ways[i], 4);
    }
}

/* What cadre plan counts is what is taken, to the byte. */
static void test_memory(void **state)
{
    char path[1024];
    loaded_t l;

    (void)state;
    for (int i = 0; i < NUM_WAYS; i++) {
        make(&l, golden("qwen3/model", path, sizeof path), KERN_F32, 1);
        const base_memory_t *memory = base_ctx_memory(l.ctx);
        const int64_t device = base_memory_bytes(memory, BASE_RESOURCE_DEVICE);
        const tr_hf_load_bytes_t bytes = tr_hf_load_bytes(l.model, l.folder, &ways[i]);
        assert_int_equal(tr_hf_load_by(l.weights, l.folder, &ways[i], l.stream), BASE_OK);
        assert_int_equal(base_memory_peak(memory, BASE_RESOURCE_DEVICE) - device, bytes.device);
        assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_DEVICE), device);
        const int64_t stride =
            bytes.slots / ways[i].num_slots; /* of a slot and what lies between */
        assert_int_equal(bytes.num_streams, ways[i].num_landings > 0 ? 2 : 1);
        assert_true(stride * ways[i].num_slots == bytes.slots && stride % TR_HF_LOAD_ALIGN == 0);
        assert_in_range(bytes.device, ways[i].num_landings * (stride - 2 * TR_HF_LOAD_ALIGN),
                        ways[i].num_landings * (stride - TR_HF_LOAD_ALIGN));
        let_go(&l);
    }
    make(&l, golden("qwen3/model", path, sizeof path), KERN_F32, 1);
    const tr_hf_load_way_t way = tr_hf_load_way(l.model);
    assert_true(way.num_threads >= 1 && way.num_slots > way.num_threads);
    assert_true(way.num_slots * TR_HF_LOAD_SLOT_BYTES <= INT64_C(48) << 20);
    let_go(&l);
}

/* ==== what fails ==== */

/* The tensor that ends with its file. */
static const char *last_tensor(const data_hf_folder_t *folder)
{
    const data_safetensors_entry_t *last = data_hf_folder_entry(folder, 0);

    for (int64_t i = 1; i < data_model_spec_num_tensors(data_hf_folder_spec(folder)); i++)
        if (data_hf_folder_entry(folder, i)->offset > last->offset)
            last = data_hf_folder_entry(folder, i);
    return last->name;
}

/* The thread that meets the end of the file says which, and all others end. */
static void test_file_cut_short(void **state)
{
    char command[1200], path[1024], wanted[300];
    loaded_t l;

    (void)state;
    for (int i = 0; i < NUM_WAYS; i++) {
        (void)snprintf(command, sizeof command, "rm -rf model && cp -r '%s' model",
                       golden("llama/model", path, sizeof path));
        assert_int_equal(system(command), 0);
        make(&l, "model", KERN_F32, 5);
        (void)snprintf(wanted, sizeof wanted, "model.safetensors: tensor \"%s\": the file ends",
                       last_tensor(l.folder));
        assert_int_equal(system("truncate -s -1 model/model.safetensors"), 0);
        assert_int_equal(tr_hf_load_by(l.weights, l.folder, &ways[i], l.stream), BASE_ERR_FORMAT);
        fixture_expect_error(l.ctx, BASE_ERR_FORMAT, "DATA-06", wanted);
        let_go(&l);
    }
}

/* Every request for memory that loading makes fails once, among them those for slots and landings; it
 * says so, leaves nothing behind, and loads at the next call. */
static void test_no_memory(void **state)
{
    const tr_hf_load_way_t way = {.num_threads = 3,
                                  .num_slots = 5,
                                  .at_once = 2,
                                  .num_landings = 4,
                                  .slot_bytes = INT64_C(1) << 20};
    char path[1024];
    loaded_t l;
    base_status_t st = BASE_ERR_NOMEM;
    int failures = 0;

    (void)state;
    make(&l, golden("qwen3/model", path, sizeof path), KERN_BF16, 6);
    base_memory_t *memory = base_ctx_memory(l.ctx);
    const int64_t live = base_memory_live_total(memory);
    for (int64_t n = 1; st == BASE_ERR_NOMEM; n++) {
        base_memory_fail_at(memory, n);
        st = tr_hf_load_by(l.weights, l.folder, &way, l.stream);
        base_memory_fail_at(memory, 0);
        assert_int_equal(base_memory_live_total(memory), live);
        if (st == BASE_ERR_NOMEM) {
            fixture_expect_error(l.ctx, BASE_ERR_NOMEM, "MEM-01", "");
            failures++;
        }
    }
    assert_int_equal(st, BASE_OK);
    /* events of slots and landings, the memory of two slots, two and one, and of the landings */
    assert_true(failures >= way.num_slots + way.num_landings + 3 + 1);
    for (int64_t i = 0; i < data_model_spec_num_tensors(data_hf_folder_spec(l.folder)); i++)
        check_tensor(&l, i, KERN_BF16);
    let_go(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_memory),
        cmocka_unit_test_setup_teardown(test_file_cut_short, run_setup, run_teardown),
        cmocka_unit_test(test_no_memory)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
