/* What this program is: the part of `cadre --version` that base can answer.
 *
 * The other folders answer for what they own in the same form: kernels/cpu/blas_version.h, comm/mpi_version.h,
 * comm/nccl_version.h, data/h5_version.h, base/device/cuda_version.h. Each call writes one line without a newline into
 * the caller's buffer, cut to `bytes`, and works at any time, also before MPI_Init. */
#ifndef CADRE_BASE_VERSION_H
#define CADRE_BASE_VERSION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0". Static string. */
const char *base_version_number(void);

/* 12 hex digits, with "-dirty" when files differ; "unknown" without git. Static string. */
const char *base_version_commit(void);

/* "cpu (RelWithDebInfo)", with the sanitizers if there are any. */
void base_version_preset(char *text, size_t bytes);

/* "GNU 12.2.0". Static string. */
const char *base_version_compiler(void);

/* Logical processors that this process may use: in a container or under a batch system fewer than the machine
 * has. At least 1. */
int base_version_processors(void);

/* Model name and number of logical processors this process may use: "Intel(R) Xeon(R) ..., 16 processors". */
void base_version_cpu(char *text, size_t bytes);

/* Release of libyaml. Static string. */
const char *base_version_libyaml(void);

#ifdef __cplusplus
}
#endif
#endif
