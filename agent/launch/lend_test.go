package launch

import (
	"os"
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

// What a template's memory is to QEMU: a file that may be read, opened for reading and writing.
func TestTheChildThatOpensALentFileForWritingMayRead(t *testing.T) {
	path := t.TempDir() + "/memory"
	if err := os.WriteFile(path, []byte("template\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	script := "exec 5<>/proc/self/fd/4 || exit 1; cat <&5 >&3; (echo x >&5) 2>/dev/null || echo refused >&3; exec sleep 1000"
	plan := machinePlan(t, script)
	if os.Geteuid() == 0 { // who is not bound by the file's mode
		plan = plan.with(fields{"uid": 65534, "gid": 65534})
	}
	r := begin(t, []*os.File{file}, func(status int, files []int) any {
		plan["status_fd"], plan["files"], plan["lend"] = status, files, []int{files[1]}
		return plan
	})
	r.next("started")
	r.word("template")
	r.word("refused")
	r.signal(syscall.SIGTERM)
	r.code()
	if text := readFile(t, path); text != "template\n" {
		t.Errorf("the file became %q", text)
	}
}
