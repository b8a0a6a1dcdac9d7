/* HDF5 as `cadre --version` shows it. */
#ifndef CADRE_DATA_H5_VERSION_H
#define CADRE_DATA_H5_VERSION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One line: the library's release at run time, "1.10.8". Cut to `bytes`. */
void data_h5_version(char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
