/* The host's side of the cuda device when calls of CUDA fail, with a fake of CUDA (tests/support/cuda_fake.h): each call of
 * what a rank does with its device fails once, and where pinned memory comes from when the driver does not take ours. */
#include "tests/support/ctx_fixture.h"

#include "base/device/device_cuda.h"
#include "base/device/device_host.h"
#include "tests/support/cuda_fake.h"

#include <stdio.h>
#include <sys/mman.h>

#define BYTES       4096
#define LARGE_BYTES ((INT64_C(3) << 20) - 5) /* two huge pages */

/* All that a rank has of a device. */
typedef struct gear {
    base_device_t *dev;
    base_buffer_t *weights, *pinned, *large, *view;
    base_stream_t *compute, *async;
    base_event_t *event;
    base_counter_t *counter;
    base_counter_bank_t *bank;
} gear_t;

static base_status_t make(base_ctx_t *ctx, gear_t *g)
{
    base_export_t e;

    BASE_TRY(base_device_open(ctx, BASE_DEVICE_CUDA, 0, &g->dev));
    BASE_TRY(base_buffer_alloc(g->dev, BASE_MEMORY_PINNED, BYTES, "small", &g->pinned));
    BASE_TRY(base_buffer_alloc(g->dev, BASE_MEMORY_PINNED, LARGE_BYTES, "large", &g->large));
    base_device_share(g->dev);
    BASE_TRY(base_buffer_alloc(g->dev, BASE_MEMORY_DEVICE, BYTES, "weights", &g->weights));
    BASE_TRY(base_buffer_export(g->weights, &e));
    BASE_TRY(base_buffer_import(g->dev, &e, "view", &g->view));
    BASE_TRY(base_stream_create(g->dev, BASE_STREAM_COMPUTE, "compute", &g->compute));
    BASE_TRY(base_stream_create(g->dev, BASE_STREAM_ASYNC, "copies", &g->async));
    BASE_TRY(base_event_create(g->dev, &g->event));
    BASE_TRY(base_counter_create(g->dev, &g->counter));
    return base_counter_bank_create(g->dev, 2, "bank", &g->bank);
}

/* Work that goes through all entries of the device, and what it leaves. */
static base_status_t use(gear_t *g, unsigned char *got)
{
    const base_range_t rows = {base_mem(g->weights, 0), 100, 8, 200};
    const base_range_t packed = {base_mem(g->large, LARGE_BYTES - 800), 100, 8, 100};
    const base_range_t all = {base_mem(g->pinned, 0), BYTES, 1, BYTES};
    const base_range_t weights = {base_mem(g->weights, 0), BYTES, 1, BYTES};
    const base_signal_t both[2] = {{g->counter, 2}, {base_counter_bank_at(g->bank, 0), 1}};
    const unsigned char word[4] = {1, 2, 3, 4};

    BASE_TRY(base_fill(g->compute, &all, 0x11));
    BASE_TRY(base_copy(g->compute, &weights, &all));
    BASE_TRY(base_fill(g->compute, &rows, 0x22));
    BASE_TRY(base_upload(g->compute, base_mem(g->weights, BYTES - 4), word, 4));
    BASE_TRY(base_event_record(g->event, g->compute));
    BASE_TRY(base_stream_signal(g->compute, g->counter, 1));
    BASE_TRY(base_stream_wait_event(g->async, g->event));
    BASE_TRY(base_stream_wait_counter(g->async, g->counter, 1));
    BASE_TRY(base_copy(g->async, &packed, &rows));
    BASE_TRY(base_stream_signal_all(g->async, both, 2));
    BASE_TRY(base_stream_wait_all(g->compute, both, 2));
    BASE_TRY(base_event_query(g->event));
    BASE_TRY(base_download(g->compute, got, base_mem(g->large, LARGE_BYTES - 1), 1));
    BASE_TRY(base_download(g->compute, got + 1, base_mem(g->view, BYTES - 1), 1));
    return base_stream_sync(g->compute);
}

static void end(gear_t *g)
{
    base_stream_destroy(g->async); /* first: what they were given uses the rest */
    base_stream_destroy(g->compute);
    base_counter_bank_destroy(g->bank);
    base_counter_destroy(g->counter);
    base_event_destroy(g->event);
    base_buffer_free(g->view);
    base_buffer_free(g->weights);
    base_buffer_free(g->large);
    base_buffer_free(g->pinned);
    if (g->dev != NULL) base_device_close(g->dev);
}

static int64_t alive(void)
{
    return cuda_fake.device + cuda_fake.pinned + cuda_fake.registered + cuda_fake.opened +
           cuda_fake.streams + cuda_fake.events;
}

