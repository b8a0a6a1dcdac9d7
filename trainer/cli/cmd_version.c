/* cadre version, cadre --version: what a bug report needs. Each line is answered by the folder that owns the thing. */
#include "base/device/cuda_version.h"
#include "base/version.h"
#include "comm/mpi_version.h"
#include "comm/nccl_version.h"
#include "data/h5_version.h"
#include "kernels/cpu/blas_version.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/verb.h"

#include <stdio.h>
#include <string.h>

static void row(const char *name, const char *value)
{
    (void)printf("%-9s %s\n", name, value);
}

int tr_cmd_version(const tr_cli_t *cli, int argc, char **argv)
{
    char text[1024];

    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        (void)puts("Usage: cadre --version\n\n"
                   "Prints the version, the commit and the preset it was built with, the devices "
                   "it sees and the\n"
                   "libraries it runs with. Please put this into every bug report.");
        return TR_EXIT_DONE;
    }
    if (!tr_cli_no_arguments(cli->ctx, argc, argv)) return TR_EXIT_USAGE;

    (void)printf("cadre %s\n", base_version_number());
    row("commit", base_version_commit());
    base_version_preset(text, sizeof text);
    row("preset", text);
    row("compiler", base_version_compiler());
    base_version_cpu(text, sizeof text);
    row("cpu", text);
    base_cuda_devices(text, sizeof text);
    row("gpu", text);
    comm_mpi_version(text, sizeof text);
    row("mpi", text);
    data_h5_version(text, sizeof text);
    row("hdf5", text);
    kern_blas_version(text, sizeof text);
    row("openblas", text);
    row("libyaml", base_version_libyaml());
    base_cuda_version(text, sizeof text);
    row("cuda", text);
    comm_nccl_version(text, sizeof text);
    row("nccl", text);
    return TR_EXIT_DONE;
}
