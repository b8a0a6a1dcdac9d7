#include "trainer/cli/run_ranks.h"

#include "base/memory.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tr_run_ranks_are_processes(void)
{
    int rank = 0, size = 1;

    return comm_mpi_launched(&rank, &size) && size > 1;
}

bool tr_run_ranks_speaks(void)
{
    int rank = 0, size = 1;

    return !comm_mpi_launched(&rank, &size) || rank == 0;
}

/* Keeps the context's error as this process's fault where others wait for it. */
static base_status_t keep_fault(tr_run_ranks_t *ranks, base_status_t st)
{
    if (st >= 0 || !tr_run_ranks_are_processes()) return st;
    if (ranks->fault.status >= 0 && !base_ctx_error(ranks->ctx, &ranks->fault))
        ranks->fault.status = st; /* the first one stays */
    base_ctx_clear_error(ranks->ctx);
    return BASE_OK;
}

static base_status_t take_threads(tr_run_ranks_t *ranks, const char *threads)
{
    if (threads == NULL) return BASE_OK;
    BASE_TRY(tr_options_number(ranks->ctx, "--threads", threads, 1, COMM_THREADS_MAX_RANKS,
                               &ranks->threads));
    if (!tr_run_ranks_are_processes()) return BASE_OK;
    return BASE_FAIL(ranks->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                     "--threads %s: mpirun has started %d ranks already; one or the other", threads,
                     ranks->size);
}

base_status_t tr_run_ranks_open(base_ctx_t *ctx, base_status_t line, const char *threads,
                                tr_run_ranks_t *ranks)
{
    *ranks =
        (tr_run_ranks_t){.ctx = ctx, .size = 1, .threads = 1, .transport = COMM_TRANSPORT_AUTO};
    const int launched = comm_mpi_launched(&ranks->rank, &ranks->size);

    BASE_TRY(keep_fault(ranks, line < 0 ? line : take_threads(ranks, threads)));
    if (base_log_create(BASE_LOG_INFO, &ranks->log) < 0)
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "no memory for the log");
    if (ranks->rank == 0)
        base_log_set_terminal(ranks->log, base_log_to_stderr, NULL, base_log_wants_colour(2));
    if (!launched || (threads != NULL && !tr_run_ranks_are_processes())) return BASE_OK;
    ranks->threads = 0;
    base_status_t st =
        tr_rank_state_open(ctx, ranks->rank, ranks->log, ranks->rank == 0 ? stderr : NULL,
                           TR_EXIT_RANK, &ranks->state);
    if (st >= 0) st = comm_mpi_create(ctx, &ranks->mpi);
    if (st < 0) tr_run_ranks_close(ranks);
    return st;
}

static base_status_t bad_hosts(const tr_run_ranks_t *ranks, const char *hosts, int num_ranks)
{
    return BASE_FAIL(
        ranks->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
        "--hosts: found \"%s\", wanted the ranks of each host, such as %d,1 for %d ranks", hosts,
        num_ranks > 1 ? num_ranks - 1 : 1, num_ranks > 1 ? num_ranks : 2);
}

base_status_t tr_run_ranks_set_hosts(tr_run_ranks_t *ranks, const char *hosts)
{
    const int num_ranks = ranks->threads > 0 ? (int)ranks->threads : ranks->size;
    const char *at = hosts;
    int rank = 0;

    ranks->hosts = base_calloc(ranks->ctx, num_ranks, sizeof *ranks->hosts, "--hosts");
    if (ranks->hosts == NULL) return BASE_ERR_NOMEM;
    for (int32_t host = 0;; host++) {
        char *end = NULL;
        const long count = strtol(at, &end, 10);

        if (end == at || count < 1 || count > num_ranks - rank) break;
        for (long i = 0; i < count; i++)
            ranks->hosts[rank++] = host;
        if (*end == '\0' && rank == num_ranks) return BASE_OK;
        if (*end != ',') break;
        at = end + 1;
    }
    return keep_fault(ranks, bad_hosts(ranks, hosts, num_ranks));
}

void tr_run_ranks_close(tr_run_ranks_t *ranks)
{
    (void)fflush(stdout);
    comm_mpi_destroy(ranks->mpi);
    tr_rank_state_close(ranks->state);
    base_log_destroy(ranks->log);
    base_free(ranks->ctx, ranks->hosts);
    ranks->hosts = NULL;
    ranks->mpi = NULL;
    ranks->state = NULL;
    ranks->log = NULL;
}

/* A run's function on a process whose command line has a fault. */
static base_status_t refuse(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    const tr_run_ranks_t *ranks = user;

    (void)group;
    (void)dev;
    return BASE_FAIL(ctx, ranks->fault.status, ranks->fault.message, "%s", ranks->fault.text);
}

/* Rank 0 says what another process has found: which one belongs to it. */
static void name_rank(base_error_t *error)
{
    char text[BASE_ERROR_TEXT_BYTES];

    if (error->rank <= 0 || strncmp(error->text, "rank ", 5) == 0) return;
    memcpy(text, error->text, sizeof text);
    (void)snprintf(error->text, sizeof error->text, "rank %d: %.*s", error->rank,
                   (int)sizeof error->text - 32, text);
}

/* Once. What this process has found itself is not said in another one's words: all find the same fault
 * of a command line, and any of them may have been the first. */
static void say(void *user, const base_error_t *error)
{
    tr_run_ranks_t *ranks = user;
    base_error_t named = ranks->fault.status < 0 ? ranks->fault : *error;

    if (ranks->said || (ranks->reported != NULL && *ranks->reported)) return;
    ranks->said = true;
    if (ranks->fault.status < 0) named.rank = ranks->rank; /* its context knows of no others */
    if (ranks->threads == 0) name_rank(&named);
    tr_cli_error_print(stderr, &named);
}

base_status_t tr_run_ranks(tr_run_ranks_t *ranks, comm_rank_fn fn, void *user)
{
    base_error_t error = {.status = BASE_OK};
    base_status_t st;

    if (ranks->threads == 0) {
        const bool refused = ranks->fault.status < 0;
        const comm_mpi_options_t options = {.device = ranks->device,
                                            /* nothing to be opened with the others */
                                            .transport =
                                                refused ? COMM_TRANSPORT_MPI : ranks->transport,
                                            .log = ranks->log,
                                            .hosts = ranks->hosts,
                                            .report = say,
                                            .report_user = ranks};

        st = comm_mpi_run(ranks->mpi, &options, refused ? refuse : fn, refused ? ranks : user,
                          &error);
    } else {
        const comm_threads_options_t options = {.num_ranks = (int)ranks->threads,
                                                .device = ranks->device,
                                                .log = ranks->log,
                                                .hosts = ranks->hosts};

        st = comm_threads_run(&options, fn, user, &error);
    }
    if (st >= 0 || ranks->said) return st;
    if (ranks->threads > 0 || comm_mpi_speaker(ranks->mpi) == ranks->rank)
        say(ranks, &error); /* what was found without the others */
    else
        base_log_error(ranks->log, &error);
    return st;
}

int tr_run_ranks_refuse(base_ctx_t *ctx, base_status_t line)
{
    tr_run_ranks_t ranks;

    base_status_t st = tr_run_ranks_open(ctx, line, NULL, &ranks);
    if (st < 0) return tr_cli_exit_code(st);
    st = tr_run_ranks(&ranks, refuse, &ranks);
    tr_run_ranks_close(&ranks);
    return tr_cli_exit_code(st);
}
