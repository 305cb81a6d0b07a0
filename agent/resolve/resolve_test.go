package resolve

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask builds a query as a guest would: a name, a type, and an OPT record when size is not 0.
func message(name string, kind uint16, size uint16) []byte {
	b := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, classIN)
	if size > 0 {
		b[11] = 1
		b = append(b, 0, 0, typeOPT, byte(size>>8), byte(size), 0, 0, 0, 0, 0, 0)
	}
	return b
}

// reading is an answer taken apart.
type reading struct {
	code      int
	addresses []string
	records   int
	truncated bool
	extended  bool
}

func read(t *testing.T, b []byte) reading {
	t.Helper()
	if len(b) < headerSize || binary.BigEndian.Uint16(b) != 0x1234 || b[2]&0x80 == 0 {
		t.Fatalf("not an answer: %x", b)
	}
	questions, answers, _, additional := counts(b)
	found := reading{code: int(b[3] & rcodeMask), truncated: b[2]&2 != 0, extended: additional == 1, records: answers}
	at := headerSize
	if questions == 1 {
		_, end, err := readQuestion(b, at)
		if err != nil {
			t.Fatal(err)
		}
		at = end
	}
	for range answers + additional {
		one, end, err := readRecord(b, at)
		if err != nil {
			t.Fatal(err)
		}
		if at = end; one.kind == typeA {
			found.addresses = append(found.addresses, netip.AddrFrom4([4]byte(one.data)).String())
		}
	}
	if at != len(b) {
		t.Fatalf("%d bytes too many", len(b)-at)
	}
	return found
}

func addresses(texts ...string) []netip.Addr {
	var found []netip.Addr
	for _, text := range texts {
		found = append(found, netip.MustParseAddr(text))
	}
	return found
}

// serve starts a resolver on the loopback; the function asks it, by UDP or TCP.
func serve(t *testing.T, config Config) func(network string, message []byte) []byte {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Serve(config, udp, tcp) }()
	t.Cleanup(func() {
		udp.Close()
		if err := <-ended; err == nil {
			t.Error("it ended without a word")
		}
	})
	return func(network string, message []byte) []byte {
		address := udp.LocalAddr().String()
		if network == "tcp" {
			address = tcp.Addr().String()
		}
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if network == "tcp" {
			message = framed(message)
		}
		if _, err := conn.Write(message); err != nil {
			t.Fatal(err)
		}
		if network == "tcp" {
			answer, err := readFramed(conn, maxMessage)
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		buffer := make([]byte, maxMessage)
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return buffer[:n]
	}
}

func TestAPinnedResolverAnswersItsNamesAndNothingElse(t *testing.T) {
	stats := filepath.Join(t.TempDir(), "resolver.json")
	many := make([]netip.Addr, 60)
	for n := range many {
		many[n] = netip.AddrFrom4([4]byte{1, 1, 1, byte(n)})
	}
	ask := serve(t, Config{
		Mode:  "pinned",
		Names: map[string][]netip.Addr{"a.example": addresses("1.1.1.1", "1.0.0.1"), "many.example": many},
		Stats: stats,
	})
	for _, c := range []struct {
		name    string
		network string
		message []byte
		want    reading
	}{
		{"a pinned name", "udp", message("a.example", typeA, 0), reading{addresses: []string{"1.1.1.1", "1.0.0.1"}, records: 2}},
		{"in other letters", "tcp", message("A.eXample", typeA, 1400), reading{addresses: []string{"1.1.1.1", "1.0.0.1"}, records: 2, extended: true}},
		{"its IPv6 address", "udp", message("a.example", typeAAAA, 0), reading{}},
		{"its text", "udp", message("a.example", 16, 0), reading{}},
		{"a name below it", "udp", message("x.a.example", typeA, 0), reading{code: refused}},
		{"another name", "udp", message("b.example", typeA, 1232), reading{code: refused, extended: true}},
		{"what a tunnel asks", "udp", message("c2vjcmv0.t.example", 16, 0), reading{code: refused}},
		{"the root", "udp", append([]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0, 0, 2, 0, 1), reading{code: refused}},
		{"the server's version", "udp", append(message("version.bind", 16, 0)[:12+14], 0, 16, 0, 3), reading{code: refused}},
		{"too many for UDP", "udp", message("many.example", typeA, 0), reading{truncated: true}},
		{"but not with room", "udp", message("many.example", typeA, 4096), reading{records: 60, extended: true}},
		{"nor for TCP", "tcp", message("many.example", typeA, 0), reading{records: 60}},
		{"another opcode", "udp", func() []byte { b := message("a.example", typeA, 0); b[2] |= 5 << 3; return b }(), reading{code: notKnown}},
		{"two questions", "udp", func() []byte { b := message("a.example", typeA, 0); b[5] = 2; return b }(), reading{code: formatError}},
	} {
		got := read(t, ask(c.network, c.message))
		if got.records == 60 {
			got.addresses = nil
		}
		if got.code != c.want.code || got.truncated != c.want.truncated || got.extended != c.want.extended ||
			got.records != c.want.records || !slices.Equal(got.addresses, c.want.addresses) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	counted := wait(t, stats, func(c Counts) bool { return c.Refused == 5 })
	if want := []string{"x.a.example", "b.example", "c2vjcmv0.t.example"}; !slices.Equal(counted.RefusedNames, want) {
		t.Errorf("refused names: %q", counted.RefusedNames)
	}
}

// wait reads the file of counts until it is as wanted.
func wait(t *testing.T, path string, good func(Counts) bool) Counts {
	t.Helper()
	var found Counts
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(data, &found) == nil && good(found) {
			return found
		}
	}
	t.Fatalf("the counts never came to that: %+v", found)
	return found
}

