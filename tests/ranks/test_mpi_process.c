/* The MPI of a process: started once, ranks and hosts, options that are refused, who says why a run has
 * failed. Under mpirun. */
#include "tests/support/ctx_fixture.h"

#include "base/clock.h"
#include "base/log.h"
#include "comm/mpi.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct seen {
    int rank, size, host;
    int has_hosts;
    const char *transport;
} seen_t;

static base_status_t look(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    seen_t *seen = user;

    (void)ctx;
    (void)dev;
    seen->rank = comm_group_rank(group);
    seen->size = comm_group_size(group);
    seen->transport = comm_group_transport(group);
    seen->has_hosts = comm_group_hosts(group) != NULL;
    for (int r = 0; r < seen->size && seen->has_hosts; r++)
        seen->host += comm_group_hosts(group)[r];
    return comm_barrier(group);
}

typedef struct said {
    size_t bytes;
    char text[2048];
} said_t;

static void keep_text(void *user, base_log_level_t level, const char *text)
{
    said_t *said = user;

    (void)level;
    (void)snprintf(said->text + said->bytes, sizeof said->text - said->bytes, "%s", text);
    said->bytes = strlen(said->text);
}

/* With the size of its files limited a process has no memory for its desk: copy engines do not work on that
 * rank, and what `auto` chose is replaced on all; who asked for them is told. */
static void test_fall_back(comm_mpi_t *mpi, int rank)
{
    base_log_t *log = NULL;
    said_t said = {0};
    const comm_mpi_options_t wanted = {.transport = COMM_TRANSPORT_COPY_ENGINE};
    const struct rlimit small = {.rlim_cur = 1 << 20, .rlim_max = RLIM_INFINITY};
    struct rlimit before;
    base_error_t error;
    seen_t seen = {0};

    assert_int_equal(base_log_create(BASE_LOG_INFO, &log), BASE_OK);
    base_log_set_terminal(log, keep_text, &said, 0);
    const comm_mpi_options_t automatic = {.transport = COMM_TRANSPORT_AUTO, .log = log};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    if (rank == 1) {
        assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    }
    assert_int_equal(comm_mpi_run(mpi, &automatic, look, &seen, &error), BASE_OK);
    assert_string_equal(seen.transport, "mpi");
    assert_non_null(strstr(said.text, "transport mpi instead of copy_engine: rank 1: desk: no "));
    assert_ptr_equal(strchr(said.text, '\n'), said.text + said.bytes - 1); /* one line */
    assert_int_equal(comm_mpi_run(mpi, &wanted, look, &seen, &error), BASE_ERR_NOMEM);
    assert_string_equal(base_message_id(error.message), "MEM-01");
    assert_non_null(strstr(error.text, "rank 1: desk: no "));
    if (rank == 1) assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(comm_mpi_run(mpi, &automatic, look, &seen, &error), BASE_OK);
    assert_string_equal(seen.transport, "copy_engine");
    base_log_destroy(log);
}

/* More than fits into the message that announces it; and the staging is used again. */
static base_status_t gather_much(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    static const int sizes[] = {100000, 232, 233, 5000};
    unsigned char mine[100000], all[2 * 100000];
    int *wrong = user;

    (void)ctx;
    (void)dev;
    for (int s = 0; s < 4; s++) {
        memset(mine, s * 16 + comm_group_rank(group), sizeof mine);
        BASE_TRY(comm_allgather(group, mine, sizes[s], all));
        for (int i = 0; i < 2 * sizes[s]; i++)
            *wrong += all[i] != s * 16 + i / sizes[s];
    }
    return BASE_OK;
}

/* Rank 0 does not come until rank 1 has given it up and ended: DONE is there. */
#define DONE "mpi_process.done"
static base_status_t wait_for_rank_0(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                     void *user)
{
    (void)dev, (void)user;
    BASE_TRY(comm_barrier(group));
    base_ctx_set_deadline_ms(ctx, 1000); /* of what follows, not of coming here */
    if (comm_group_rank(group) == 1) return comm_barrier(group);
    for (int i = 0; i < 6000 && access(DONE, F_OK) != 0; i++)
        (void)usleep(10000);
    return comm_barrier(group);
}

static void a_rank_speaks_for_another(comm_mpi_t *mpi)
{
    const comm_mpi_options_t options = {.device = BASE_DEVICE_CPU};
    base_error_t error;

    assert_true(comm_mpi_run(mpi, &options, wait_for_rank_0, NULL, &error) < 0);
    if (comm_mpi_rank(mpi) == 1) {
        assert_int_equal(error.status, BASE_ERR_TIMEOUT);
        FILE *file = fopen(DONE, "w");
        assert_non_null(file);
        (void)fclose(file);
    }
    assert_int_equal(comm_mpi_speaker(mpi), comm_mpi_rank(mpi));
}

/* ==== a rank without its device ==== */

static int has_no_device; /* of this process */

base_status_t __real_base_device_open(base_ctx_t *ctx, base_device_kind_t kind, int index,
                                      base_device_t **dev_p);
