// Package tsc measures the frequency of the host's time stamp counter.
//
// Software emulation passes the host's counter through, and a guest kernel on a busy host often
// fails to calibrate it; the number printed here goes onto its command line as tsc_early_khz.
package tsc

import (
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	window      = 20 * time.Millisecond
	maxWindows  = 10
	bracketings = 64
	// Two windows in a row must agree to 1 part in agreement; a bracket may be at most that part of a window.
	agreement = 10_000

	minKHz = 100_000
	maxKHz = 20_000_000
)

const (
	exitOK          = 0
	exitFailed      = 1
	exitUnsupported = 3
)

var errUnstable = errors.New("the time stamp counter does not advance steadily on this host")

// Main prints the frequency in kHz as one integer line and returns the exit code.
func Main() int {
	if !supported {
		fmt.Fprintln(os.Stderr, "pyro-agent tsc: this processor architecture has no time stamp counter")
		return exitUnsupported
	}
	khz, err := measure()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pyro-agent tsc:", err)
		return exitFailed
	}
	if _, err := fmt.Println(khz); err != nil {
		return exitFailed
	}
	return exitOK
}

// reading is one instant on both clocks; slack is the number of ticks its position is uncertain by.
type reading struct {
	ticks uint64
	slack uint64
	at    time.Time
}

// read brackets a clock read between two counter reads and keeps the tightest of several
// brackets: a preemption, or a host that takes the processor away, widens only the one it hits.
func read() reading {
	best := reading{slack: ^uint64(0)}
	for range bracketings {
		before := rdtsc()
		at := time.Now() // carries CLOCK_MONOTONIC, read without a system call
		after := rdtsc()
		if slack := after - before; slack < best.slack {
			best = reading{ticks: before + slack/2, slack: slack, at: at}
		}
	}
	return best
}

// measure repeats short windows until two in a row agree: a move between processors with
// counters apart, or a step of the clock, then costs a window and never the result.
func measure() (uint64, error) {
	var previous uint64
	start := read()
	for range maxWindows {
		time.Sleep(window)
		end := read()
		khz, ok := frequency(start, end)
		if ok && agree(previous, khz) {
			return (previous + khz) / 2, nil
		}
		start, previous = end, 0
		if ok {
			previous = khz
		}
	}
	return 0, errUnstable
}

// frequency is the rate between two readings in kHz; not ok when they cannot be trusted.
func frequency(start, end reading) (uint64, bool) {
	elapsed := end.at.Sub(start.at) // monotonic
	if elapsed <= 0 || end.ticks <= start.ticks {
		return 0, false
	}
	ticks := end.ticks - start.ticks
	if (start.slack+end.slack)/2 > ticks/agreement {
		return 0, false
	}
	khz := uint64(float64(ticks)*1e6/float64(elapsed.Nanoseconds()) + 0.5)
	return khz, khz >= minKHz && khz <= maxKHz
}

func agree(a, b uint64) bool {
	return max(a, b)-min(a, b) <= b/agreement
}
