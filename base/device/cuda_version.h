/* CUDA as `cadre --version` shows it. cuda_version.c in a build with CUDA, cuda_version_stub.c without. */
#ifndef CADRE_BASE_DEVICE_CUDA_VERSION_H
#define CADRE_BASE_DEVICE_CUDA_VERSION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One line: "runtime 13.0, driver 13.0"; "not in this build". Cut to `bytes`. */
void base_cuda_version(char *text, size_t bytes);

/* One line: the GPUs this process can see, "0: NVIDIA H200, 1: NVIDIA H200"; "none" with the driver's reason when it
 * has one to give. Starts the driver, but creates no context. Cut to `bytes`. */
void base_cuda_devices(char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
