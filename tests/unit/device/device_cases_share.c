/* Buffers and counters that another process uses. The other process is this program once more
 * (device_peer_main), since a process that has started a GPU cannot be forked. */
#include "tests/unit/device/device_cases.h"

#include "tests/unit/device/device_peer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROWS   5
#define ROW    96
#define PITCH  160
#define BYTES  (ROWS * PITCH)
#define ROUNDS 50

enum { GO, DONE, RELEASED, NUM_COUNTERS };

typedef struct offer {
    base_export_t buffer, bank;
} offer_t;

static unsigned char pattern(int round, int i)
{
    return (unsigned char)(round * 37 + i * 11 + 3);
}

/* ==== the other process ==== */

static base_status_t peer_round(base_stream_t *s, base_buffer_t *mine, base_buffer_t *theirs,
                                base_counter_bank_t *bank, int round, int *wrong)
{
    unsigned char got[ROWS * ROW];
    const base_range_t from = range_of(theirs, PITCH - ROW, ROW, ROWS, PITCH);
    const base_range_t packed = range_of(mine, 0, ROW, ROWS, ROW);
    const base_range_t back = range_of(theirs, 0, PITCH - ROW, ROWS, PITCH);

    BASE_TRY(base_stream_wait_counter(s, base_counter_bank_at(bank, GO), (uint64_t)round));
    BASE_TRY(base_copy(s, &packed, &from));
    BASE_TRY(base_fill(s, &back, (uint8_t)round));
    BASE_TRY(base_download(s, got, base_mem(mine, 0), sizeof got));
    BASE_TRY(base_stream_sync(s)); /* before the signal: the next round writes what is read here */
    for (int i = 0; i < ROWS * ROW; i++)
        *wrong += got[i] != pattern(round, i);
    return base_stream_signal(s, base_counter_bank_at(bank, DONE), (uint64_t)round);
}

static base_status_t peer_run(base_device_t *dev, const offer_t *offer, int *wrong)
{
    base_buffer_t *theirs = NULL, *mine = NULL;
    base_counter_bank_t *bank = NULL;
    base_stream_t *s = NULL;
    base_status_t st;

    BASE_TRY(base_buffer_import(dev, &offer->buffer, "the parent's", &theirs));
    BASE_TRY_GOTO(base_counter_bank_import(dev, &offer->bank, "the parent's", &bank), st, out);
    BASE_TRY_GOTO(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, BYTES, "mine", &mine), st, out);
    BASE_TRY_GOTO(base_stream_create(dev, BASE_STREAM_ASYNC, "peer", &s), st, out);
    *wrong += base_buffer_bytes(theirs) != BYTES || base_counter_bank_count(bank) != NUM_COUNTERS;
    for (int round = 1; round <= ROUNDS; round++)
        BASE_TRY_GOTO(peer_round(s, mine, theirs, bank, round, wrong), st, out);
    /* Ended by a release: by no value that anybody signals. */
    BASE_TRY_GOTO(base_stream_wait_counter(s, base_counter_bank_at(bank, RELEASED), 7), st, out);
    st = base_stream_sync(s);
    *wrong += base_counter_value(base_counter_bank_at(bank, RELEASED)) != UINT64_MAX;
    /* A value that comes later does not take the release back. */
    base_counter_raise(base_counter_bank_at(bank, RELEASED), 9);
    *wrong += base_counter_value(base_counter_bank_at(bank, RELEASED)) != UINT64_MAX;
out:
    base_stream_destroy(s);
    base_buffer_free(mine);
    base_counter_bank_destroy(bank);
    base_buffer_free(theirs);
    return st;
}

