package launch

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestLendNamesOnlyFilesOfThePlanAndEachOnce(t *testing.T) {
	for text, lend := range map[string][]int{"": {5}, "not one of files": {6}, "one twice": {5, 5}} {
		p := &plan{Files: []int{4, 5}, Lend: lend}
		err := p.checkLend()
		if text == "" && err != nil {
			t.Error(err)
		}
		if text != "" && (err == nil || !strings.Contains(err.Error(), strings.Fields(text)[0])) {
			t.Errorf("%v: %v", lend, err)
		}
	}
}

// lentTo starts a script that was lent a file with the text "template\n" as descriptor 4.
func lentTo(t *testing.T, script string) (r *running, path string) {
	t.Helper()
	path = t.TempDir() + "/memory"
	if err := os.WriteFile(path, []byte("template\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	plan := machinePlan(t, script)
	if os.Geteuid() == 0 { // who is not bound by the file's mode
		plan = plan.with(fields{"uid": 65534, "gid": 65534})
	}
	r = begin(t, []*os.File{file}, func(status int, files []int) any {
		plan["status_fd"], plan["files"], plan["lend"] = status, files, []int{files[1]}
		return plan
	})
	r.next("started")
	return r, path
}

// What a template's memory is to QEMU: a file that may be read, opened for reading and writing.
func TestTheChildThatOpensALentFileForWritingMayRead(t *testing.T) {
	r, path := lentTo(t, "exec 5<>/proc/self/fd/4 || exit 1; cat <&5 >&3; (echo x >&5) 2>/dev/null || echo refused >&3; exec sleep 1000")
	r.word("template")
	r.word("refused")
	r.signal(syscall.SIGTERM)
	r.code()
	if text := readFile(t, path); text != "template\n" {
		t.Errorf("the file became %q", text)
	}
}

// What QEMU does when the guest returns memory. In files of the child's own holes are holes.
func TestAHolePunchedIntoALentFileIsSaidToBeMade(t *testing.T) {
	if _, err := exec.LookPath("fallocate"); err != nil {
		t.Skip(err)
	}
	r, path := lentTo(t, `punch="fallocate --punch-hole --offset 0 --length 4096"
		$punch /proc/self/fd/4 && echo made >&3
		own=$(mktemp) && echo text >$own && $punch $own && tr '\0' 0 <$own >&3; rm $own; echo >&3; exec sleep 1000`)
	r.word("made")
	r.word("00000")
	r.signal(syscall.SIGTERM)
	r.code()
	if text := readFile(t, path); text != "template\n" {
		t.Errorf("the file became %q", text)
	}
}
