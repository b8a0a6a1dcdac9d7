#include "data/h5_version.h"

#include <hdf5.h>
#include <stdio.h>

void data_h5_version(char *text, size_t bytes)
{
    unsigned major = 0;
    unsigned minor = 0;
    unsigned release = 0;

    if (H5get_libversion(&major, &minor, &release) < 0) {
        (void)snprintf(text, bytes, "unknown");
        return;
    }
    (void)snprintf(text, bytes, "%u.%u.%u", major, minor, release);
}