static int is_one_of(const char *function, const char *const *names)
{
    for (; *names != NULL; names++)
        if (strcmp(function, *names) == 0) return 1;
    return 0;
}

/* Runs all of it with call n failing; returns whether that was reached. */
static int fail_call(int64_t n)
{
    /* After these there is another way, or nothing that is lost. What an end cannot give back, it leaves. */
    static const char *const spare[] = {"cudaHostRegister", "cuCtxGetCurrent", NULL};
    static const char *const ends[] = {"cudaFree",           "cudaFreeHost",
                                       "cudaHostUnregister", "cudaIpcCloseMemHandle",
                                       "cudaStreamDestroy",  "cudaEventDestroy",
                                       "cudaStreamQuery",    "cudaSetDevice",
                                       "cudaGetDeviceCount", NULL};
    base_ctx_t *ctx = fixture_ctx();
    unsigned char got[2] = {0};
    gear_t g = {0};
    base_error_t error;

    cuda_fake = (cuda_fake_t){.fails = n};
    base_status_t st = make(ctx, &g);
    if (st >= 0) st = use(&g, got);
    const char *failed = cuda_fake.failed;
    const int has_error = base_ctx_error(ctx, &error);
    if (st < 0 && (!has_error || failed == NULL || error.text[0] == '\0'))
        fail_msg("call %lld, %s: status %d without a text", (long long)n, failed, (int)st);
    if (st < 0 && strstr(error.text, "cuda:0") == NULL && strstr(error.text, "compute: ") == NULL &&
        strstr(error.text, "copies: ") == NULL && strstr(error.text, "weights: ") == NULL)
        fail_msg("call %lld, %s: nobody is named: %s", (long long)n, failed, error.text);
    if (st >= 0) {
        if (failed != NULL && !is_one_of(failed, spare))
            fail_msg("call %lld, %s: not noticed", (long long)n, failed);
        assert_true(got[0] == 0x22 && got[1] == 4);
    }
    end(&g);
    if (failed == NULL) failed = cuda_fake.failed; /* while it ends */
    if (alive() != 0 && !(failed != NULL && is_one_of(failed, ends)))
        fail_msg("call %lld, %s: %lld things of CUDA remain", (long long)n, failed,
                 (long long)alive());
    fixture_ctx_end(ctx);
    return failed != NULL;
}

static void test_each_call(void **state)
{
    int64_t n = 1;

    (void)state;
    while (fail_call(n))
        n++;
    print_message("%lld calls\n", (long long)n - 1);
    assert_true(n > 60);
}

/* ==== a GPU that does not come back ==== */

/* Waits end by the deadline or the stop flag, and what is then taken down waits for nothing: it is left to the end of the
 * process. */
static void test_hangs(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    const int32_t stop = 1;
    unsigned char got[2];
    gear_t g = {0};

    (void)state;
    cuda_fake = (cuda_fake_t){0};
    assert_int_equal(make(ctx, &g), BASE_OK);
    assert_int_equal(use(&g, got), BASE_OK);
    base_ctx_set_deadline_ms(ctx, 50);
    cuda_fake.hangs = 1;
    assert_int_equal(base_event_query(g.event), BASE_PENDING);
    assert_int_equal(base_event_wait(g.event, "the event"), BASE_ERR_TIMEOUT);
    fixture_expect_error(ctx, BASE_ERR_TIMEOUT, "COMM-02", "the event: not there after 50 ms");
    assert_int_equal(base_stream_sync(g.compute), BASE_ERR_TIMEOUT);
    fixture_expect_error(ctx, BASE_ERR_TIMEOUT, "COMM-02", "compute: work is pending after 50 ms");
    base_ctx_set_stop_flag(ctx, &stop);
    assert_int_equal(base_stream_sync(g.async), BASE_ERR_PEER);
    fixture_expect_error(ctx, BASE_ERR_PEER, "COMM-01", "copies: asked to stop");
    /* It has failed for good. */
    assert_int_equal(base_stream_signal(g.compute, g.counter, 9), BASE_ERR_TIMEOUT);
    const int64_t memory = cuda_fake.device + cuda_fake.pinned + cuda_fake.registered;
    end(&g);
    assert_int_equal(cuda_fake.device + cuda_fake.pinned + cuda_fake.registered, memory);
    base_ctx_clear_error(ctx);
    base_ctx_set_stop_flag(ctx, NULL);
    fixture_ctx_end(ctx);
    cuda_fake_end();
}

