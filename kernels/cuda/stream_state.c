#include "kernels/cuda/stream_state.h"

#include "base/memory.h"

#define TICKET_BYTES 256 /* a line of its own */

static void destroy(base_stream_part_t *part)
{
    kern_cuda_state_t *state = (kern_cuda_state_t *)part;

    kern_gemm_plans_destroy(state->gemm);
    base_buffer_free(state->scratch);
    base_free(state->ctx, state);
}

/* Scratch memory and the ticket, which becomes 0 in the order of the stream. */
static base_status_t make_buffer(base_stream_t *s, kern_cuda_state_t *state)
{
    BASE_TRY(base_buffer_alloc(base_stream_device(s), BASE_MEMORY_DEVICE,
                               KERN_CUDA_SCRATCH_BYTES + TICKET_BYTES, "scratch of ops",
                               &state->scratch));
    const base_range_t ticket = {.mem = base_mem(state->scratch, KERN_CUDA_SCRATCH_BYTES),
                                 .row_bytes = TICKET_BYTES,
                                 .rows = 1};
    const base_status_t st = base_fill(s, &ticket, 0);

    if (st < 0) base_buffer_free(state->scratch);
    return st;
}

base_status_t kern_cuda_state_of(base_stream_t *s, kern_cuda_state_t **state_p)
{
    base_ctx_t *ctx = base_device_ctx(base_stream_device(s));
    kern_cuda_state_t *state = (kern_cuda_state_t *)base_stream_kept(s);
    base_status_t st;

    if (state == NULL) {
        state = base_calloc(ctx, 1, sizeof *state, "state of a stream");
        if (state == NULL) return BASE_ERR_NOMEM;
        state->part.destroy = destroy;
        state->ctx = ctx;
        st = make_buffer(s, state);
        if (st < 0) {
            base_free(ctx, state);
            return st;
        }
        base_stream_keep(s, &state->part);
    }
    *state_p = state;
    return BASE_OK;
}

base_status_t kern_cuda_scratch(base_stream_t *s, void **scratch_p)
{
    kern_cuda_state_t *state = NULL;

    BASE_TRY(kern_cuda_state_of(s, &state));
    *scratch_p = base_mem_address(base_mem(state->scratch, 0));
    return BASE_OK;
}

base_status_t kern_cuda_ticket(base_stream_t *s, uint32_t **ticket_p)
{
    kern_cuda_state_t *state = NULL;

    BASE_TRY(kern_cuda_state_of(s, &state));
    *ticket_p = base_mem_address(base_mem(state->scratch, KERN_CUDA_SCRATCH_BYTES));
    return BASE_OK;
}

base_status_t kern_cuda_gemm_plans(base_stream_t *s, kern_gemm_plans_t **plans_p)
{
    kern_cuda_state_t *state = NULL;

    BASE_TRY(kern_cuda_state_of(s, &state));
    if (state->gemm == NULL) BASE_TRY(kern_gemm_plans_create(base_stream_device(s), &state->gemm));
    *plans_p = state->gemm;
    return BASE_OK;
}
