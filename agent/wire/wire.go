// Package wire encodes and decodes what host and agent say on a channel; docs/protocol.md is its specification.
package wire

import (
	"bytes"
	"encoding/binary"
)

const (
	// Generation is the protocol spoken here; a peer with another one is answered and dropped.
	Generation = 1
	// MaxPayload bounds a frame's payload; nothing is allocated for a length above it.
	MaxPayload = 262144
	// HeaderSize, TrailerSize and HelloSize are the fixed sizes in bytes.
	HeaderSize  = 12
	TrailerSize = 4
	HelloSize   = 40
	magicSize   = 16
)

// The two magics differ in first and last byte, so an echo of one is never taken for the other.
var (
	helloMagic   = []byte("\xffPYRO-LINK\r\n\x1a\n\x00\xfe")
	welcomeMagic = []byte("\xfePYRO-LINK\r\n\x1a\n\x00\xff")
)

// Type says what a frame carries.
type Type uint8

// Types 1 to 7 go from the host to the guest, 16 to 23 from the guest to the host.
const (
	Request   Type = 1
	Stdin     Type = 2
	StdinEOF  Type = 3
	Signal    Type = 4
	Resize    Type = 5
	Push      Type = 6
	TunnelIn  Type = 7
	Response  Type = 16
	Stdout    Type = 17
	Stderr    Type = 18
	Exit      Type = 19
	Error     Type = 20
	Credit    Type = 21
	Entries   Type = 22
	TunnelOut Type = 23
)

func (t Type) known() bool { return t >= Request && t <= TunnelIn || t >= Response && t <= TunnelOut }

// Fault is why a frame is invalid.
type Fault string

// The faults, by the field that is wrong. Truncated means that more bytes may still make the frame valid.
const (
	BadSession  Fault = "session"
	BadType     Fault = "type"
	BadReserved Fault = "reserved"
	BadLength   Fault = "length"
	BadTrailer  Fault = "trailer"
	Truncated   Fault = "truncated"
)

func (f Fault) Error() string { return "invalid frame: " + string(f) }

// Frame is one decoded frame; Payload points into the buffer it was decoded from.
type Frame struct {
	Type    Type
	Payload []byte
}

// Hello is what HELLO and WELCOME carry besides their magic.
type Hello struct {
	Generation uint16
	Session    uint32
	Nonce      [16]byte
}

// AppendHello appends the host's opening message.
func AppendHello(dst []byte, h Hello) []byte { return appendOpening(dst, helloMagic, h) }

// AppendWelcome appends the agent's answer.
func AppendWelcome(dst []byte, h Hello) []byte { return appendOpening(dst, welcomeMagic, h) }

func appendOpening(dst, magic []byte, h Hello) []byte {
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint16(dst, h.Generation)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, h.Session)
	return append(dst, h.Nonce[:]...)
}

// ParseHello reads the HELLO at the start of b.
func ParseHello(b []byte) (Hello, bool) { return parseOpening(b, helloMagic) }

// ParseWelcome reads the WELCOME at the start of b.
func ParseWelcome(b []byte) (Hello, bool) { return parseOpening(b, welcomeMagic) }

func parseOpening(b, magic []byte) (h Hello, ok bool) {
	if len(b) < HelloSize || !bytes.HasPrefix(b, magic) || b[18] != 0 || b[19] != 0 {
		return h, false
	}
	h.Generation = binary.BigEndian.Uint16(b[16:])
	h.Session = binary.BigEndian.Uint32(b[20:])
	copy(h.Nonce[:], b[24:HelloSize])
	return h, h.Session >= 1 && h.Session <= 0x7fffffff
}

// AppendFrame appends one whole frame. The payload must not exceed MaxPayload.
func AppendFrame(dst []byte, session uint32, t Type, payload []byte) []byte {
	start := len(dst)
	dst = append(AppendHeader(dst, session, t), payload...)
	return Finish(dst, start)
}

// AppendHeader starts a frame whose payload is appended next; Finish ends it.
func AppendHeader(dst []byte, session uint32, t Type) []byte {
	dst = binary.BigEndian.AppendUint32(dst, session)
	return append(dst, byte(t), 0, 0, 0, 0, 0, 0, 0)
}

// Finish fills in the length of the frame that starts at start and appends its trailer.
func Finish(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+8:], uint32(len(dst)-start-HeaderSize))
	return binary.BigEndian.AppendUint32(dst, ^binary.BigEndian.Uint32(dst[start:]))
}

// Decode reads the frame at the start of b and returns it with its whole size. With Truncated, size is how many
// bytes the frame will have in all, or HeaderSize while that is not known.
func Decode(b []byte, session uint32) (f Frame, size int, err error) {
	if len(b) < HeaderSize {
		return f, HeaderSize, Truncated
	}
	length := binary.BigEndian.Uint32(b[8:])
	switch {
	case binary.BigEndian.Uint32(b) != session:
		return f, 0, BadSession
	case !Type(b[4]).known():
		return f, 0, BadType
	case b[5]|b[6]|b[7] != 0:
		return f, 0, BadReserved
	case length > MaxPayload:
		return f, 0, BadLength
	}
	end := HeaderSize + int(length)
	if size = end + TrailerSize; len(b) < size {
		return f, size, Truncated
	}
	if binary.BigEndian.Uint32(b[end:]) != ^session {
		return f, size, BadTrailer
	}
	return Frame{Type(b[4]), b[HeaderSize:end]}, size, nil
}
