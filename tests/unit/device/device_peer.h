/* The other process of the sharing cases: the conformance program, started with this word and the
 * number of a kind of device; what it is to import comes on standard input. */
#ifndef CADRE_TESTS_UNIT_DEVICE_DEVICE_PEER_H
#define CADRE_TESTS_UNIT_DEVICE_DEVICE_PEER_H

#include "base/device/device.h"

#define DEVICE_PEER_WORD "--peer"

/* Its exit status. */
int device_peer_main(base_device_kind_t kind);

#endif
