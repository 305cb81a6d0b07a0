package launch

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAHugePlanIsRefused(t *testing.T) {
	r := begin(t, nil, func(status int, files []int) any {
		return machinePlan(t, sleeper).with(fields{"status_fd": status, "argv": []string{strings.Repeat("x", 4<<20)}})
	})
	if code := r.code(); code != 1 || !strings.Contains(r.stderr.String(), "longer than") {
		t.Fatalf("code %d, %s", code, r.stderr.String())
	}
	r.dead()
}

func TestParsePlan(t *testing.T) {
	cases := []struct {
		name   string
		change fields
		want   string // empty: accepted
	}{
		{"as documented", nil, ""},
		{"no owner", fields{"owner": nil}, ""},
		{"no limit at all", fields{"rlimits": fields{"memlock": -1}}, ""},
		{"unknown key", fields{"uidd": 1}, `unknown key "uidd"`},
		{"key in another case", fields{"UID": 0}, `unknown key "UID"`},
		{"unknown key of owner", fields{"owner": fields{"pid": 1, "start_ticks": 1, "x": 1}}, "unknown field"},
		{"null is not a number", fields{"uid": nil}, "uid is null"},
		{"number too large", fields{"uid": 1 << 32}, "out of range"},
		{"fraction", fields{"uid": 1.5}, "cannot unmarshal"},
		{"text for a number", fields{"uid": "0"}, "cannot unmarshal"},
		{"uid alone", fields{"uid": 5}, "together"},
		{"groups alone", fields{"groups": []int{5}}, "groups need"},
		{"empty argv", fields{"argv": []string{}}, "argv"},
		{"argv by PATH", fields{"argv": []string{"qemu"}}, "absolute"},
		{"impossible variable", fields{"env": fields{"A=B": "c"}}, "impossible"},
		{"owner without start", fields{"owner": fields{"pid": 1}}, "start_ticks"},
		{"owner of a group", fields{"owner": fields{"pid": -1, "start_ticks": 1}}, "owner"},
		{"negative deadline", fields{"deadline_unix_ms": -1}, "negative"},
		{"a kept directory", fields{"keep_directory": true}, ""},
		{"directory by another name", fields{"directory": "/home/user/project"}, "machine directory"},
		{"directory with dots", fields{"directory": "/x/../0123456789ab"}, "machine directory"},
		{"relative directory", fields{"directory": "0123456789ab"}, "machine directory"},
		{"upper case id", fields{"directory": "/x/0123456789AB"}, "machine directory"},
		{"relative log", fields{"log": fields{"path": "log", "limit": 8192}}, "absolute"},
		{"no room for a log", fields{"log": fields{"path": "/log", "limit": 10}}, "at least"},
		{"one file for two logs", fields{"log": fields{"path": "/console", "limit": 8192}}, "same file"},
		{"status on stderr", fields{"status_fd": 2}, "status_fd"},
		{"child could forge events", fields{"files": []int{4}}, "given to the child"},
		{"file named twice", fields{"files": []int{5, 5}}, "once"},
		{"namespaces", fields{"namespaces": []string{"mount", "pid", "net", "ipc", "uts", "user"}}, ""},
		{"unknown namespace", fields{"namespaces": []string{"time"}}, "unknown or repeated namespace"},
		{"user namespace and a uid", fields{"namespaces": []string{"user"}, "uid": 5, "gid": 5}, "exclude"},
		{"half a network", fields{"network": fields{"tap": "tap0"}}, "network"},
		{"cgroup", fields{"cgroups": []string{"/sys/fs/cgroup/pyro/0123456789ab"}}, ""},
		{"cgroup elsewhere", fields{"cgroups": []string{"/tmp/0123456789ab"}}, "not a cgroup"},
		{"cgroup of others", fields{"cgroups": []string{"/sys/fs/cgroup/system.slice"}}, "machine directory"},
		{"extra log without a pipe", fields{"extra_logs": []fields{{"path": "/x", "limit": 8192}}}, "needs a pipe"},
		{"pipe by a relative name", fields{"log": fields{"path": "/log", "limit": 8192, "pipe": "x"}}, "not absolute"},
		{"unknown limit", fields{"rlimits": fields{"as": 1}}, "unknown rlimit"},
		{"negative limit", fields{"rlimits": fields{"core": -2}}, "negative"},
		{"score out of range", fields{"oom_score_adj": 2000}, "range"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			good := machinePlan(t, "true").with(fields{"status_fd": 4,
				"console": fields{"path": "/console", "limit": 8192}, "log": fields{"path": "/log", "limit": 8192}})
			text, err := json.Marshal(good.with(c.change))
			if err != nil {
				t.Fatal(err)
			}
			_, err = parsePlan(text)
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
}

func TestEveryKeyIsNeeded(t *testing.T) {
	for key := range planKeys {
		plan := machinePlan(t, "true").with(fields{"status_fd": 4})
		delete(plan, key)
		text, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsePlan(text); (err == nil) == planKeys[key] {
			t.Errorf("without %s: %v", key, err)
		}
	}
}

func TestGarbageIsRefused(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "null", "{} {}", `{"argv":`, strings.Repeat("[", 1<<19), "\xff"} {
		if _, err := parsePlan([]byte(text)); err == nil {
			t.Errorf("accepted %.20q", text)
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"argv":["/x"],"status_fd":4,"owner":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = statusOf(text)
		if p, err := parsePlan(text); err == nil && p == nil {
			t.Fatal("no plan and no error")
		}
	})
}
