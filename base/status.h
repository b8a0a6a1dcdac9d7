/* Status codes: what a failed call cost, so that the caller knows what has to be rebuilt.
 *
 * Every function that can fail returns base_status_t. Values >= 0 are success (BASE_OK,
 * BASE_PENDING); negative values are grouped by the largest thing that is lost, in the manner of
 * UCX:
 *   call     only this call failed; the objects it was given are as before
 *   peer     one other rank cannot be reached or has stopped
 *   group    the ranks no longer agree; the job must stop or be rebuilt
 *   process  this process cannot go on
 * The text and the place are recorded once, by whoever detects the error (base/context.h,
 * BASE_FAIL); everyone above forwards the status with BASE_TRY and adds nothing. */
#ifndef CADRE_BASE_STATUS_H
#define CADRE_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, text) */
#define BASE_STATUS_MAP(X)                                                                         \
    X(OK, 0, "ok")                                                                                 \
    X(PENDING, 1, "not yet complete")                                                              \
    /* call */                                                                                     \
    X(ERR_ARG, -1, "invalid argument")                                                             \
    X(ERR_CONFIG, -2, "invalid configuration or command line")                                     \
    X(ERR_FORMAT, -3, "malformed data")                                                            \
    X(ERR_IO, -4, "input or output failed")                                                        \
    X(ERR_NOMEM, -5, "out of memory")                                                              \
    X(ERR_UNSUPPORTED, -6, "not supported")                                                        \
    X(ERR_STATE, -7, "called in the wrong state")                                                  \
    X(ERR_SPACE, -8, "no space left")                                                              \
    /* peer */                                                                                     \
    X(ERR_TIMEOUT, -20, "deadline passed")                                                         \
    X(ERR_PEER, -21, "a peer has stopped")                                                         \
    /* group */                                                                                    \
    X(ERR_MISMATCH, -40, "ranks disagree")                                                         \
    X(ERR_COMM, -41, "communication broken")                                                       \
    /* process */                                                                                  \
    X(ERR_DEVICE, -60, "device error")                                                             \
    X(ERR_INTERNAL, -61, "internal error")

typedef enum base_status {
#define X(name, value, text) BASE_##name = (value),
    BASE_STATUS_MAP(X)
#undef X
} base_status_t;

typedef enum base_scope {
    BASE_SCOPE_CALL,
    BASE_SCOPE_PEER,
    BASE_SCOPE_GROUP,
    BASE_SCOPE_PROCESS
} base_scope_t;

/* "BASE_ERR_ARG" and "invalid argument"; "unknown" for a value that is not in the list. Static
 * strings. */
const char *base_status_name(base_status_t st);
const char *base_status_text(base_status_t st);

/* What is lost. Only for negative values. */
base_scope_t base_status_scope(base_status_t st);

#if defined(__GNUC__)
#define BASE_MUST_CHECK         __attribute__((warn_unused_result))
#define BASE_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define BASE_MUST_CHECK
#define BASE_PRINTF(fmt, first)
#endif

/* Forward a failure. */
#define BASE_TRY(expr)                                                                             \
    do {                                                                                           \
        const base_status_t base_try_st_ = (expr);                                                 \
        if (base_try_st_ < 0) return base_try_st_;                                                 \
    } while (0)

/* Forward a failure through a cleanup label named for what it undoes. */
#define BASE_TRY_GOTO(expr, st, label)                                                             \
    do {                                                                                           \
        (st) = (expr);                                                                             \
        if ((st) < 0) goto label;                                                                  \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
