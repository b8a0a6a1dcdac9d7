/* The op table of the CPU family (cpu, strict), and the work functions behind it.
 *
 * An entry lists its operands (kernels/op_check.h) and submits the work function of its dtype to
 * the stream; the work function gets the stream's copy of the argument struct and may dereference
 * the operands. Nothing is allocated: scratch is an operand or lies on the stack, at most
 * KERN_CPU_STACK_BYTES of it. (bf16 is the exception: kernels/cpu/bf16.c.) */
#ifndef CADRE_KERNELS_CPU_CPU_OPS_H
#define CADRE_KERNELS_CPU_CPU_OPS_H

#include "kernels/op.h"

/* What a thread that runs CPU ops needs beyond its own use: attention_bwd in double at head dim 256
 * takes 2 MiB. */
#define KERN_CPU_STACK_BYTES (3 * 1024 * 1024)

const kern_ops_t *kern_cpu_ops(void);

/* kern_cpu_<op>_f32, _f64, _bf16; `args` points to the op's argument struct. */
#define X(op)                                                                                      \
    base_status_t kern_cpu_##op##_f32(void *args);                                                 \
    base_status_t kern_cpu_##op##_f64(void *args);                                                 \
    base_status_t kern_cpu_##op##_bf16(void *args);
KERN_REAL_OP_MAP(X)
#undef X

/* Any pair of F32, F64, BF16, with one rounding: to nearest even. A NaN comes out quiet, with its
 * sign. */
base_status_t kern_cpu_convert(void *args);

/* add, then rmsnorm_fwd, in the dtype of x. */
base_status_t kern_cpu_add_rmsnorm_fwd(void *args);

#endif
