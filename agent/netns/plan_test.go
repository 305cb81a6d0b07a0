package netns

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
)

type fields map[string]any

func good() fields {
	return fields{
		"tap": "tap0", "guest": "172.29.1.2", "gateway": "172.29.1.1", "prefix": 24, "mtu": 1500,
		"rules": "table inet pyro { }", "nft": "/usr/sbin/nft", "owner": -1, "descriptor": true,
		"directory": "/state/machines/0123456789ab/network", "gate_uid": -1, "gate_gid": -1,
		"uplink":   veth(nil),
		"resolver": fields{"mode": "pinned", "names": fields{}, "upstreams": []string{}, "closed": []string{}, "opened": []string{}, "stats": ""},
	}
}

func veth(change fields) fields {
	uplink := fields{
		"kind": "veth", "device": "py0123456789ab", "gateway": "198.18.0.1", "argv": []string{},
		"candidates": []fields{{"address": "198.18.3.4", "host_rules": "table inet x { };"}},
	}
	maps.Copy(uplink, change)
	return uplink
}

func TestParse(t *testing.T) {
	candidate := func(address, rules string) fields {
		return veth(fields{"candidates": []fields{{"address": address, "host_rules": rules}}})
	}
	cases := []struct {
		name   string
		change fields
		want   string // empty: accepted
	}{
		{"as documented", nil, ""},
		{"no uplink", fields{"uplink": fields{"kind": "none"}}, ""},
		{"pasta", fields{"uplink": fields{"kind": "pasta", "argv": []string{"/usr/bin/pasta"}}}, ""},
		{"unknown key", fields{"taps": 1}, "unknown field"},
		{"unknown key of the uplink", fields{"uplink": veth(fields{"x": 1})}, "unknown field"},
		{"unknown key of the resolver", fields{"resolver": fields{"mode": "pinned", "x": 1}}, "unknown field"},
		{"unknown resolver", fields{"resolver": fields{"mode": "open"}}, "resolver mode"},
		{"a device with a slash", fields{"tap": "../tap"}, "device"},
		{"a long device", fields{"uplink": veth(fields{"device": "py0123456789abcd"})}, "device"},
		{"no rules", fields{"rules": ""}, "rules"},
		{"nft by PATH", fields{"nft": "nft"}, "nft"},
		{"IPv6", fields{"guest": "fe80::1"}, "IPv4"},
		{"a small mtu", fields{"mtu": 100}, "mtu"},
		{"a gate without a group", fields{"gate_uid": 5}, "gate"},
		{"unknown uplink", fields{"uplink": fields{"kind": "bridge"}}, "unknown kind"},
		{"pasta by PATH", fields{"uplink": fields{"kind": "pasta", "argv": []string{"pasta"}}}, "absolute"},
		{"nowhere to go", fields{"uplink": veth(fields{"candidates": []fields{}})}, "candidates"},
		{"an address that is none", fields{"uplink": candidate("x", "table")}, "IPv4"},
		{"two commands for one", fields{"uplink": candidate("198.18.3.4", "a\nb")}, "one line"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			plan := good()
			maps.Copy(plan, c.change)
			text, err := json.Marshal(plan)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(text)
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
}

func TestEveryKeyIsNeeded(t *testing.T) {
	for key := range good() {
		plan := good()
		delete(plan, key)
		text, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(text); err == nil && key != "descriptor" { // false: what we become drops the privileges
			t.Errorf("accepted without %s", key)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := json.Marshal(good())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := Parse(text); err == nil && (p.Uplink == nil || p.Resolver == nil) {
			t.Fatal("accepted half a plan")
		}
	})
}
