#include "trainer/run/signals.h"

#include "base/memory.h"
#include "trainer/loop/control.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define POLL_NS 100000000

struct tr_signals {
    base_ctx_t *ctx;
    FILE *out;
    sigset_t set;
    pthread_t thread;
    int32_t asked, closing; /* atomic builtins */
};

/* In a thread that does not block the signal: it does from now on, when the handler returns, and the
 * process gets the signal again. */
static void pass_on(int number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    const int before = errno;

    (void)info;
    (void)sigaddset(&interrupted->uc_sigmask, number);
    (void)kill(getpid(), number);
    errno = before;
}

void tr_signals_divert(int number)
{
    struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_RESTART};

    (void)sigfillset(&action.sa_mask);
    (void)sigaction(number, &action, NULL);
}

/* As if nobody had ever waited for it. */
static void die_of(int number)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t set;

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(number, &action, NULL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, number);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    (void)raise(number);
}

static const char *name_of(int number)
{
    switch (number) {
    case SIGUSR1:
        return "SIGUSR1";
    case SIGHUP:
        return "SIGHUP";
    case SIGINT:
        return "Ctrl-C";
    default:
        return "SIGTERM";
    }
}

/* Somebody who sends these means it each time. */
static bool kills(int number)
{
    return number == SIGINT || number == SIGTERM;
}

static void *signal_main(void *arg)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};
    tr_signals_t *s = arg;

    while (__atomic_load_n(&s->closing, __ATOMIC_ACQUIRE) == 0) {
        const int number = sigtimedwait(&s->set, NULL, &poll);

        if (number < 0) continue;
        const int before = __atomic_exchange_n(&s->asked, 1, __ATOMIC_ACQ_REL);
        if (before != 0 && kills(number)) die_of(number);
        if (before != 0 || s->out == NULL) continue;
        /* What ranks agree on takes effect so much later (trainer/loop/control.h). */
        (void)fprintf(s->out, "\ncadre: %s: saving within %d microbatches%s\n", name_of(number),
                      TR_CONTROL_LOOK_AHEAD + 1, kills(number) ? "; again to kill" : "");
        (void)fflush(s->out);
    }
    return NULL;
}

static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void choose(bool terminate, sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGUSR1);
    if (!terminate) return;
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGTERM);
    if (!is_ignored(SIGHUP)) (void)sigaddset(set, SIGHUP);
}

base_status_t tr_signals_open(base_ctx_t *ctx, bool terminate, FILE *out, tr_signals_t **signals_p)
{
    tr_signals_t *s = base_calloc(ctx, 1, sizeof *s, "signals");

    if (s == NULL) return BASE_ERR_NOMEM;
    s->ctx = ctx;
    s->out = out;
    choose(terminate, &s->set);
    if (pthread_sigmask(SIG_BLOCK, &s->set, NULL) != 0 ||
        pthread_create(&s->thread, NULL, signal_main, s) != 0) {
        base_free(ctx, s);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "signals: no thread");
    }
    for (int number = 1; number < NSIG; number++)
        if (sigismember(&s->set, number) == 1) tr_signals_divert(number);
    (void)signal(SIGPIPE, SIG_IGN);
    base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
    *signals_p = s;
    return BASE_OK;
}

void tr_signals_close(tr_signals_t *signals)
{
    if (signals == NULL) return;
    __atomic_store_n(&signals->closing, 1, __ATOMIC_RELEASE);
    (void)pthread_join(signals->thread, NULL);
    base_memory_count_close(base_ctx_memory(signals->ctx), BASE_RESOURCE_THREAD);
    base_free(signals->ctx, signals);
}

bool tr_signals_asked(const tr_signals_t *signals)
{
    return signals != NULL && __atomic_load_n(&signals->asked, __ATOMIC_ACQUIRE) != 0;
}
