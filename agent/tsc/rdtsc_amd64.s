#include "textflag.h"

// func rdtsc() uint64
// The fences keep the read from moving across the clock reads around it.
TEXT ·rdtsc(SB), NOSPLIT, $0-8
	LFENCE
	RDTSC
	LFENCE
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET
