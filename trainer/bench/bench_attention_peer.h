/* The other side of `cadre bench attention --peer COMMAND`: a program that times other
 * implementations of attention on the same cases, in turns with ours, so that both meet the same
 * clocks and temperature. tests/gpu/attention_peer.py is one.
 *
 * The command is run by /bin/sh and lives as long as the bench. For each case and round it is sent
 * one line on its stdin, a JSON object, and answers with one line on its stdout:
 *
 *   {"case": "pack of 32k, 32:8", "round": 0, "samples": 6, "kv_heads": 8, "group": 4,
 *    "head_dim": 128, "window": 0, "tasks": [[document, q0, q1, h0, h1], ...]}
 *
 *   {"cudnn 9.19 dense": {"forward_ns": [...], "backward_ns": [...]},
 *    "flash-attention 2": {"error": "does not know ragged batches"}}
 *
 * Times are of one call, forward, and backward alone. A peer names itself, at most
 * TR_PEER_MAX of them answer, in any round the same; one that cannot do a case says why.
 *
 * Errors: CLI-03 when the command ends, stays silent for TR_PEER_PATIENCE_MS or answers with something
 * else. */
#ifndef CADRE_TRAINER_BENCH_BENCH_ATTENTION_PEER_H
#define CADRE_TRAINER_BENCH_BENCH_ATTENTION_PEER_H

#include "trainer/bench/bench_attention_case.h"

#define TR_PEER_MAX         6
#define TR_PEER_NAME_BYTES  64
#define TR_PEER_ERROR_BYTES 256
#define TR_PEER_MAX_SAMPLES 64 /* of a direction, all rounds of a case together */
#define TR_PEER_PATIENCE_MS 300000

typedef struct tr_peer_times {
    char name[TR_PEER_NAME_BYTES];
    char error[TR_PEER_ERROR_BYTES]; /* "": none */
    int32_t num_samples[AS_PROFILE_DIRECTIONS];
    int64_t ns[AS_PROFILE_DIRECTIONS][TR_PEER_MAX_SAMPLES];
} tr_peer_times_t;

/* What the peers took for one case so far; begins as zeros. */
typedef struct tr_peer_answers {
    int32_t count;
    tr_peer_times_t peers[TR_PEER_MAX];
} tr_peer_answers_t;

typedef struct tr_attention_peer tr_attention_peer_t;

base_status_t tr_attention_peer_start(base_ctx_t *ctx, const char *command,
                                      tr_attention_peer_t **peer_p) BASE_MUST_CHECK;
/* Closes its stdin and waits for it; NULL is legal. */
void tr_attention_peer_stop(tr_attention_peer_t *peer);

/* One round of a case; adds to `answers`. */
base_status_t tr_attention_peer_ask(tr_attention_peer_t *peer, const tr_attention_case_t *of,
                                    const tr_attention_set_t *set, int32_t round, int32_t samples,
                                    tr_peer_answers_t *answers) BASE_MUST_CHECK;

#endif
