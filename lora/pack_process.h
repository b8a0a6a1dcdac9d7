/* The exact packer in a process of its own, for ranks that train: each asks a fresh process the same
 * question, with a limit of nodes, and gets the same answer.
 *
 *   BASE_TRY(lora_packer_run(packer, &window, &schedule));
 *   BASE_TRY(lora_pack_process(ctx, &window, nodes, &schedule, &result));
 *
 * A process, because CBC is a guest that does not behave: its solver keeps state in globals, so that
 * ranks that are threads cannot solve at once and an answer could depend on the ones before; it puts
 * its own handler in the place of the process's for SIGINT; it may call exit; its memory is not
 * counted. There is one process a question, its memory goes with it, and it is not counted either.
 *
 * The limit is a number of nodes of the search tree, so that the answer is a function of the window,
 * given one build of CBC. With a limit of time it would hang on how busy a host is: one rank would
 * have to solve and send. No clock is involved here, but a deadline that is an error.
 *
 * The process runs the program that asks, which therefore begins with
 *
 *   if (lora_pack_process_is(argc, argv)) return lora_pack_process_main(); */
#ifndef CADRE_LORA_PACK_PROCESS_H
#define CADRE_LORA_PACK_PROCESS_H

#include "lora/pack_exact.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Documents of a window at most, and nodes that suit them: where something is left open an answer
 * takes some tens of milliseconds mostly and up to one or two seconds (unit.lora.pack_process prints
 * its longest of 16 documents). It grows fast: 32 documents take several seconds, in the root node
 * alone. */
#define LORA_PACK_PROCESS_DOCUMENTS 24
#define LORA_PACK_PROCESS_NODES     100

/* As lora_pack_exact, with nodes alone as limit. Blocks the host. Takes no memory of the caller's.
 * Errors: BASE_ERR_ARG (INT-01) for a window that is too large; BASE_ERR_STATE (PLAN-02) when the
 * process does not start, ends without an answer or gives none within the context's deadline;
 * BASE_ERR_PEER (COMM-01) when the rank is asked to stop; the process is gone then. */
base_status_t lora_pack_process(base_ctx_t *ctx, const lora_window_t *window, int32_t nodes,
                                lora_schedule_t *schedule,
                                lora_exact_result_t *result) BASE_MUST_CHECK;

bool lora_pack_process_is(int argc, char *const *argv);
/* Reads the question from standard input, answers on standard output, returns the exit code. */
int lora_pack_process_main(void);

#ifdef __cplusplus
}
#endif
#endif
