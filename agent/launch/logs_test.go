package launch

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestAFloodStaysWithinItsLimits(t *testing.T) {
	const limit, flood = 256 << 10, 64 << 20
	// The script waits at the end, so that the launcher's memory can be read.
	plan := machinePlan(t, "head -c 5000000 /dev/zero >&2; head -c 64M /dev/zero; echo last word; echo ready >&3; read word <&4")
	for _, log := range []string{"console", "log"} {
		plan[log].(fields)["limit"] = limit
	}
	reader, writer := pipe(t)
	r := launch(t, plan, reader)
	r.ready()
	if peak := peakMemory(t, r.cmd.Process.Pid); peak > flood/2 {
		t.Errorf("the launcher grew to %d bytes", peak)
	}
	closeFiles(writer)
	r.next("exited")
	for _, name := range []string{"console.log", "vmm.log"} {
		path := filepath.Join(plan.directory(), name)
		size := fileSize(t, path) + fileSize(t, path+".1")
		if size > limit || size < limit/2 {
			t.Errorf("%s takes %d bytes of %d", name, size, limit)
		}
	}
	if got := readFile(t, filepath.Join(plan.directory(), "console.log")); !strings.HasSuffix(got, "last word\n") {
		t.Error("the end of the output is lost")
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", path, info.Mode())
	}
	return info.Size()
}

func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	match := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(readFile(t, "/proc/"+strconv.Itoa(pid)+"/status"))
	if match == nil {
		t.Fatal("no VmHWM")
	}
	kib, err := strconv.ParseInt(match[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func TestTheWholeOutputIsOnDiskBeforeTheEndIsTold(t *testing.T) {
	plan := machinePlan(t, "head -c 400000 /dev/zero")
	if got := len(console(t, plan)); got != 400000 {
		t.Fatalf("%d of 400000 bytes", got)
	}
}

func TestADiskThatTakesNothingMoreDoesNotBlockTheMachine(t *testing.T) {
	plan := machinePlan(t, "head -c 5000000 /dev/zero")
	plan.with(fields{"rlimits": fields{"fsize": 50000}}) // the launcher's writes fail with EFBIG
	if got := len(console(t, plan)); got != 50000 {
		t.Fatalf("%d bytes", got)
	}
}

func TestARestartGoesOnInTheSameLog(t *testing.T) {
	plan := machinePlan(t, "echo boot")
	console(t, plan)
	if got := console(t, plan); got != "boot\nboot\n" {
		t.Fatalf("got %q", got)
	}
}

func TestRotation(t *testing.T) {
	cases := []struct {
		name         string
		before       string // already in the file
		chunks       []string
		older, newer string
	}{
		{"all fits", "", []string{"abc", "def"}, "", "abcdef"},
		{"exactly half", "", []string{"01234567"}, "", "01234567"},
		{"one byte more", "", []string{"01234567", "8"}, "01234567", "8"},
		{"a chunk over two files", "", []string{"0123456789"}, "01234567", "89"},
		{"only the newest stay", "", []string{"aaaaaaaabbbbbbbbcccccccc", "d"}, "cccccccc", "d"},
		{"after a restart", "012345", []string{"6789"}, "01234567", "89"},
		{"written under a larger limit", "0123456789", []string{"x"}, "", "x"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			log, err := openLog(logPlan{Path: path, Limit: 16})
			if err != nil {
				t.Fatal(err)
			}
			defer log.close()
			for _, chunk := range c.chunks {
				log.write([]byte(chunk))
			}
			if got := readFile(t, path); got != c.newer {
				t.Errorf("newer: %q", got)
			}
			if exists(path+".1") != (c.older != "") || (c.older != "" && readFile(t, path+".1") != c.older) {
				t.Errorf("older is wrong")
			}
		})
	}
}

func TestLostBytesAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := openLog(logPlan{Path: path, Limit: 400})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { log.close() }()
	good := log.fd
	if log.fd, err = openReadOnly(path); err != nil { // a write to it fails
		t.Fatal(err)
	}
	log.write([]byte("0123456789"))
	log.close()
	log.fd = good
	log.write([]byte("again"))
	if got := readFile(t, path); got != "\n[pyro: 10 bytes lost here]\nagain" {
		t.Fatalf("got %q", got)
	}
}
