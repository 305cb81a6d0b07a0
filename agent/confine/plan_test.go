package confine

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
)

type fields map[string]any

func goodPlan() fields {
	return fields{
		"kind": kindNamespaces, "root": "/state/jail", "landlock": true, "argv": []string{"/firecracker"},
		"binds": []fields{{"source": "/cache/vmlinux", "target": "kernel", "access": accessRead}},
	}
}

func TestPlan(t *testing.T) {
	bind := func(key, value string) fields {
		one := fields{"source": "/s", "target": "t", "access": accessRead}
		one[key] = value
		return fields{"binds": []fields{one}}
	}
	for _, c := range []struct {
		name   string
		change fields
		want   string
	}{
		{"good", fields{}, ""},
		{"deep target", bind("target", "dev/net/tun"), ""},
		{"unknown kind", fields{"kind": "chroot"}, "unknown kind"},
		{"unknown key", fields{"uid": 0}, "unknown field"},
		{"no program", fields{"argv": []string{}}, "absolute"},
		{"relative program", fields{"argv": []string{"firecracker"}}, "absolute"},
		{"the host's root", fields{"root": "/"}, "absolute"},
		{"unclean root", fields{"root": "/a/../b"}, "absolute"},
		{"relative source", bind("source", "s"), "impossible bind"},
		{"target above", bind("target", "../t"), "impossible bind"},
		{"absolute target", bind("target", "/t"), "impossible bind"},
		{"empty target", bind("target", ""), "impossible bind"},
		{"unknown access", bind("access", "all"), "impossible bind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := goodPlan()
			maps.Copy(plan, c.change)
			text, err := json.Marshal(plan)
			if err != nil {
				t.Fatal(err)
			}
			_, err = parsePlan(string(text))
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add(`{"kind":"jailer","root":"/x","binds":[],"argv":["/y"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parsePlan(text); err == nil && p == nil {
			t.Fatal("no plan and no error")
		}
	})
}

func TestHandledRightsGrowWithTheKernel(t *testing.T) {
	last := uint64(0)
	for version := 1; version <= 8; version++ {
		files, network, scopes := handled(version)
		if files < last || (network != 0) != (version >= 4) || (scopes != 0) != (version >= 6) {
			t.Errorf("version %d: %x %x %x", version, files, network, scopes)
		}
		last = files
	}
}
