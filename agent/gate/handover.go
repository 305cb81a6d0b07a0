package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
)

const (
	// maxMessage is what fits into one message of a socket with the kernel's usual buffers.
	maxMessage  = 128 << 10
	descriptors = 5 // of a Handover
)

// Handover is what comes out of the machine's namespace: descriptors that belong to it, whoever holds them.
type Handover struct {
	Namespace int // of /proc/self/ns/net
	Netlink   int // rtnetlink
	UDP, TCP  int // the resolver's sockets
	Machine   int // a pidfd of the process that becomes the VMM
}

type answer struct {
	Error string `json:"error"`
}

// Ask sends a gate its plan over a socket, and waits until the uplink is up.
func Ask(socket int, plan *Plan, what Handover) error {
	text, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	if len(text) > maxMessage {
		return fmt.Errorf("the network has too many names and rules: %d bytes", len(text))
	}
	rights := syscall.UnixRights(what.Namespace, what.Netlink, what.UDP, what.TCP, what.Machine)
	if err := syscall.Sendmsg(socket, text, rights, nil, 0); err != nil {
		return fmt.Errorf("tell the gate: %w", err)
	}
	buffer := make([]byte, maxMessage)
	size, _, _, _, err := syscall.Recvmsg(socket, buffer, nil, 0)
	if err != nil {
		return fmt.Errorf("hear from the gate: %w", err)
	}
	if size == 0 {
		return errors.New("the gate ended")
	}
	var reply answer
	if err := json.Unmarshal(buffer[:size], &reply); err != nil {
		return fmt.Errorf("hear from the gate: %w", err)
	}
	if reply.Error != "" {
		return errors.New(reply.Error)
	}
	return nil
}

// receive is the gate's side of Ask.
func receive(socket int) (*Plan, Handover, error) {
	buffer, control := make([]byte, maxMessage), make([]byte, syscall.CmsgSpace(descriptors*4))
	size, controlSize, flags, _, err := syscall.Recvmsg(socket, buffer, control, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, Handover{}, fmt.Errorf("receive the plan: %w", err)
	}
	if size == 0 || flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		return nil, Handover{}, errors.New("receive the plan: cut short")
	}
	messages, err := syscall.ParseSocketControlMessage(control[:controlSize])
	if err != nil || len(messages) != 1 {
		return nil, Handover{}, errors.New("receive the plan: no descriptors")
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != descriptors {
		return nil, Handover{}, errors.New("receive the plan: not the descriptors of a namespace")
	}
	plan := &Plan{}
	if err := json.Unmarshal(buffer[:size], plan); err != nil {
		return nil, Handover{}, fmt.Errorf("plan: %w", err)
	}
	return plan, Handover{fds[0], fds[1], fds[2], fds[3], fds[4]}, nil
}

// reply tells whoever asked how it went.
func reply(socket int, failure error) {
	said := answer{}
	if failure != nil {
		said.Error = failure.Error()
	}
	if text, err := json.Marshal(said); err == nil {
		_ = syscall.Sendmsg(socket, text, nil, nil, 0) // a machine that is gone takes us with it
	}
}