base_status_t __wrap_base_device_open(base_ctx_t *ctx, base_device_kind_t kind, int index,
                                      base_device_t **dev_p);
base_status_t __wrap_base_device_open(base_ctx_t *ctx, base_device_kind_t kind, int index,
                                      base_device_t **dev_p)
{
    if (has_no_device && kind == BASE_DEVICE_STRICT)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01, "strict:1: no such GPU");
    return __real_base_device_open(ctx, kind, index, dev_p);
}

/* As on a host that has fewer GPUs than ranks: the others do not wait for it, and are told why. */
static void expect_no_device(comm_mpi_t *mpi, int rank, comm_transport_t transport)
{
    const comm_mpi_options_t options = {
        .device = BASE_DEVICE_STRICT, .transport = transport, .deadline_ms = 20000};
    seen_t seen = {0};
    base_error_t error;

    has_no_device = rank == 1;
    assert_int_equal(comm_mpi_run(mpi, &options, look, &seen, &error), BASE_ERR_UNSUPPORTED);
    has_no_device = 0;
    assert_int_equal(error.rank, 1);
    assert_string_equal(base_message_id(error.message), "DEV-01");
    assert_string_equal(error.text, "strict:1: no such GPU");
}

/* ==== memory of another rank that cannot be read ==== */

static enum { READS, READS_ZEROS, REFUSES } check_does; /* copies and downloads of this process */

base_status_t __real_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src)
{
    return check_does == READS_ZEROS ? base_fill(s, dst, 0) : __real_base_copy(s, dst, src);
}

base_status_t __real_base_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes);
base_status_t __wrap_base_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes);
base_status_t __wrap_base_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes)
{
    if (check_does == REFUSES)
        return BASE_FAIL(base_device_ctx(base_stream_device(s)), BASE_ERR_DEVICE, BASE_MSG_INT_01,
                         "check: the copy is refused");
    return __real_base_download(s, dst, src, bytes);
}

/* As between GPUs that see each other's memory and read something else, or whose copy fails (it is still under way then): `auto`
 * takes another transport, on all ranks, and says why; who asked for copy engines is told. */
static void expect_unreadable(comm_mpi_t *mpi, int rank, int refuses, uint64_t seed)
{
    const char *why = refuses ? "rank 1: check: the copy is refused"
                              : "rank 1: memory of rank 0: "; /* how many of which bytes */
    const base_status_t wanted = refuses ? BASE_ERR_DEVICE : BASE_ERR_COMM;
    base_log_t *log = NULL;
    said_t said = {0};
    seen_t seen = {0};
    base_error_t error;

    assert_int_equal(base_log_create(BASE_LOG_INFO, &log), BASE_OK);
    base_log_set_terminal(log, keep_text, &said, 0);
    const comm_mpi_options_t automatic = {
        .device = BASE_DEVICE_STRICT, .transport = COMM_TRANSPORT_AUTO, .seed = seed, .log = log};
    const comm_mpi_options_t asked = {.device = BASE_DEVICE_STRICT,
                                      .transport = COMM_TRANSPORT_COPY_ENGINE};
    if (rank == 1) check_does = refuses ? REFUSES : READS_ZEROS;
    assert_int_equal(comm_mpi_run(mpi, &automatic, look, &seen, &error), BASE_OK);
    assert_string_equal(seen.transport, "mpi");
    assert_non_null(strstr(said.text, "transport mpi instead of copy_engine: "));
    assert_non_null(strstr(said.text, why));
    assert_int_equal(comm_mpi_run(mpi, &asked, look, &seen, &error), wanted);
    assert_string_equal(base_message_id(error.message), refuses ? "INT-01" : "COMM-05");
    assert_ptr_equal(strstr(error.text, why), error.text);
    check_does = READS;
    base_log_destroy(log);
}

#define REPORT "mpi_process.report"
#define AT_IT_NS                                                                                   \
    INT64_C(3000000000) /* longer than ranks wait for others that have no news to tell */

static base_status_t fails_on_1(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                void *user)
{
    (void)dev;
    (void)user;
    BASE_TRY(comm_barrier(group));
    if (comm_group_rank(group) == 1)
        return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_INT_01, "the disk is on fire");
    base_clock_sleep_ns(AT_IT_NS); /* in the middle of something */
    return comm_barrier(group);
}

static void note_report(void *user, const base_error_t *error)
{
    FILE *file = fopen(REPORT, "w");

    ++*(int *)user;
    if (file == NULL) return;
    (void)fputs(error->text, file);
    (void)fclose(file);
}

