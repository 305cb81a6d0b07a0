package gate

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pyro.dev/agent/nstest"
	"pyro.dev/agent/resolve"
	"pyro.dev/agent/rtnl"
)

const sysPidfdOpen = 434 // on every architecture

func TestMain(m *testing.M) { nstest.Main(m) }

func pair(t *testing.T) (int, int) {
	t.Helper()
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(ends[0]); syscall.Close(ends[1]) })
	return ends[0], ends[1]
}

// handover has descriptors of files that can be told apart.
func handover(t *testing.T) (Handover, []os.FileInfo) {
	t.Helper()
	fds, infos := []int{}, []os.FileInfo{}
	for range descriptors {
		file, err := os.CreateTemp(t.TempDir(), "fd")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		fds, infos = append(fds, int(file.Fd())), append(infos, info)
	}
	return Handover{fds[0], fds[1], fds[2], fds[3], fds[4]}, infos
}

func TestThePlanAndTheDescriptorsArriveInTheirPlaces(t *testing.T) {
	asking, gate := pair(t)
	sent, infos := handover(t)
	told := make(chan error, 1)
	plan := &Plan{Uplink: Uplink{Kind: KindPasta}, Resolver: resolve.Config{Mode: "forward"}, MTU: 1400, UID: -1, GID: 7}
	go func() { told <- Ask(asking, plan, sent) }()
	got, handed, err := receive(gate)
	if err != nil {
		t.Fatal(err)
	}
	if got.Uplink.Kind != KindPasta || got.Resolver.Mode != "forward" || got.MTU != 1400 || got.UID != -1 || got.GID != 7 {
		t.Errorf("the plan is %+v", got)
	}
	for i, fd := range []int{handed.Namespace, handed.Netlink, handed.UDP, handed.TCP, handed.Machine} {
		file := os.NewFile(uintptr(fd), "")
		if info, err := file.Stat(); err != nil || !os.SameFile(info, infos[i]) {
			t.Errorf("descriptor %d is another one", i)
		}
		file.Close()
	}
	reply(gate, nil)
	if err := <-told; err != nil {
		t.Error(err)
	}
}

