/* What fails while a model folder is loaded: an upload or a copy, in the call or later on its stream, one that never ends, a
 * thread that cannot be started, a disk. Loading ends with the first of them, says which, leaves nothing behind, and loads
 * at the next call.
 *
 * Linked with --wrap of what fails. */
#include "tests/unit/trainer/hf_load_rig.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/device/staging.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#define DEADLINE_MS 300
#define LATE_NS     INT64_C(1000000000)
#define FIRE        "load.upload: the engine is on fire"

typedef enum how { IN_CALL, ON_STREAM, TOO_LATE } how_t;

/* The n-th call from now on fails; 0: none does. */
static struct faults {
    int64_t upload, copy, thread, read; /* atomic builtins */
    int64_t num_copies;                 /* so far; likewise */
    how_t how;                          /* of uploads and copies */
} faults;

static int is_it(int64_t *n)
{
    return __atomic_load_n(n, __ATOMIC_ACQUIRE) > 0 &&
           __atomic_sub_fetch(n, 1, __ATOMIC_ACQ_REL) == 0;
}

static base_status_t on_fire(void *args)
{
    return BASE_FAIL(*(base_ctx_t **)args, BASE_ERR_DEVICE, BASE_MSG_DEV_01, FIRE);
}

static base_status_t late(void *args)
{
    (void)args;
    base_clock_sleep_ns(LATE_NS);
    return BASE_OK;
}

static base_status_t fail_by(base_stream_t *s)
{
    base_ctx_t *ctx = base_device_ctx(base_stream_device(s));

    if (faults.how == IN_CALL) return on_fire(&ctx);
    return base_stream_submit(s, faults.how == TOO_LATE ? late : on_fire, &ctx, sizeof ctx, NULL,
                              0);
}

base_status_t __real_base_staging_upload(base_stream_t *s, const base_range_t *dst,
                                         const base_staging_t *staging, int64_t at);
base_status_t __wrap_base_staging_upload(base_stream_t *s, const base_range_t *dst,
                                         const base_staging_t *staging, int64_t at);
base_status_t __wrap_base_staging_upload(base_stream_t *s, const base_range_t *dst,
                                         const base_staging_t *staging, int64_t at)
{
    return is_it(&faults.upload) ? fail_by(s) : __real_base_staging_upload(s, dst, staging, at);
}

base_status_t __real_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src)
{
    (void)__atomic_add_fetch(&faults.num_copies, 1, __ATOMIC_ACQ_REL);
    return is_it(&faults.copy) ? fail_by(s) : __real_base_copy(s, dst, src);
}

typedef void *(*thread_fn)(void *);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_fn fn, void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_fn fn, void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_fn fn, void *arg)
{
    return is_it(&faults.thread) ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}

ssize_t __real_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at)
{
    if (!is_it(&faults.read)) return __real_pread(fd, to, bytes, at);
    errno = EIO;
    return -1;
}

/* ==== loading ==== */

static const tr_hf_load_way_t ways[] = {
    {.num_threads = 1, .num_slots = 1, .at_once = 1, .slot_bytes = 1},
    {.num_threads = 3, .num_slots = 5, .at_once = 2, .num_landings = 2, .slot_bytes = 4096},
    {.num_threads = 6, .num_slots = 12, .at_once = 8, .slot_bytes = 1024}};
enum { NUM_WAYS = sizeof ways / sizeof ways[0] };

/* Loads with a fault; then, without one, all that is in the folder. */
static void expect(loaded_t *l, const tr_hf_load_way_t *way, base_status_t wanted, const char *id,
                   const char *piece)
{
    const base_memory_t *memory = base_ctx_memory(l->ctx);
    const int64_t live = base_memory_live_total(memory);

    assert_int_equal(tr_hf_load_by(l->weights, l->folder, way, l->stream), wanted);
    fixture_expect_error(l->ctx, wanted, id, piece);
    assert_int_equal(base_memory_live_total(memory), live);
    faults = (struct faults){0};
    assert_int_equal(tr_hf_load_by(l->weights, l->folder, way, l->stream), BASE_OK);
    for (int64_t i = 0; i < data_model_spec_num_tensors(data_hf_folder_spec(l->folder)); i++)
        check_tensor(l, i, KERN_BF16);
}

