/* NCCL as `cadre --version` shows it. nccl_version.c in a build with NCCL, nccl_version_stub.c without. */
#ifndef CADRE_COMM_NCCL_VERSION_H
#define CADRE_COMM_NCCL_VERSION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One line: "2.28.3"; "not in this build". Cut to `bytes`. */
void comm_nccl_version(char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
