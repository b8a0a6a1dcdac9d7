/* OpenBLAS as `cadre --version` shows it. */
#ifndef CADRE_KERNELS_CPU_BLAS_VERSION_H
#define CADRE_KERNELS_CPU_BLAS_VERSION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One line: release, the properties it was built with, and the core type whose kernels it picked for this CPU (or
 * that OPENBLAS_CORETYPE asked for). Results of two core types differ in their last bits. Cut to `bytes`. */
void kern_blas_version(char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
