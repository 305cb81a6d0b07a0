package resolve

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"
)

const (
	upstreamTime = 2 * time.Second // for one answer of one resolver
	forwardTime  = 6 * time.Second // for all of them
	maxMessage   = 1<<16 - 1
	maxTTL       = 300
)

// relayed are the types, besides addresses, that are asked for on behalf of a guest: none of them leads anywhere that
// an address does not. HTTPS and SVCB are not among them: they may hold addresses.
var relayed = map[uint16]bool{2: true, 5: true, 6: true, 12: true, 15: true, 16: true, 33: true, 35: true, 257: true}

// forward asks the host's resolvers.
func (r *resolver) forward(q query) reply {
	if q.question.kind != typeA && !relayed[q.question.kind] {
		return reply{code: noError} // IPv6 and the like: there is nothing of this kind
	}
	ctx, cancel := context.WithTimeout(context.Background(), forwardTime)
	defer cancel()
	for _, upstream := range r.config.Upstreams {
		answer, err := ask(ctx, upstream, q.question)
		if err != nil {
			continue
		}
		found, err := r.judged(q.question, answer)
		if err == nil {
			return found
		}
	}
	r.stats.failed()
	return reply{code: failed}
}

// judged takes from a resolver's answer what the guest may have of it.
func (r *resolver) judged(asked question, answer []byte) (reply, error) {
	found := reply{code: int(binary.BigEndian.Uint16(answer[2:]) & rcodeMask)}
	if found.code != noError && found.code != noName {
		return found, errFormat // another one may know
	}
	_, at, err := readQuestion(answer, headerSize)
	if err != nil {
		return found, err
	}
	first := at
	_, count, _, _ := counts(answer)
	for range count {
		one, end, err := readRecord(answer, at)
		if err != nil {
			return found, err
		}
		at = end
		if asked.kind != typeA {
			if one.kind == typeA || one.kind == typeAAAA {
				return found, errFormat
			}
			found.count++
		} else if one.kind == typeA && one.class == classIN && len(one.data) == 4 && found.count < maxAddresses {
			r.give(&found, netip.AddrFrom4([4]byte(one.data)), min(one.ttl, maxTTL))
		}
	}
	if asked.kind != typeA {
		found.records = answer[first:at] // what is compressed in it points to what is before it
	} else if r.config.Mode == "learn" && found.count > 0 {
		r.stats.learned(asked.name, found.records)
	}
	return found, nil
}

// give adds an address unless the policy closes it.
func (r *resolver) give(found *reply, address netip.Addr, ttl uint32) {
	if r.config.open(address) {
		found.add(address, ttl)
	} else {
		r.stats.stripped()
	}
}

// ask sends the question to one resolver, under an id and from a port of its own; the answer is one to this question.
func ask(ctx context.Context, upstream netip.AddrPort, asked question) ([]byte, error) {
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	message := append([]byte{id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 1}, asked.raw...)
	message = appendOPT(message)
	answer, err := exchange(ctx, "udp", upstream, message)
	if err == nil && binary.BigEndian.Uint16(answer[2:])&flagTruncated != 0 {
		answer, err = exchange(ctx, "tcp", upstream, message)
	}
	return answer, err
}

func exchange(ctx context.Context, network string, upstream netip.AddrPort, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTime)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, upstream.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(until); err != nil {
			return nil, err
		}
	}
	if network == "tcp" {
		return exchangeStream(conn, message)
	}
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	buffer := make([]byte, maxMessage)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		if answers(buffer[:n], message) {
			return buffer[:n], nil
		}
	}
}

func exchangeStream(conn net.Conn, message []byte) ([]byte, error) {
	if _, err := conn.Write(framed(message)); err != nil {
		return nil, err
	}
	answer, err := readFramed(conn, maxMessage)
	if err == nil && !answers(answer, message) {
		err = errFormat
	}
	return answer, err
}

// answers says whether it is a response to that message: same id, same question.
func answers(answer, message []byte) bool {
	if len(answer) < headerSize || !bytes.Equal(answer[:2], message[:2]) {
		return false
	}
	questions, _, _, _ := counts(answer)
	if binary.BigEndian.Uint16(answer[2:])&flagResponse == 0 || questions != 1 {
		return false
	}
	got, _, err := readQuestion(answer, headerSize)
	if err != nil {
		return false
	}
	asked, _, err := readQuestion(message, headerSize)
	return err == nil && bytes.EqualFold(got.raw, asked.raw)
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

// readFramed reads one message of a stream, of at most most bytes.
func readFramed(from io.Reader, most int) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if size > most {
		return nil, errFormat
	}
	message := make([]byte, size)
	_, err := io.ReadFull(from, message)
	return message, err
}