/* Rank 0 says what rank 1 has found, and has said it when rank 1 comes back. */
static void expect_report(comm_mpi_t *mpi)
{
    int reports = 0;
    const comm_mpi_options_t options = {
        .device = BASE_DEVICE_CPU, .report = note_report, .report_user = &reports};
    char text[64] = "";
    base_error_t error;

    (void)unlink(REPORT);
    assert_int_equal(comm_mpi_run(mpi, &options, fails_on_1, NULL, &error), BASE_ERR_IO);
    FILE *file = fopen(REPORT, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    (void)fclose(file);
    assert_string_equal(text, "the disk is on fire");
    assert_int_equal(reports, comm_mpi_rank(mpi) == 0);
}

static void test_process(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    comm_mpi_t *mpi = NULL, *second = NULL;
    seen_t seen = {0};
    base_error_t error;
    int rank = -1, size = -1, wrong = 0;

    (void)state;
    assert_true(comm_mpi_launched(&rank, &size));
    assert_int_equal(size, 2);
    assert_int_equal(comm_mpi_create(ctx, &mpi), BASE_OK);
    assert_int_equal(comm_mpi_rank(mpi), rank);
    assert_int_equal(comm_mpi_size(mpi), 2);
    /* A second one in the same process: COMM-04. */
    assert_int_equal(comm_mpi_create(ctx, &second), BASE_ERR_COMM);
    assert_true(base_ctx_error(ctx, &error));
    assert_string_equal(base_message_id(error.message), "COMM-04");
    assert_non_null(strstr(error.text, "initialized"));
    base_ctx_clear_error(ctx);

    const comm_mpi_options_t options = {.device = BASE_DEVICE_CPU, .deadline_ms = 60000};
    assert_int_equal(comm_mpi_run(mpi, &options, look, &seen, &error), BASE_OK);
    assert_int_equal(seen.rank, rank);
    assert_int_equal(seen.size, 2);
    assert_true(seen.has_hosts);
    assert_int_equal(seen.host, 0); /* one machine */
    const int32_t hosts[] = {0, 1}; /* taken for two */
    const comm_mpi_options_t two = {.device = BASE_DEVICE_CPU, .hosts = hosts};
    assert_int_equal(comm_mpi_run(mpi, &two, look, &seen, &error), BASE_OK);
    assert_int_equal(seen.host, 1);
    assert_int_equal(comm_mpi_run(mpi, &options, gather_much, &wrong, &error), BASE_OK);
    assert_int_equal(wrong, 0);

    const comm_mpi_options_t bad[] = {{.num_ranks = 3},
                                      {.num_ranks = -1},
                                      {.transport = COMM_TRANSPORT_COUNT},
                                      {.delay_ns = -1},
                                      {.chunk_bytes = INT64_C(1) << 31}};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(comm_mpi_run(mpi, &bad[i], look, &seen, &error), BASE_ERR_ARG);
        assert_non_null(strstr(error.text, "MPI transport"));
        base_ctx_clear_error(ctx);
    }
    /* COMM-06: known before any device is opened. */
    const comm_mpi_options_t cannot[] = {
        {.device = BASE_DEVICE_CUDA},
        {.device = BASE_DEVICE_CUDA, .transport = COMM_TRANSPORT_COPY_ENGINE, .hosts = hosts},
        {.transport = COMM_TRANSPORT_NCCL}};
    const char *const why[] = {"mpi moves memory of the CPU",
                               "copy_engine serves the GPUs of one host",
                               "nccl moves memory of GPUs"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(comm_mpi_run(mpi, &cannot[i], look, &seen, &error), BASE_ERR_UNSUPPORTED);
        assert_string_equal(base_message_id(error.message), "COMM-06");
        assert_non_null(strstr(error.text, why[i]));
        base_ctx_clear_error(ctx);
    }

    /* Ranks that count as hosts of their own; what `auto` means on one. */
    seen = (seen_t){0};
    const comm_mpi_options_t apart = {.transport = COMM_TRANSPORT_COPY_ENGINE, .hosts = hosts};
    assert_int_equal(comm_mpi_run(mpi, &apart, look, &seen, &error), BASE_OK);
    assert_int_equal(seen.host, 1);
    assert_string_equal(seen.transport, "copy_engine");
    const comm_mpi_options_t alike = {.transport = COMM_TRANSPORT_AUTO};
    assert_int_equal(comm_mpi_run(mpi, &alike, look, &seen, &error), BASE_OK);
    assert_string_equal(seen.transport, "copy_engine");
    test_fall_back(mpi, rank);
    expect_no_device(mpi, rank, COMM_TRANSPORT_MPI);
    expect_no_device(mpi, rank, COMM_TRANSPORT_AUTO);
    expect_unreadable(mpi, rank, 0, 1);
    for (uint64_t seed = 1; seed <= 16; seed++) /* copies begin sooner or later */
        expect_unreadable(mpi, rank, 1, seed);
    expect_report(mpi);
    assert_int_equal(comm_mpi_speaker(mpi), 0);
    if (rank == 0) (void)unlink(DONE);
    assert_int_equal(comm_mpi_run(mpi, &options, look, &seen, &error), BASE_OK); /* it is gone */
    a_rank_speaks_for_another(mpi);
    comm_mpi_destroy(mpi);
    comm_mpi_destroy(NULL);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_process)};

    return cmocka_run_group_tests_name("mpi_process", tests, NULL, NULL);
}