int device_peer_main(base_device_kind_t kind)
{
    base_ctx_t *ctx = NULL;
    base_device_t *dev = NULL;
    base_error_t error;
    offer_t offer;
    int wrong = 0;

    if (fread(&offer, sizeof offer, 1, stdin) != 1 || base_ctx_create(1, 2, NULL, &ctx) < 0)
        return EXIT_FAILURE;
    base_ctx_set_deadline_ms(ctx, 20000);
    base_status_t st = base_device_open(ctx, kind, 0, &dev);
    if (st >= 0) st = peer_run(dev, &offer, &wrong);
    base_device_close(dev);
    if (st < 0 && base_ctx_error(ctx, &error)) (void)fprintf(stderr, "peer: %s\n", error.text);
    if (wrong > 0) (void)fprintf(stderr, "peer: %d things are wrong\n", wrong);
    if (base_memory_live_total(base_ctx_memory(ctx)) != 0) wrong++;
    base_ctx_destroy(ctx);
    return st < 0 || wrong > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ==== this one ==== */

static pid_t peer_start(device_env_t *env, const offer_t *offer)
{
    char kind[16];
    int to[2];

    (void)snprintf(kind, sizeof kind, "%d", (int)env->kind);
    assert_int_equal(pipe(to), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(to[0], STDIN_FILENO);
        (void)close(to[0]);
        (void)close(to[1]);
        (void)execl("/proc/self/exe", "device_peer", DEVICE_PEER_WORD, kind, (char *)NULL);
        _exit(EXIT_FAILURE);
    }
    (void)close(to[0]);
    assert_int_equal(write(to[1], offer, sizeof *offer), (ssize_t)sizeof *offer);
    (void)close(to[1]);
    return pid;
}

static int peer_join(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void parent_round(base_stream_t *s, base_buffer_t *buf, base_counter_bank_t *bank, int round)
{
    unsigned char bytes[BYTES];

    memset(bytes, 0, sizeof bytes);
    for (int i = 0; i < ROWS * ROW; i++)
        bytes[i / ROW * PITCH + PITCH - ROW + i % ROW] = pattern(round, i);
    OK(base_upload(s, base_mem(buf, 0), bytes, sizeof bytes));
    OK(base_stream_signal(s, base_counter_bank_at(bank, GO), (uint64_t)round));
    OK(base_stream_wait_counter(s, base_counter_bank_at(bank, DONE), (uint64_t)round));
    OK(base_download(s, bytes, base_mem(buf, 0), sizeof bytes));
    OK(base_stream_sync(s));
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < PITCH - ROW; i++)
            assert_int_equal(bytes[r * PITCH + i], round);
}

static void another_process_uses_them(device_env_t *env)
{
    base_counter_bank_t *bank = NULL;
    offer_t offer;

    base_device_share(env->dev);
    base_buffer_t *buf = env_buffer(env, BYTES);
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    OK(base_counter_bank_create(env->dev, NUM_COUNTERS, "bank", &bank));
    for (int i = 0; i < NUM_COUNTERS; i++)
        assert_int_equal(base_counter_value(base_counter_bank_at(bank, i)), 0);
    OK(base_buffer_export(buf, &offer.buffer));
    base_counter_bank_export(bank, &offer.bank);
    const pid_t pid = peer_start(env, &offer);
    for (int round = 1; round <= ROUNDS; round++)
        parent_round(s, buf, bank, round);
    base_counter_release(base_counter_bank_at(bank, RELEASED));
    assert_int_equal(peer_join(pid), EXIT_SUCCESS);
    base_stream_destroy(s);
    base_counter_bank_destroy(bank);
    base_buffer_free(buf);
}

/* A process of its own is not needed for what is refused. */
static void exports_are_checked(device_env_t *env)
{
    base_export_t good, bad;
    base_buffer_t *other = NULL, *pinned = NULL;
    base_counter_bank_t *bank = NULL;

    OK(base_buffer_alloc(env->dev, BASE_MEMORY_PINNED, BYTES, "pinned", &pinned));
    EXPECT(base_buffer_export(pinned, &good), BASE_ERR_UNSUPPORTED);
    env_expect_error(env, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01, "pinned");
    base_buffer_free(pinned);
    base_buffer_t *plain = env_buffer(env, BYTES);
    if (env->kind != BASE_DEVICE_CUDA) {
        EXPECT(base_buffer_export(plain, &good), BASE_ERR_STATE);
        env_expect_error(env, BASE_ERR_STATE, BASE_MSG_INT_01, "not shared");
    }
    base_buffer_free(plain);

    EXPECT(base_counter_bank_create(env->dev, 0, "bank", &bank), BASE_ERR_ARG);
    base_ctx_clear_error(env->ctx);
    OK(base_counter_bank_create(env->dev, 2, "bank", &bank));
    base_counter_bank_export(bank, &good);
    base_counter_bank_destroy(bank);
    EXPECT(base_buffer_import(env->dev, &good, "a bank", &other), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "a bank");
    memset(&bad, 0x5A, sizeof bad);
    EXPECT(base_counter_bank_import(env->dev, &bad, "garbage", &bank), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "garbage");
    /* COMM-05: its memory is gone. */
    EXPECT(base_counter_bank_import(env->dev, &good, "a bank that is gone", &bank), BASE_ERR_COMM);
    env_expect_error(env, BASE_ERR_COMM, BASE_MSG_COMM_05, "a bank that is gone");
}

/* The strict device closes what was imported like its own, and what is shared like what is not. */
static void shared_memory_is_plain_memory(device_env_t *env)
{
    base_export_t e, none;
    base_buffer_t *view = NULL, *late = NULL;
    unsigned char got[4] = {0};

    base_device_share(env->dev);
    base_buffer_t *buf = env_buffer(env, BYTES);
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);
    OK(base_buffer_export(buf, &e));
    OK(base_buffer_import(env->dev, &e, "a second view", &view));
    EXPECT(base_buffer_export(view, &none), BASE_ERR_STATE);
    env_expect_error(env, BASE_ERR_STATE, BASE_MSG_INT_01, "imported");
    const base_range_t all = range_of(buf, 0, BYTES, 1, BYTES);
    OK(base_fill(s, &all, 0x77));
    OK(base_download(s, got, base_mem(view, BYTES - 4), 4));
    OK(base_stream_sync(s));
    for (int i = 0; i < 4; i++)
        assert_int_equal(got[i], 0x77);
    base_buffer_free(buf); /* the view's memory stays, and can be opened still */
    OK(base_buffer_import(env->dev, &e, "a late view", &late));
    OK(base_download(s, got, base_mem(view, 0), 2));
    OK(base_download(s, got + 2, base_mem(late, BYTES - 2), 2));
    OK(base_stream_sync(s));
    for (int i = 0; i < 4; i++)
        assert_int_equal(got[i], 0x77);
    base_stream_destroy(s);
    base_buffer_free(late);
    base_buffer_free(view);
}

const device_case_t device_cases_share[] = {
    {"another process uses buffers and counters", ON_ALL, another_process_uses_them},
    {"exports are checked", ON_ALL, exports_are_checked},
    {"shared memory is plain memory", ON_HOST, shared_memory_is_plain_memory},
    {NULL, 0, NULL},
};
