package launch

import (
	"encoding/json"
	"errors"
	"syscall"
)

const (
	maxErrorText   = 1000 // a line stays below PIPE_BUF, so it is written whole or not at all
	statusPatience = 1    // seconds to wait for a reader whose pipe is full
)

// reason says why a machine ended.
type reason string

const (
	reasonVMM   reason = "vmm"
	reasonStop  reason = "stop"
	reasonOwner reason = "owner"
	reasonTTL   reason = "ttl"
)

// status is the one-way line of JSON events to whoever started the launcher.
type status struct{ fd int }

type startedEvent struct {
	Event      string `json:"event"` // "started", or "handover" when another process has become the VMM
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"`
}

type exitedEvent struct {
	Event    string `json:"event"`
	ExitCode int    `json:"exit_code"` // -1 when a signal ended it
	Signal   int    `json:"signal"`    // 0 when it exited by itself
	Reason   reason `json:"reason"`
	Error    string `json:"error,omitempty"` // what could not be cleaned up
}

type failedEvent struct {
	Event string `json:"event"`
	Error string `json:"error"`
	Part  string `json:"part,omitempty"` // "network" when that could not be made
}

// networkError is why there is no network.
type networkError struct{ text string }

func (e networkError) Error() string { return e.text }

// send writes one event. A reader that is gone or does not read must never hold up the
// supervision, so every error is dropped.
func (s status) send(event any) {
	line, err := json.Marshal(event)
	if err != nil || !poll(s.fd, pollOut, statusPatience) {
		return
	}
	line = append(line, '\n')
	for {
		if _, err := syscall.Write(s.fd, line); !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func (s status) fail(err error) {
	event := failedEvent{Event: "failed", Error: clip(err)}
	if errors.As(err, &networkError{}) {
		event.Part = "network"
	}
	s.send(event)
}

func clip(err error) string {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	return text
}
