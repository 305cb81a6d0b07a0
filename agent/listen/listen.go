// Package listen finds the ways into the guest (virtio-serial ports, vsock) and yields a Channel for each.
//
// All of them wait in the Go runtime's poller: one edge-triggered epoll for the whole agent.
package listen

import (
	"errors"
	"io"
)

// ErrClientLeft is what Read and Write return when the host has closed its end.
var ErrClientLeft = errors.New("the client left")

// Channel is a byte stream to one host process at a time.
type Channel interface {
	io.ReadWriteCloser
	// Interrupt ends a blocked Write, and makes any other fail until Resume.
	Interrupt()
	Resume()
	// Reusable says that after ErrClientLeft the next Read waits for another client.
	Reusable() bool
}