/* More pieces of work than may be under way: to give the next one waits, with the deadline. */
static void test_full_queue(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_status_t st = BASE_OK;
    gear_t g = {0};
    int given = 0;

    (void)state;
    cuda_fake = (cuda_fake_t){0};
    assert_int_equal(make(ctx, &g), BASE_OK);
    const base_range_t all = {base_mem(g.weights, 0), BYTES, 1, BYTES};
    base_ctx_set_deadline_ms(ctx, 50);
    for (; given < 1000 && st >= 0; given++) {
        st = base_fill(g.compute, &all, 1);
        cuda_fake.hangs = given >= BASE_CUDA_PACE_EVENTS * BASE_CUDA_PACE_STRIDE / 2;
    }
    assert_int_equal(st, BASE_ERR_TIMEOUT);
    fixture_expect_error(ctx, BASE_ERR_TIMEOUT, "COMM-02", "compute: work is pending after 50 ms");
    assert_true(given <= BASE_CUDA_PACE_EVENTS * BASE_CUDA_PACE_STRIDE + 1);
    cuda_fake.hangs = 0;
    end(&g);
    assert_int_equal(alive(), 0);
    fixture_ctx_end(ctx);
}

/* ==== pinned memory ==== */

static int no_map;           /* the system has no room for ours */
static int64_t mapped_bytes; /* that it has given and not got back */

void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, long offset)
{
    if (no_map) return MAP_FAILED;
    mapped_bytes += (int64_t)bytes;
    return __real_mmap(at, bytes, protection, flags, file, offset);
}

int __real_munmap(void *at, size_t bytes);
int __wrap_munmap(void *at, size_t bytes);
int __wrap_munmap(void *at, size_t bytes)
{
    mapped_bytes -= (int64_t)bytes;
    return __real_munmap(at, bytes);
}

static void write_all(base_buffer_t *buf)
{
    memset(base_mem_address(base_mem(buf, 0)), 0x5A, (size_t)base_buffer_bytes(buf));
}

static void test_pinned(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_device_t *dev = NULL;
    base_buffer_t *buf = NULL;

    (void)state;
    cuda_fake = (cuda_fake_t){0};
    mapped_bytes = 0;
    assert_int_equal(base_device_open(ctx, BASE_DEVICE_CUDA, 0, &dev), BASE_OK);
    /* Ours, which the driver pins. */
    assert_int_equal(base_buffer_alloc(dev, BASE_MEMORY_PINNED, LARGE_BYTES, "p", &buf), BASE_OK);
    assert_true(cuda_fake.registered == 1 && cuda_fake.pinned == 0 && buf->own_bytes == 4 << 20);
    write_all(buf);
    assert_int_equal(mapped_bytes, 4 << 20);
    base_buffer_free(buf);
    assert_true(alive() == 0 && mapped_bytes == 0);
    /* The driver does not take it, or there is none: its own. */
    for (int way = 0; way < 2; way++) {
        cuda_fake.always = way == 0 ? "cudaHostRegister" : NULL;
        no_map = way == 1;
        const base_status_t st = base_buffer_alloc(dev, BASE_MEMORY_PINNED, LARGE_BYTES, "p", &buf);
        no_map = 0;
        assert_int_equal(st, BASE_OK);
        assert_true(cuda_fake.registered == 0 && cuda_fake.pinned == 1 && buf->own_bytes == 0);
        assert_int_equal(mapped_bytes, 0);
        write_all(buf);
        base_buffer_free(buf);
        assert_int_equal(alive(), 0);
    }
    /* Nor has that any. */
    cuda_fake.always = "cudaHostAlloc";
    no_map = 1;
    const base_status_t none = base_buffer_alloc(dev, BASE_MEMORY_PINNED, LARGE_BYTES, "p", &buf);
    no_map = 0;
    assert_int_equal(none, BASE_ERR_NOMEM);
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01",
                         "cuda:0 fake: buffer p of 3145723 bytes: out of memory");
    assert_int_equal(base_memory_live(base_ctx_memory(ctx), BASE_RESOURCE_PINNED), 0);
    /* What the driver does not let go stays where it is. */
    cuda_fake.always = NULL;
    assert_int_equal(base_buffer_alloc(dev, BASE_MEMORY_PINNED, LARGE_BYTES, "p", &buf), BASE_OK);
    unsigned char *memory = base_mem_address(base_mem(buf, 0));
    cuda_fake.always = "cudaHostUnregister";
    base_buffer_free(buf);
    memory[LARGE_BYTES - 1] = 1;
    fixture_expect_error(ctx, BASE_ERR_DEVICE, "INT-01", "free of a buffer");
    cuda_fake.always = NULL;
    base_device_close(dev);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_call), cmocka_unit_test(test_hangs),
        cmocka_unit_test(test_full_queue), cmocka_unit_test(test_pinned)};

    return cmocka_run_group_tests_name("cuda_faults", tests, NULL, NULL);
}
