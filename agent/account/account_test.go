package account

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func files(t *testing.T, passwd, group string) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
	for path, text := range map[string]string{f.Passwd: passwd, f.Group: group} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

const passwd = `root:x:0:0:root:/root:/bin/bash
# a comment
broken
bad:x:notanumber:0::/:/bin/sh
dev:x:1000:1000:Dev,,,:/home/dev:/bin/zsh
2000:x:2001:2001::/home/odd:/bin/sh
twin:x:1000:5::/twin:/bin/sh
`

const group = `root:x:0:
audio:x:29:dev,other
dev:x:1000:dev
video:x:44:other,dev
wheel:x:10:developer
short:x:9
`

func TestLookup(t *testing.T) {
	f := files(t, passwd, group)
	dev := Account{1000, 1000, []uint32{29, 44}, "dev", "/home/dev", "/bin/zsh"}
	cases := map[string]Account{
		"":          {0, 0, nil, "root", "/root", "/bin/bash"},
		"root":      {0, 0, nil, "root", "/root", "/bin/bash"},
		"dev":       dev,
		"1000":      dev,
		"2000":      {2001, 2001, nil, "2000", "/home/odd", "/bin/sh"},
		"twin":      {1000, 5, nil, "twin", "/twin", "/bin/sh"},
		"dev:9":     {1000, 9, nil, "dev", "/home/dev", "/bin/zsh"},
		"dev:wheel": {1000, 10, nil, "dev", "/home/dev", "/bin/zsh"},
		"4242":      {4242, 0, nil, "4242", "", ""},
		"4242:77":   {4242, 77, nil, "4242", "", ""},
		":audio":    {0, 29, nil, "root", "/root", "/bin/bash"},
	}
	for spec, want := range cases {
		if got, err := f.Lookup(spec); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"nobody", "bad", "broken", "dev:none", "-1", "4294967295", "99999999999", "dev:", "x:0", "#"} {
		if got, err := f.Lookup(spec); err != ErrUnknown {
			t.Errorf("%q: %+v, %v", spec, got, err)
		}
	}
}

func TestLookupWithoutFiles(t *testing.T) {
	f := Files{"/nonexistent/passwd", "/nonexistent/group"}
	if got, err := f.Lookup(""); err != nil || got.Home != "/root" || got.Name != "root" {
		t.Errorf("root: %+v, %v", got, err)
	}
	if got, err := f.Lookup("7:8"); err != nil || got.UID != 7 || got.GID != 8 {
		t.Errorf("7:8: %+v, %v", got, err)
	}
}

func TestHostileFilesAreBounded(t *testing.T) {
	f := files(t, strings.Repeat("a", 2*maxLine)+"\n"+passwd, strings.Repeat("g:x:7:dev\n", 5000))
	if _, err := f.Lookup("dev"); err != ErrUnknown {
		t.Error("read beyond an endless line", err)
	}
	f = files(t, passwd, strings.Repeat("g:x:7:dev\n", 5000))
	if got, err := f.Lookup("dev"); err != nil || len(got.Groups) != maxGroups {
		t.Error(len(got.Groups), err)
	}
}
