#include "trainer/cli/cmd_bench_links.h"

#include "trainer/bench/bench_links.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"
#include "trainer/cli/run_ranks.h"

#include <string.h>

static const char PAGE[] =
    "Usage: cadre bench links --threads N [OPTION...]\n"
    "       mpirun -np N cadre bench links [OPTION...]\n\n"
    "Times exchanges of 64 KiB and more between ranks, beside what the transport's bare means do "
    "in\n"
    "the same run: copies, MPI_Sendrecv, ncclSend and ncclRecv. `one`: every other rank sends to "
    "the\n"
    "next one; `both`: every rank sends to the next one and receives from the one before.\n\n"
    "Options:\n"
    "  --transport LIST   between processes: mpi, copy_engine, nccl, joined by commas\n"
    "                     (mpi,copy_engine on the cpu, copy_engine,nccl on cuda)\n"
    "  --device NAME      cpu, cuda (cpu)\n"
    "  --threads N        N ranks as threads of this process\n"
    "  --max-mib N        largest exchange (64 on the cpu, 1024 on cuda)\n"
    "  --rounds N         (5)\n"
    "  --round-ms N       about how long a round lasts (100)\n"
    "  --want-share N     per cent of bare that exchanges of 1 MiB and more must reach (0)\n"
    "  --want-gb N        GB/s that exchanges of 64 MiB and more must reach (0)\n"
    "  --tell-every N     only every Nth of the told transfers says that it and those before are "
    "done (1)\n"
    "  --json             one object a line\n\n"
    "Exchanges follow each other, several on their way, as do bare transfers; `alone us` is one "
    "that "
    "begins\n"
    "when the last one is complete, `told us` a bare transfer that says when it is done.\n"
    "Exit code 0: nothing falls short of what is wanted; 1: something does, and its row says of "
    "what.";

enum {
    TRANSPORT,
    DEVICE,
    THREADS,
    MAX_MIB,
    ROUNDS,
    ROUND_MS,
    WANT_SHARE,
    WANT_GB,
    TELL_EVERY,
    JSON,
    NUM_SPECS
};
static const tr_option_spec_t SPECS[NUM_SPECS] = {
    [TRANSPORT] = {"--transport", true},   [DEVICE] = {"--device", true},
    [THREADS] = {"--threads", true},       [MAX_MIB] = {"--max-mib", true},
    [ROUNDS] = {"--rounds", true},         [ROUND_MS] = {"--round-ms", true},
    [WANT_SHARE] = {"--want-share", true}, [WANT_GB] = {"--want-gb", true},
    [TELL_EVERY] = {"--tell-every", true}, [JSON] = {"--json", false},
};

typedef struct links_call {
    tr_bench_links_t bench;
    base_device_kind_t device;
    comm_transport_t transports[COMM_TRANSPORT_COUNT];
    int num_transports;
} links_call_t;

static base_status_t take_transports(base_ctx_t *ctx, const char *list, links_call_t *call)
{
    if (list == NULL)
        list = call->device == BASE_DEVICE_CUDA ? "copy_engine,nccl" : "mpi,copy_engine";
    for (const char *at = list;;) {
        const size_t length = strcspn(at, ",");
        int t = 0;

        while (t < COMM_TRANSPORT_AUTO &&
               (strlen(comm_transport_name((comm_transport_t)t)) != length ||
                strncmp(comm_transport_name((comm_transport_t)t), at, length) != 0))
            t++;
        if (t == COMM_TRANSPORT_AUTO || call->num_transports == COMM_TRANSPORT_COUNT)
            return BASE_FAIL(
                ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                "--transport: found \"%s\", wanted mpi, copy_engine or nccl, joined by "
                "commas",
                list);
        call->transports[call->num_transports++] = (comm_transport_t)t;
        if (at[length] == '\0') return BASE_OK;
        at += length + 1;
    }
}

static base_status_t take(base_ctx_t *ctx, const tr_options_t *o, links_call_t *call)
{
    tr_bench_links_t *b = &call->bench;
    const char *device = o->values[DEVICE];
    int64_t mib, rounds = 5, share = 0, gb = 0, every = 1;
    const struct {
        int64_t *to, min, max;
    } numbers[] = {
        [MAX_MIB] = {&mib, 1, TR_LINKS_MAX_BYTES >> 20},
        [ROUNDS] = {&rounds, 1, TR_LINKS_ROUNDS},
        [ROUND_MS] = {&b->round_ms, 1, 10000},
        [WANT_SHARE] = {&share, 0, 200},
        [WANT_GB] = {&gb, 0, 100000},
        [TELL_EVERY] = {&every, 1, 16},
    };

    if (device != NULL && strcmp(device, "cpu") != 0 && strcmp(device, "cuda") != 0)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--device: found \"%s\", wanted cpu or cuda", device);
    call->device =
        device != NULL && strcmp(device, "cuda") == 0 ? BASE_DEVICE_CUDA : BASE_DEVICE_CPU;
    mib = call->device == BASE_DEVICE_CUDA ? 1024 : 64;
    for (int i = MAX_MIB; i <= TELL_EVERY; i++)
        if (o->values[i] != NULL)
            BASE_TRY(tr_options_number(ctx, SPECS[i].name, o->values[i], numbers[i].min,
                                       numbers[i].max, numbers[i].to));
    b->max_bytes = mib << 20;
    b->rounds = (int32_t)rounds;
    b->tell_every = (int32_t)every;
    b->want_share = (double)share / 100;
    b->want_gb = (double)gb;
    b->json = o->values[JSON] != NULL;
    return take_transports(ctx, o->values[TRANSPORT], call);
}

/* `line`: what the command line was found to be. */
static base_status_t run(base_ctx_t *ctx, base_status_t line, const char *threads,
                         links_call_t *call)
{
    tr_run_ranks_t ranks;
    base_status_t st = BASE_OK;

    BASE_TRY(tr_run_ranks_open(ctx, line, threads, &ranks));
    if (line < 0) call->num_transports = 1; /* tr_run_ranks refuses it */
    ranks.device = call->device;
    if (ranks.threads > 0) call->num_transports = 1;
    for (int i = 0; i < call->num_transports && st >= 0; i++) {
        ranks.transport = call->transports[i];
        st = tr_run_ranks(&ranks, tr_bench_links_rank, &call->bench);
    }
    tr_run_ranks_close(&ranks);
    return st;
}

int tr_cmd_bench_links(const tr_cli_t *cli, int argc, char **argv)
{
    links_call_t call = {.bench = {.round_ms = 100, .out = stdout, .met = true}};
    tr_options_t o;
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st >= 0 && o.help) {
        if (tr_run_ranks_speaks()) (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take(cli->ctx, &o, &call);
    st = run(cli->ctx, st, o.values[THREADS], &call);
    if (st < 0) return tr_cli_exit_code(st);
    return call.bench.met ? TR_EXIT_DONE : TR_EXIT_NO;
}
