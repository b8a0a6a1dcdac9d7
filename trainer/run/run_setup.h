/* From configuration and inputs to what makes a trainer: the same for a run and for the plan of its
 * memory. */
#ifndef CADRE_TRAINER_RUN_RUN_SETUP_H
#define CADRE_TRAINER_RUN_RUN_SETUP_H

#include "comm/comm.h"
#include "trainer/loop/build.h"
#include "trainer/run/inputs.h"

/* train.device with auto resolved to what the program was built for, and train.dtype to what suits
 * that device. Pure functions. */
base_device_kind_t tr_setup_device(const base_config_t *config);
kern_dtype_t tr_setup_dtype(const base_config_t *config);

/* BASE_ERR_UNSUPPORTED (DEV-01) when mode, dtype and device do not go together. */
base_status_t tr_setup_check(base_ctx_t *ctx, const base_config_t *config) BASE_MUST_CHECK;

/* Roles of the group's ranks as attention.placement says. The caller frees *topology_p. CONF-04 when
 * servers_per_host leaves no trainer, or server_speeds has another number of servers. */
base_status_t tr_setup_topology(base_ctx_t *ctx, const base_config_t *config, comm_group_t *group,
                                as_topology_t **topology_p) BASE_MUST_CHECK;

/* The adapters' options in the order of the jobs; names are the configuration's. With train.mode
 * full they are empty. num_jobs of them, the caller's (base_free). */
base_status_t tr_setup_adapters(const tr_inputs_t *inputs,
                                lora_adapter_options_t **adapters_p) BASE_MUST_CHECK;

/* Borrows all of it. free_bytes: of the rank's device, 0: not known (base_device_free_bytes), for
 * train.recompute: auto. */
tr_build_t tr_setup_build(const tr_inputs_t *inputs, const as_topology_t *topology,
                          const lora_adapter_options_t *adapters, int64_t free_bytes);

/* The trainer has taken its memory; on the CPU OpenBLAS takes some of its own at its first product.
 * BASE_ERR_NOMEM (MEM-01) when there is no room for it; of ranks that are threads rank 0 finds out. All
 * ranks call it. */
base_status_t tr_setup_check_products(base_ctx_t *ctx, const base_device_t *dev,
                                      comm_group_t *group) BASE_MUST_CHECK;

#endif
