#include "trainer/bench/blas_sampler.h"

#include "base/memory.h"

#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PERIOD_NS 1000000

struct tr_blas_sampler {
    base_ctx_t *ctx;
    uintptr_t begin, end; /* the library's code */
    timer_t timer;
    struct sigaction before;
    _Atomic int64_t samples, inside;
};

#if defined(__x86_64__)
static uintptr_t place_of(const ucontext_t *u)
{
    return (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
}
#elif defined(__aarch64__)
static uintptr_t place_of(const ucontext_t *u)
{
    return (uintptr_t)u->uc_mcontext.pc;
}
#else
static uintptr_t place_of(const ucontext_t *u)
{
    (void)u;
    return 0;
}
#endif

/* The sampler comes with the signal, so that no global has to name it. */
static void on_tick(int signal, siginfo_t *info, void *context)
{
    tr_blas_sampler_t *s = info->si_value.sival_ptr;
    const uintptr_t place = place_of(context);

    (void)signal;
    atomic_fetch_add_explicit(&s->samples, 1, memory_order_relaxed);
    if (place >= s->begin && place < s->end)
        atomic_fetch_add_explicit(&s->inside, 1, memory_order_relaxed);
}

static int find_library(struct dl_phdr_info *info, size_t bytes, void *user)
{
    tr_blas_sampler_t *s = user;

    (void)bytes;
    if (strstr(info->dlpi_name, "openblas") == NULL && strstr(info->dlpi_name, "libblas") == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];

        if (part->p_type != PT_LOAD || (part->p_flags & PF_X) == 0) continue;
        s->begin = info->dlpi_addr + part->p_vaddr;
        s->end = s->begin + part->p_memsz;
    }
    return s->end > s->begin;
}

base_status_t tr_blas_sampler_create(base_ctx_t *ctx, tr_blas_sampler_t **sampler_p)
{
    struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
    ucontext_t here;

    tr_blas_sampler_t *s = base_calloc(ctx, 1, sizeof *s, "sampler");
    if (s == NULL) return BASE_ERR_NOMEM;
    s->ctx = ctx;
    event.sigev_value.sival_ptr = s;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (dl_iterate_phdr(find_library, s) == 0 || getcontext(&here) != 0 || place_of(&here) == 0 ||
        sigaction(SIGPROF, &action, &s->before) != 0) {
        base_free(ctx, s);
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "bench step: time inside OpenBLAS cannot be sampled here");
    }
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &s->timer) != 0) {
        (void)sigaction(SIGPROF, &s->before, NULL);
        base_free(ctx, s);
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "bench step: there is no timer on a thread's processor time here");
    }
    *sampler_p = s;
    return BASE_OK;
}

void tr_blas_sampler_destroy(tr_blas_sampler_t *sampler)
{
    if (sampler == NULL) return;
    (void)timer_delete(sampler->timer);
    (void)sigaction(SIGPROF, &sampler->before, NULL);
    base_free(sampler->ctx, sampler);
}

void tr_blas_sampler_run(tr_blas_sampler_t *sampler, int on)
{
    const long ns = on ? PERIOD_NS : 0;
    const struct itimerspec every = {.it_interval = {0, ns}, .it_value = {0, ns}};

    (void)timer_settime(sampler->timer, 0, &every, NULL);
}

double tr_blas_sampler_share(const tr_blas_sampler_t *sampler, int64_t *samples)
{
    *samples = atomic_load(&sampler->samples);
    return *samples > 0 ? (double)atomic_load(&sampler->inside) / (double)*samples : 0.0;
}