// upstream is a resolver of a host: it answers each question with what the function makes of it.
func upstream(t *testing.T, answer func(query) []byte) netip.AddrPort {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		buffer := make([]byte, maxMessage)
		for {
			n, from, err := udp.ReadFrom(buffer)
			if err != nil {
				return
			}
			if q, _, err := parseQuery(slices.Clone(buffer[:n])); err == nil {
				_, _ = udp.WriteTo(answer(q), from)
			}
		}
	}()
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			message, _ := readFramed(conn, maxMessage)
			q, _, _ := parseQuery(message)
			q.size = maxMessage
			_, _ = conn.Write(framed(answer(q)))
			conn.Close()
		}
	}()
	return netip.MustParseAddrPort(udp.LocalAddr().String())
}

func giving(texts ...string) func(query) []byte {
	return func(q query) []byte {
		found := reply{}
		for _, address := range addresses(texts...) {
			found.add(address, 3600)
		}
		return found.encode(q, q.size)
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var found []netip.Prefix
	for _, text := range texts {
		found = append(found, netip.MustParsePrefix(text))
	}
	return found
}

func TestAForwardingResolverGivesNoAddressThatIsClosed(t *testing.T) {
	stats := filepath.Join(t.TempDir(), "resolver.json")
	ask := serve(t, Config{
		Mode:      "learn",
		Upstreams: []netip.AddrPort{upstream(t, giving("93.184.216.34", "10.0.0.5", "192.168.7.5", "127.0.0.1"))},
		Closed:    prefixes("10.0.0.0/8", "192.168.0.0/16", "127.0.0.0/8"),
		Opened:    prefixes("192.168.7.0/24"),
		Stats:     stats,
	})
	got := read(t, ask("udp", message("Files.Example", typeA, 1232)))
	if want := []string{"93.184.216.34", "192.168.7.5"}; !slices.Equal(got.addresses, want) {
		t.Errorf("got %+v", got)
	}
	if got := read(t, ask("udp", message("files.example", typeAAAA, 0))); got.code != noError || got.records != 0 {
		t.Errorf("IPv6: %+v", got)
	}
	counted := wait(t, stats, func(c Counts) bool { return c.Stripped == 2 && c.Asked == 2 })
	if !slices.Equal(counted.Names["files.example"], addresses("93.184.216.34", "192.168.7.5")) || len(counted.Names) != 1 {
		t.Errorf("learned %v", counted.Names)
	}
}

func TestAForwardingResolverTriesTheNextOne(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	asked := make(chan bool, 1)
	go func() {
		n, _, err := silent.ReadFrom(make([]byte, maxMessage))
		asked <- err == nil && n > 0
	}()
	other := func(q query) []byte { q.id++; return giving("6.6.6.6")(q) }
	failing := func(q query) []byte { r := reply{code: failed}; return r.encode(q, q.size) }
	ask := serve(t, Config{Mode: "forward", Upstreams: []netip.AddrPort{
		netip.MustParseAddrPort(silent.LocalAddr().String()),
		upstream(t, failing), upstream(t, other), upstream(t, giving("93.184.216.34")),
	}})
	if got := read(t, ask("udp", message("a.example", typeA, 0))); !slices.Equal(got.addresses, []string{"93.184.216.34"}) {
		t.Errorf("got %+v", got)
	}
	silent.Close()
	if !<-asked {
		t.Error("the silent one was not asked")
	}
	alone := serve(t, Config{Mode: "forward", Upstreams: []netip.AddrPort{upstream(t, failing)}})
	if got := read(t, alone("udp", message("a.example", typeA, 0))); got.code != failed {
		t.Errorf("got %+v", got)
	}
}

func TestALongAnswerIsFetchedByTCP(t *testing.T) {
	many := make([]string, 60)
	for n := range many {
		many[n] = netip.AddrFrom4([4]byte{1, 1, 1, byte(n)}).String()
	}
	first := func(q query) []byte {
		q.size = min(q.size, 600+maxMessage*(q.size/maxMessage))
		return giving(many...)(q)
	}
	ask := serve(t, Config{Mode: "forward", Upstreams: []netip.AddrPort{upstream(t, first)}})
	if got := read(t, ask("tcp", message("many.example", typeA, 0))); got.records != 60 {
		t.Errorf("got %d records", got.records)
	}
}

func TestOtherTypesAreRelayedWithoutAddresses(t *testing.T) {
	text := func(q query) []byte {
		r := reply{count: 1, records: []byte{0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 9, 0, 3, 2, 'h', 'i'}}
		if q.question.name == "bad.example" {
			r.add(netip.MustParseAddr("10.0.0.1"), 1)
		}
		return r.encode(q, q.size)
	}
	ask := serve(t, Config{Mode: "forward", Upstreams: []netip.AddrPort{upstream(t, text)}})
	if got := read(t, ask("udp", message("a.example", 16, 0))); got.records != 1 || got.code != noError {
		t.Errorf("text: %+v", got)
	}
	if got := read(t, ask("udp", message("bad.example", 16, 0))); got.code != failed || got.records != 0 {
		t.Errorf("text with an address: %+v", got)
	}
	for _, kind := range []uint16{65, 64, 255, 10, 252} {
		if got := read(t, ask("udp", message("a.example", kind, 0))); got.records != 0 {
			t.Errorf("type %d: %+v", kind, got)
		}
	}
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	up := []netip.AddrPort{netip.MustParseAddrPort("1.1.1.1:53")}
	for _, c := range []Config{
		{}, {Mode: "open"}, {Mode: "forward"}, {Mode: "pinned", Upstreams: up},
		{Mode: "learn", Upstreams: up, Names: map[string][]netip.Addr{"a": nil}},
		{Mode: "pinned", Names: map[string][]netip.Addr{"A.example": nil}},
		{Mode: "pinned", Names: map[string][]netip.Addr{"": nil}},
		{Mode: "pinned", Names: map[string][]netip.Addr{"a": addresses("::1")}},
		{Mode: "forward", Upstreams: make([]netip.AddrPort, 1)},
		{Mode: "forward", Upstreams: slices.Repeat(up, maxUpstreams+1)},
	} {
		if c.Check() == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(message("a.example", typeA, 1232))
	f.Add(message("b.example", 16, 0))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 41})
	r := &resolver{
		config: Config{Mode: "pinned", Names: map[string][]netip.Addr{"a.example": addresses("1.1.1.1")}},
		stats:  newStats(""),
	}
	f.Cleanup(r.stats.close)
	f.Fuzz(func(t *testing.T, b []byte) {
		q, found, any := r.answer(b)
		if !any {
			return
		}
		made := found.encode(q, q.size)
		if len(made) > q.size && len(q.question.raw) < leastSize-headerSize-11 {
			t.Errorf("%d bytes for a guest that takes %d", len(made), q.size)
		}
		if found.count > 0 && q.question.name != "a.example" {
			t.Errorf("an address for %q", q.question.name)
		}
	})
}

func FuzzJudged(f *testing.F) {
	q, _, _ := parseQuery(message("a.example", typeA, 0))
	f.Add(uint16(1), giving("1.1.1.1", "10.0.0.1")(q))
	f.Add(uint16(16), giving()(q))
	r := &resolver{config: Config{Mode: "learn", Closed: prefixes("10.0.0.0/8")}, stats: newStats("")}
	f.Cleanup(r.stats.close)
	f.Fuzz(func(t *testing.T, kind uint16, b []byte) {
		asked := q.question
		asked.kind = kind
		if len(b) < headerSize {
			return
		}
		found, err := r.judged(asked, b)
		if err == nil && kind == typeA && (found.count > maxAddresses || len(found.records) != found.count*addressRecord) {
			t.Errorf("%d records in %d bytes", found.count, len(found.records))
		}
	})
}