func TestWhatWentWrongIsTold(t *testing.T) {
	cases := []struct {
		name string
		plan *Plan
		gate func(socket int)
		want string
	}{
		{"it fails", &Plan{}, func(s int) { reply(s, os.ErrPermission) }, "permission denied"},
		{"it ends", &Plan{}, ends, "the gate ended"},
		{"it babbles", &Plan{}, func(s int) { _ = syscall.Sendmsg(s, []byte("{"), nil, nil, 0) }, "hear from the gate"},
		{"too much for one message", &Plan{NFT: strings.Repeat("x", maxMessage)}, func(int) {}, "too many"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			asking, gate := pair(t)
			sent, _ := handover(t)
			c.gate(gate)
			if err := Ask(asking, c.plan, sent); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
}

// ends is a gate that does as soon as it has heard.
func ends(socket int) {
	go func() {
		_, _, _ = receive(socket)
		_ = syscall.Shutdown(socket, syscall.SHUT_RDWR)
	}()
}

func TestAPlanWithoutItsDescriptorsIsRefused(t *testing.T) {
	files, _ := handover(t)
	for name, rights := range map[string][]byte{"none": nil, "one": syscall.UnixRights(files.UDP)} {
		asking, gate := pair(t)
		if err := syscall.Sendmsg(asking, []byte("{}"), rights, nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := receive(gate); err == nil || !strings.Contains(err.Error(), "descriptors") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheLockIsHeldByOneAndForItsLife(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := holdLock(); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != syscall.EWOULDBLOCK {
		t.Errorf("it is free: %v", err)
	}
	if err := holdLock(); err == nil {
		t.Error("held twice")
	}
}

func TestTheEndOfTheMachineIsNoticed(t *testing.T) {
	child := exec.Command("/bin/cat")
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(child.Process.Pid), 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	over := make(chan error, 1)
	go func() { over <- awaitEnd(int(pidfd)) }()
	input.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
	_ = child.Wait()
}

// uplink is a plan for a pair of devices with these candidates.
func uplink(t *testing.T, addresses ...string) *Plan {
	t.Helper()
	nft, err := exec.LookPath("/usr/sbin/nft")
	if err != nil {
		t.Skip("nft is not installed")
	}
	plan := &Plan{NFT: nft, MTU: 1400, Uplink: Uplink{Kind: KindVeth, Device: "pytest0", Gateway: "198.18.0.1"}}
	for _, address := range addresses {
		rules := "table inet pyro_" + strings.ReplaceAll(address, ".", "_") + " { flags owner; };"
		plan.Uplink.Candidates = append(plan.Uplink.Candidates, Candidate{Address: address, HostRules: rules})
	}
	return plan
}

func tables(t *testing.T, plan *Plan) string {
	t.Helper()
	listed, err := exec.Command(plan.NFT, "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(listed)
}

func TestThePairTakesAnAddressThatIsFreeAndHoldsItsTable(t *testing.T) {
	plan := uplink(t, "198.18.5.2", "198.18.6.2")
	inside := nstest.Alone(t)
	namespace := nstest.Here(t)
	host := nstest.Alone(t)
	nstest.Devices(t, host, "other0", "other1")
	other, err := host.Index("other0")
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Up(other, 1500); err != nil {
		t.Fatal(err)
	}
	taken, _ := rtnl.ParseAddress("198.18.5.2")
	if err := host.AddHostRoute(other, taken); err != nil {
		t.Fatal(err)
	}
	ended, err := plan.openVeth(inside, namespace)
	if err != nil {
		t.Fatal(err)
	}
	if found := tables(t, plan); !strings.Contains(found, "pyro_198_18_6_2") || strings.Contains(found, "pyro_198_18_5_2") {
		t.Errorf("the host's tables are %q", found)
	}
	if ready, err := inside.HasDefaultRoute(); !ready || err != nil {
		t.Errorf("the machine has no way out: %v", err)
	}
	held[len(held)-1].Close() // nft reads the end of its commands
	held = held[:len(held)-1]
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "nft ended") {
		t.Errorf("the end of nft: %v", err)
	}
	if found := tables(t, plan); found != "" {
		t.Errorf("left behind: %q", found)
	}
}

func TestWithoutAFreeAddressThereIsNoWayOut(t *testing.T) {
	plan := uplink(t, "198.18.5.2", "198.18.5.2")
	inside := nstest.Alone(t)
	namespace := nstest.Here(t)
	host := nstest.Alone(t)
	nstest.Devices(t, host, "other0", "other1")
	other, err := host.Index("other0")
	if err != nil {
		t.Fatal(err)
	}
	taken, _ := rtnl.ParseAddress("198.18.5.2")
	if err := host.Up(other, 1500); err != nil {
		t.Fatal(err)
	}
	if err := host.AddHostRoute(other, taken); err != nil {
		t.Fatal(err)
	}
	if _, err := plan.openVeth(inside, namespace); err == nil || !strings.Contains(err.Error(), "no free address") {
		t.Errorf("got %v", err)
	}
	if found := tables(t, plan); found != "" {
		t.Errorf("a table was made: %q", found)
	}
}

func TestNftsComplaintIsTold(t *testing.T) {
	plan := uplink(t)
	nstest.Alone(t)
	_, err := holdTable(plan.NFT, "table inet x { chain a { no rule at all; }; };")
	if err == nil || !strings.Contains(err.Error(), "the host's table: ") || !strings.Contains(err.Error(), "Error:") {
		t.Errorf("got %v", err)
	}
	if _, err := holdTable(filepath.Join(t.TempDir(), "nft"), ""); err == nil {
		t.Error("an nft that is not there was started")
	}
}

func TestAPastaThatFailsIsHeard(t *testing.T) {
	pasta := filepath.Join(t.TempDir(), "pasta")
	script := "#!/bin/sh\necho no tun device here >&2\nexit 1\n"
	if err := os.WriteFile(pasta, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	inside := nstest.Alone(t)
	namespace := nstest.Here(t)
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	plan := &Plan{Directory: t.TempDir(), Uplink: Uplink{Kind: KindPasta, Argv: []string{pasta}}}
	defer syscall.Unmount(filepath.Join(plan.Directory, namespaceFile), syscall.MNT_DETACH)
	_, err := plan.openPasta(inside, namespace)
	if err == nil || !strings.Contains(err.Error(), "exit status 1: no tun device here") {
		t.Errorf("got %v", err)
	}
}

func TestWordsAreKeptUpToALimit(t *testing.T) {
	w := &words{over: make(chan struct{})}
	for range 100 {
		if n, err := w.Write([]byte("0123456789")); n != 10 || err != nil {
			t.Fatal(n, err)
		}
	}
	close(w.over)
	if text := w.first(); len(text) != maxComplaint+2 {
		t.Errorf("%d bytes", len(text))
	}
}

func TestOnlyAWholeUplinkIsTaken(t *testing.T) {
	good := Candidate{"198.18.3.4", "table inet x { };"}
	cases := []struct {
		name   string
		uplink Uplink
		want   string
	}{
		{"none", Uplink{Kind: KindNone}, ""},
		{"pasta", Uplink{Kind: KindPasta, Argv: []string{"/usr/bin/pasta"}}, ""},
		{"a pair", Uplink{KindVeth, "py0", "198.18.0.1", []Candidate{good}, nil}, ""},
		{"an unknown kind", Uplink{Kind: "bridge"}, "unknown kind"},
		{"pasta by its name alone", Uplink{Kind: KindPasta, Argv: []string{"pasta"}}, "absolute"},
		{"nothing to run", Uplink{Kind: KindPasta}, "absolute"},
		{"a long name", Uplink{KindVeth, strings.Repeat("x", 16), "198.18.0.1", []Candidate{good}, nil}, "name of a device"},
		{"a name with a slash", Uplink{KindVeth, "a/b", "198.18.0.1", []Candidate{good}, nil}, "name of a device"},
		{"no candidates", Uplink{KindVeth, "py0", "198.18.0.1", nil, nil}, "candidates"},
		{"too many", Uplink{KindVeth, "py0", "198.18.0.1", make([]Candidate, maxCandidates+1), nil}, "candidates"},
		{"two commands", Uplink{KindVeth, "py0", "198.18.0.1", []Candidate{{"198.18.3.4", "a\nb"}}, nil}, "one line"},
		{"no gateway", Uplink{KindVeth, "py0", "", []Candidate{good}, nil}, "IPv4"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := c.uplink.Check()
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
}
