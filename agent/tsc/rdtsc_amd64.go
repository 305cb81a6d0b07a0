package tsc

const supported = true

// rdtsc reads the time stamp counter of the processor it happens to run on.
func rdtsc() uint64
