package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(t []byte) (err error) {
	*h, err = hex.DecodeString(string(t))
	return err
}

type goldenFile struct {
	Generation uint16
	Hellos     []struct {
		Name, Kind string
		Generation uint16
		Session    uint32
		Nonce      hexBytes `json:"nonce_hex"`
		Hex        hexBytes
	}
	Frames []struct {
		Name    string
		Session uint32
		Type    Type
		Payload hexBytes `json:"payload_hex"`
		Hex     hexBytes
	}
	Invalid []struct {
		Name    string
		Session uint32
		Hex     hexBytes
		Reason  Fault
	}
}

func golden(t testing.TB) (g goldenFile) {
	t.Helper()
	data, err := os.ReadFile("../../tests/golden/wire.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if g.Generation != Generation || len(g.Hellos) == 0 || len(g.Frames) == 0 || len(g.Invalid) == 0 {
		t.Fatalf("golden file of generation %d is not ours or not whole", g.Generation)
	}
	return g
}

func TestGoldenHellos(t *testing.T) {
	for _, c := range golden(t).Hellos {
		want := Hello{Generation: c.Generation, Session: c.Session, Nonce: [16]byte(c.Nonce)}
		parse, appendTo := ParseHello, AppendHello
		if c.Kind == "welcome" {
			parse, appendTo = ParseWelcome, AppendWelcome
		}
		if got, ok := parse(c.Hex); !ok || got != want {
			t.Errorf("%s: parsed %+v, %v", c.Name, got, ok)
		}
		if got := appendTo(nil, want); !bytes.Equal(got, c.Hex) {
			t.Errorf("%s: encoded %x", c.Name, got)
		}
	}
}

func TestGoldenFrames(t *testing.T) {
	for _, c := range golden(t).Frames {
		f, size, err := Decode(c.Hex, c.Session)
		if err != nil || size != len(c.Hex) || f.Type != c.Type || !bytes.Equal(f.Payload, c.Payload) {
			t.Errorf("%s: decoded %+v, %d, %v", c.Name, f, size, err)
		}
		if got := AppendFrame([]byte("x"), c.Session, c.Type, c.Payload); !bytes.Equal(got[1:], c.Hex) {
			t.Errorf("%s: encoded %x", c.Name, got)
		}
	}
}

func TestGoldenInvalidFrames(t *testing.T) {
	for _, c := range golden(t).Invalid {
		if _, _, err := Decode(c.Hex, c.Session); err != c.Reason {
			t.Errorf("%s: %v, want %q", c.Name, err, c.Reason)
		}
	}
}

func TestMalformedHellosAreNoHellos(t *testing.T) {
	good := AppendHello(nil, Hello{Generation: 1, Session: 7})
	for name, change := range map[string]func([]byte){
		"zero field set":    func(b []byte) { b[19] = 1 },
		"session zero":      func(b []byte) { b[23] = 0 },
		"session too large": func(b []byte) { b[20] = 0x80 },
		"magic":             func(b []byte) { b[15] = 0xff },
	} {
		bad := bytes.Clone(good)
		change(bad)
		if _, ok := ParseHello(bad); ok {
			t.Errorf("%s: taken for a HELLO", name)
		}
	}
	if _, ok := ParseHello(good[:39]); ok {
		t.Error("39 bytes taken for a HELLO")
	}
}

// TestResync gives each broken stream to a session 5 and expects that the HELLO at its end is found.
func TestResync(t *testing.T) {
	hello := AppendHello(nil, Hello{Generation: 1, Session: 6, Nonce: [16]byte{1}})
	whole := AppendFrame(nil, 5, Stdin, bytes.Repeat([]byte("a"), 1000))
	largest := AppendFrame(nil, 5, Stdin, make([]byte, MaxPayload))
	pad := make([]byte, 262208)
	cut := func(b []byte, n int, rest ...[]byte) []byte {
		return append(bytes.Clone(b[:n]), bytes.Join(rest, nil)...)
	}
	cases := map[string][]byte{
		"hello at once":                        hello,
		"hello in place of a header":           cut(whole, len(whole), hello),
		"half a header, hello":                 cut(whole, 6, hello),
		"nine bytes of a header, hello":        cut(whole, 9, hello),
		"header without last byte, pad, hello": cut(whole, 11, pad, hello),
		"half a frame, pad, hello":             cut(whole, 500, pad, hello),
		"half a frame, hello, pad, hello":      cut(whole, 500, hello, pad, hello),
		"header of the largest, pad, hello":    cut(largest, 12, pad, hello),
		"largest without trailer, pad, hello":  cut(largest, len(largest)-4, pad, hello),
		"two thirds of a magic, hello":         cut(hello, 11, hello),
		"a hello with session 0, hello":        append(AppendHello(nil, Hello{Generation: 1}), hello...),
		"a welcome, hello":                     append(AppendWelcome(nil, Hello{Generation: 1, Session: 9}), hello...),
	}
	for name, stream := range cases {
		for kind, src := range map[string]io.Reader{
			"whole":     bytes.NewReader(stream),
			"half":      iotest.HalfReader(bytes.NewReader(stream)),
			"bytewise":  iotest.OneByteReader(bytes.NewReader(stream)),
			"with EOF ": iotest.DataErrReader(bytes.NewReader(stream)),
		} {
			r := NewReader(src)
			var err error
			for err == nil {
				_, err = r.ReadFrame(5)
			}
			var fault Fault
			if !errors.As(err, &fault) {
				t.Errorf("%s (%s): session ended with %v", name, kind, err)
				continue
			}
			got, err := r.ReadHello()
			if err != nil || got.Session != 6 {
				t.Errorf("%s (%s): %+v, %v", name, kind, got, err)
			}
		}
	}
}

func TestResetForgetsHalfAFrame(t *testing.T) {
	frame := AppendFrame(nil, 5, Stdin, []byte("abc"))
	src := bytes.NewReader(frame[:9])
	r := NewReader(src)
	if _, err := r.ReadFrame(5); err != io.EOF {
		t.Fatal("half a frame was read", err)
	}
	src.Reset(frame)
	r.Reset()
	if f, err := r.ReadFrame(5); err != nil || string(f.Payload) != "abc" {
		t.Fatal(f, err)
	}
}

// FuzzDecode feeds anything to the frame parser and the scanner: no panic, no unbounded buffer, and what is
// accepted encodes to the same bytes again.
func FuzzDecode(f *testing.F) {
	g := golden(f)
	for _, c := range g.Frames {
		f.Add([]byte(c.Hex), c.Session)
	}
	for _, c := range g.Invalid {
		f.Add([]byte(c.Hex), c.Session)
	}
	for _, c := range g.Hellos {
		f.Add([]byte(c.Hex), c.Session)
	}
	f.Fuzz(func(t *testing.T, data []byte, session uint32) {
		if frame, size, err := Decode(data, session); err == nil {
			if again := AppendFrame(nil, session, frame.Type, frame.Payload); !bytes.Equal(again, data[:size]) {
				t.Fatalf("%x became %x", data[:size], again)
			}
		}
		r := NewReader(bytes.NewReader(data))
		for {
			h, err := r.ReadHello()
			if err != nil {
				break
			}
			for err == nil {
				_, err = r.ReadFrame(h.Session)
			}
		}
		if len(r.buf) > HeaderSize+MaxPayload+TrailerSize {
			t.Fatalf("buffer of %d bytes", len(r.buf))
		}
	})
}