static void with_model(void (*fn)(loaded_t *l, const tr_hf_load_way_t *way))
{
    char path[1024];

    for (int i = 0; i < NUM_WAYS; i++) {
        loaded_t l;

        make(&l, golden("qwen3/model", path, sizeof path), KERN_BF16, 7);
        fn(&l, &ways[i]);
        let_go(&l);
    }
}

/* The first upload, one when slots are used again, and one near the end. */
static void uploads(loaded_t *l, const tr_hf_load_way_t *way)
{
    const int64_t which[] = {1, way->num_slots + 2, 40};

    for (int i = 0; i < 6; i++) {
        faults = (struct faults){.upload = which[i % 3], .how = i < 3 ? IN_CALL : ON_STREAM};
        expect(l, way, BASE_ERR_DEVICE, "DEV-01", FIRE);
    }
}

static void test_upload_fails(void **state)
{
    (void)state;
    with_model(uploads);
}

/* Out of a landing; uploads to it wait for that, but not behind the last. */
static void landings(loaded_t *l, const tr_hf_load_way_t *way)
{
    faults = (struct faults){0};
    assert_int_equal(tr_hf_load_by(l->weights, l->folder, way, l->stream), BASE_OK);
    const int64_t which[] = {1, 6, faults.num_copies};
    assert_true(way->num_landings == 0 || which[2] > 6);
    for (int i = 0; i < 6 && way->num_landings > 0; i++) {
        faults = (struct faults){.copy = which[i % 3], .how = i < 3 ? IN_CALL : ON_STREAM};
        expect(l, way, BASE_ERR_DEVICE, "DEV-01", FIRE);
    }
}

static void test_landing_fails(void **state)
{
    (void)state;
    with_model(landings);
}

/* The deadline ends it, and what was given is waited for before its memory goes. */
static void test_upload_hangs(void **state)
{
    char path[1024];
    loaded_t l;

    (void)state;
    make(&l, golden("qwen3/model", path, sizeof path), KERN_BF16, 7);
    const int64_t deadline_ms = base_ctx_deadline_ms(l.ctx);
    base_ctx_set_deadline_ms(l.ctx, DEADLINE_MS);
    faults = (struct faults){.upload = 3, .how = TOO_LATE};
    const base_memory_t *memory = base_ctx_memory(l.ctx);
    const int64_t live = base_memory_live_total(memory);
    assert_int_equal(tr_hf_load_by(l.weights, l.folder, &ways[0], l.stream), BASE_ERR_TIMEOUT);
    fixture_expect_error(l.ctx, BASE_ERR_TIMEOUT, "COMM-02", "weights to load: not there after");
    assert_int_equal(base_memory_live_total(memory), live);
    base_ctx_set_deadline_ms(l.ctx, deadline_ms);
    /* Another rank has failed meanwhile. */
    const int32_t stop = 1;
    faults = (struct faults){.upload = 3, .how = TOO_LATE};
    base_ctx_set_stop_flag(l.ctx, &stop);
    assert_int_equal(tr_hf_load_by(l.weights, l.folder, &ways[0], l.stream), BASE_ERR_PEER);
    fixture_expect_error(l.ctx, BASE_ERR_PEER, "COMM-01", "asked to stop");
    base_ctx_set_stop_flag(l.ctx, NULL);
    assert_int_equal(base_memory_live_total(memory), live);
    let_go(&l);
}

/* Those of streams, then the one that feeds, then those that read. */
static void threads(loaded_t *l, const tr_hf_load_way_t *way)
{
    const int num_streams = way->num_landings > 0 ? 2 : 1;

    for (int n = 1; n <= num_streams + 1 + way->num_threads; n++) {
        faults = (struct faults){.thread = n};
        expect(l, way, BASE_ERR_NOMEM, "MEM-01",
               n <= num_streams ? "stream load." : "weights to load: no thread");
    }
}

static void test_no_thread(void **state)
{
    (void)state;
    with_model(threads);
}

static void reads(loaded_t *l, const tr_hf_load_way_t *way)
{
    const int64_t which[] = {1, 2, 30};

    for (int i = 0; i < 3; i++) {
        faults = (struct faults){.read = which[i]};
        expect(l, way, BASE_ERR_IO, "IO-01", "model.safetensors: cannot read: Input/output error");
    }
}

static void test_disk_fails(void **state)
{
    (void)state;
    with_model(reads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_upload_fails), cmocka_unit_test(test_landing_fails),
        cmocka_unit_test(test_upload_hangs), cmocka_unit_test(test_no_thread),
        cmocka_unit_test(test_disk_fails)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
