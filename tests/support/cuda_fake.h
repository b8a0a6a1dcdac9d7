/* CUDA for the CPU, in the call: what a stream is given is done when the call returns, so that nothing is ever under way.
 * The host's side of the cuda device (base/device) is built with it, to see what it does when a call fails.
 *
 * Unless all `hangs`. A wait for a counter that is not there is an error: it would never end. */
#ifndef CADRE_TESTS_SUPPORT_CUDA_FAKE_H
#define CADRE_TESTS_SUPPORT_CUDA_FAKE_H

#include <stdint.h>

typedef struct cuda_fake {
    int64_t calls;      /* of CUDA that can fail, so far */
    int64_t fails;      /* which of them does; 0: none */
    const char *failed; /* the function that has */
    const char *always; /* a function that fails whenever it is called; NULL: none */
    int hangs;          /* nothing that was given is done, and calls that would wait for it abort */
    /* what is alive */
    int64_t device, pinned, registered, opened, streams, events;
} cuda_fake_t;

/* One of a program, as CUDA is; the test's to set and to read. */
extern cuda_fake_t cuda_fake;

/* The end of a process: the memory that nobody gave back, and all else as at the beginning. */
void cuda_fake_end(void);

#endif
